"""Image embeddings for diversity: those of registered rewards' towers, over tiny files in the places of the real ones."""

import pytest
import torch
import torch.nn.functional as F

from align.rewards.errors import UnknownReward
from align.rewards.features import CHUNK, FEATURES, embed, load_features
from align.rewards.preprocess import to_pictures

from .test_published import filled, hub, images  # noqa: F401


@pytest.mark.parametrize("name", FEATURES)
def test_embeddings_are_the_tower_s_and_of_one_picture_alone(name, hub):  # noqa: F811
    model = load_features(name)
    pictures = images()
    found = embed(model, pictures)
    assert found.dtype == torch.float32
    assert len(found) == len(pictures)
    expected = model.image_embeddings(to_pictures(model.size_images(pictures)))
    torch.testing.assert_close(F.normalize(found, dim=-1), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.norm(dim=-1), torch.ones(len(found)), atol=1e-3)
    for k, picture in enumerate(pictures):
        assert torch.equal(embed(model, [picture])[0], found[k])


def test_pictures_of_several_sizes_keep_their_order(hub):  # noqa: F811
    model = load_features("clip_vit_l14")
    wide, tall = images()[0].resize((60, 40)), images()[1]
    many = [wide, tall] * CHUNK
    found = embed(model, many)
    assert torch.equal(found, embed(model, [wide, tall]).repeat(CHUNK, 1))


def test_other_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownReward, match=r"clip_vit_l4.*clip_vit_l14"):
        load_features("clip_vit_l4")
