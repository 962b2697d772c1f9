"""What every reward must do, over the registry."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from align.rewards.combination import WeightedSum
from align.rewards.preprocess import to_pictures
from align.rewards.registry import REWARDS, load
from align.shapes.grammar import captions, parse
from scripts.shapes_training.scenes import NoRoom, render, sample_scene

CAPTIONS = [
    "a red circle left of a blue square on a gray background",
    "two green stars on a white background",
    "a large yellow ring above a purple cross on a black background",
    "a small cyan triangle on a gray background",
]
HERE = [name for name, spec in REWARDS.items() if not spec.facts and spec.section is None]
"""What needs no download and nobody elsewhere; published rewards are tested with tiny files in their places (test_published.py)."""
MODELS = [name for name in HERE if REWARDS[name].weights]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    arrays = [render(sample_scene(parse(text), rng, None)) for text in CAPTIONS]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def rewards():
    return {name: load(name) for name in HERE}


@pytest.fixture(params=HERE)
def reward(request, rewards):
    return rewards[request.param]


def test_shape_and_type(reward, pictures):
    values = reward.score(pictures, CAPTIONS)
    assert values.shape == (4,)
    assert values.dtype == torch.float32
    assert values.isfinite().all()


def test_rows_do_not_depend_on_their_company(reward, pictures):
    together = reward.score(pictures, CAPTIONS)
    alone = torch.cat([reward.score(pictures[k : k + 1], CAPTIONS[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    turned = reward.score(pictures.flip(0), CAPTIONS[::-1]).flip(0)
    torch.testing.assert_close(together, turned, rtol=1e-4, atol=1e-4)


def test_parts_that_do_not_belong_together_are_refused(reward, pictures):
    with pytest.raises(ValueError, match="4 pictures need as many prompts"):
        reward.score(pictures, CAPTIONS[:3])
    with pytest.raises(ValueError, match="4 pictures need as many prompts"):
        reward.score(pictures, "abcd")
    with pytest.raises(ValueError, match="timesteps"):
        reward.score(pictures, CAPTIONS, torch.tensor([1]))


def test_gradient_reaches_the_pictures_if_differentiable(reward, pictures):
    # Greyer, as toy rewards are flat where a picture is nearly white.
    pictures = (0.2 + 0.6 * pictures).requires_grad_(True)
    values = reward.score(pictures, CAPTIONS, torch.full((4,), 300))
    assert values.requires_grad == reward.differentiable
    if reward.differentiable:
        (gradient,) = torch.autograd.grad(values.sum(), pictures)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_timestep_matters_only_to_those_that_take_it(reward, pictures):
    early = reward.score(pictures, CAPTIONS, torch.full((4,), 900))
    late = reward.score(pictures, CAPTIONS, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(late, reward.score(pictures, CAPTIONS))
    assert (early != late).any() == reward.takes_timestep


def test_saved_pictures_score_as_their_pixels_do(reward, pictures):
    arrays = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(array) for array in arrays]
    saved = (pictures * 255).round() / 255
    torch.testing.assert_close(to_pictures(images), saved)
    scores = reward.score(saved, CAPTIONS)
    torch.testing.assert_close(reward.score_images(images, CAPTIONS), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_pictures_of_any_size_are_scored(name, rewards, pictures):
    big = torch.nn.functional.interpolate(pictures, size=(96, 130), mode="bilinear")
    assert rewards[name].score(big, CAPTIONS).isfinite().all()
    images = [Image.new("RGBA", (70, 90), (200, 30, 30, 128)), Image.new("L", (64, 64), 100)]
    assert rewards[name].score_images(images, CAPTIONS[:2]).isfinite().all()


@pytest.fixture(scope="module")
def recoloured():
    """Held-out captions, pictures of them, and the same captions with one colour replaced."""
    rng = np.random.default_rng(3)
    right, wrong, arrays = [], [], []
    for caption in islice(captions("test", 5, 2), 60):
        other = "blue" if caption.phrases[0].colour != "blue" else "orange"
        phrases = (replace(caption.phrases[0], colour=other), *caption.phrases[1:])
        try:
            arrays.append(render(sample_scene(caption, rng, None)))
        except NoRoom:
            continue
        right.append(caption.text())
        wrong.append(replace(caption, phrases=phrases).text())
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255, right, wrong


@pytest.mark.parametrize("name", [name for name in MODELS if name != "shapes_aesthetic"])
def test_the_right_caption_is_mostly_best(name, rewards, recoloured):
    pictures, right, wrong = recoloured
    with torch.no_grad():
        better = rewards[name].score(pictures, right) > rewards[name].score(pictures, wrong)
    assert better.float().mean() > 0.8


def test_aesthetic_reward_ignores_the_prompt_and_dislikes_noise(rewards, pictures):
    reward = rewards["shapes_aesthetic"]
    clean = reward.score(pictures, CAPTIONS)
    assert torch.equal(clean, reward.score(pictures, [""] * 4))
    noise = 0.15 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    assert (clean > reward.score((pictures + noise).clamp(0, 1), CAPTIONS)).all()


def test_prompts_are_read_once(pictures):
    reward = load("shapes_pick")
    reward.score(pictures, [CAPTIONS[0]] * 4)
    reward.score(pictures, CAPTIONS)
    assert reward.texts.computed == 4


def test_loading_leaves_random_streams_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load("shapes_spm")
    assert torch.equal(torch.rand(1), expected)


def test_weighted_sum(rewards, pictures):
    pick, jpeg = rewards["shapes_pick"], rewards["jpeg_compressibility"]
    both = WeightedSum([(0.5, pick), (2.0, jpeg)])
    expected = 0.5 * pick.score(pictures, CAPTIONS) + 2 * jpeg.score(pictures, CAPTIONS)
    torch.testing.assert_close(both.score(pictures, CAPTIONS), expected)
    assert both.name == "0.5*shapes_pick+2*jpeg_compressibility"
    assert not both.differentiable
    assert not both.takes_timestep
    assert WeightedSum([(1, pick), (1, rewards["shapes_spm"])]).takes_timestep
    assert both.fingerprint["shapes_pick.model.safetensors"] == pick.fingerprint["model.safetensors"]
    with pytest.raises(ValueError, match="at least one"):
        WeightedSum([])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_a_guide_in_shorter_numbers_judges_nearly_alike_and_has_a_gradient(name, dtype, rewards, pictures):
    shorter = load(name, dtype=dtype)
    pictures = pictures.clone().requires_grad_()
    found = [one.score(pictures, CAPTIONS) for one in (rewards[name], shorter)]
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=0.1)
    ours, usual = (torch.autograd.grad(one.sum(), pictures)[0].flatten() for one in found[::-1])
    assert torch.cosine_similarity(ours, usual, dim=0) > 0.98


@pytest.mark.parametrize("name", ["shapes_pick", "shapes_hps", "shapes_spm"])
def test_only_what_sees_pictures_goes_to_the_device(name):
    reward = load(name, "meta")
    places = {key.split(".")[0]: value.device.type for key, value in reward.model.named_parameters()}
    assert {place for key, place in places.items() if key.startswith("vis") or key == "t_embedder"} == {
        "meta"
    }
    assert {place for key, place in places.items() if key.startswith(("text", "transformer"))} == {"cpu"}
