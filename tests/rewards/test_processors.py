"""Pictures that are not square reach each tower as the published program's own processor makes them."""

import functools

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as theirs
from transformers import Qwen2VLImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from align.rewards.geneval.colours import load_colours
from align.rewards.preprocess import CLIP_MEAN, CLIP_STD, to_pictures
from align.rewards.registry import load

from . import box, judge_box

# Height and width: an odd number is cut off, 1 or 3 over a multiple of 4, either way, of larger and smaller ones and exact ones.
SIZES = [(64, 70), (70, 64), (64, 78), (90, 64), (20, 22), (22, 20), (16, 17), (32, 35), (35, 32), (64, 64)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    box.fill_hub(home)
    judge_box.fill_judges(home, ["a cat"])
    return home


@pytest.fixture
def hub(filled, monkeypatch):
    judge_box.use(filled, monkeypatch)
    return filled


def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


def transformers_clip(size):
    return functools.partial(
        _pixels,
        CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
    )


def siglip(size):
    return functools.partial(_pixels, SiglipImageProcessorPil(size={"height": size, "width": size}))


def _pixels(processor, image):
    return torch.as_tensor(np.asarray(processor(images=image, return_tensors="pt")["pixel_values"])[0])


def torchvision_clip(size):
    return image_transform(size, is_train=False)


def hps(size):
    """hpsv2's ResizeMaxSize on tensors, in torchvision's words."""

    def sized(image):
        picture = theirs.to_tensor(image)
        scale = size / max(picture.shape[1:])
        sides = [round(side * scale) for side in picture.shape[1:]]
        down, across = (size - side for side in sides)
        picture = theirs.resize(picture, sides, InterpolationMode.BICUBIC, antialias=True)
        padding = [across // 2, down // 2, across - across // 2, down - down // 2]
        return theirs.normalize(theirs.pad(picture, padding), CLIP_MEAN, CLIP_STD)

    return sized


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("pickscore", transformers_clip),
        ("clipscore", transformers_clip),
        ("mps", transformers_clip),
        ("aesthetic", torchvision_clip),
        ("imagereward", torchvision_clip),
        ("geneval", torchvision_clip),
        ("hpsv2", hps),
        ("hpsv21", hps),
        ("aesthetic25", siglip),
    ],
)
def test_towers_see_what_the_published_processor_makes(name, published, hub):
    if name == "geneval":
        reward = load_colours(box.repository(hub, box.CLIP_L), ["red"], ["{colour} {class}"]).clip
    else:
        reward = load(name)
    processor = published(reward.size)
    for image in images():
        (sized,) = reward.size_images([image])
        (found,) = reward.pixels(to_pictures([sized]), torch.device("cpu"), torch.float32)
        torch.testing.assert_close(found, processor(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["hpsv3", "vqascore_qwen25", "vqascore_qwen3", "geneval2_am"])
def test_language_models_see_what_their_processor_makes(name, hub):
    """GenEval 2 leaves resizing to transformers; the others do it by Pillow first, to the size that is published."""
    reward = load(name)
    vl, sizing, whole = reward.vl, reward.sizing, name == "geneval2_am"
    limits = {"shortest_edge": sizing.least, "longest_edge": sizing.most}
    processor = Qwen2VLImageProcessor(
        size=limits, patch_size=vl.patch, merge_size=vl.merge, temporal_patch_size=vl.frames,
        image_mean=list(vl.mean), image_std=list(vl.std), do_resize=whole,
    )  # fmt: skip
    for image in images()[:4]:
        height, width = smart_resize(image.height, image.width, vl.factor, sizing.least, sizing.most)
        shown = image if whole else image.resize((width, height), Image.Resampling.BICUBIC)
        expected = processor(images=shown, return_tensors="pt")
        patches, grid = vl.patches(reward.shown(image))
        assert grid.tolist() == expected["image_grid_thw"].tolist()
        torch.testing.assert_close(patches, expected["pixel_values"], rtol=0, atol=2e-6)
