"""Forms of the same weights: shards, other precisions, one file in the original layout; what is stated is read or refused."""

import json
import shutil

import pytest
import torch
from hub_box import sd_unet, text_encoder, vae, write_sd
from safetensors.torch import load_file, save_file
from single_file import original

from align.backbones.recipe import Recipe
from align.backbones.registry import load, pieces
from align.errors import WrongWeights

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def sd(tmp_path):
    write_sd(tmp_path / "sd", 1)
    return tmp_path / "sd"


@pytest.fixture(scope="module")
def single():
    return original(sd_unet(1), vae(1, 0.18215), text_encoder(1, 16))


def loaded(folder, **recipe):
    return load(Recipe((str(folder),), **recipe), CPU, 32, 32)


def same(one, other):
    """Whether two backbones have the same modules, bit by bit."""
    parts = [(one.unet, other.unet), (one.vae, other.vae)]
    parts += [(a.model, b.model) for a, b in zip(one.text.encoders, other.text.encoders, strict=True)]
    states = [(a.state_dict(), b.state_dict()) for a, b in parts]
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in states)


def shard(folder, variant=None, half=False):
    """The same pipeline, every module in shards."""
    for name, model in (
        ("unet", sd_unet(1)),
        ("vae", vae(1, 0.18215)),
        ("text_encoder", text_encoder(1, 16)),
    ):
        shutil.rmtree(folder / name)
        (model.half() if half else model).save_pretrained(
            folder / name, max_shard_size="20KB", variant=variant
        )


def test_shards_are_the_same_modules(sd):
    whole = loaded(sd)
    shard(sd)
    files = pieces(Recipe((str(sd),)))[0].files
    assert len([name for name in files if "-of-" in name]) > 6
    assert same(loaded(sd), whole)


def test_half_shards_are_read_for_either_numbers(sd):
    shard(sd, "fp16", half=True)
    full = loaded(sd)
    assert full.unet.dtype == torch.float32
    assert torch.equal(full.unet.conv_in.weight, sd_unet(1).half().float().conv_in.weight)
    assert loaded(sd, dtype="float16").unet.dtype == torch.float16


def test_what_is_read_is_what_is_hashed(sd):
    # A file and an index side by side: diffusers by itself takes the index, and the file is what is hashed.
    whole = loaded(sd)
    sd_unet(2).save_pretrained(sd / "other", max_shard_size="20KB")
    for path in (sd / "other").glob("diffusion*"):
        shutil.copy(path, sd / "unet")
    assert [name for name in pieces(Recipe((str(sd),)))[0].files if name.startswith("unet/d")] == [UNET]
    assert same(loaded(sd), whole)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_single_file_is_the_same_modules(dtype, sd, single, tmp_path):
    write_sd(tmp_path / "base", 2)
    for path in (tmp_path / "base").rglob("*.safetensors"):
        path.unlink()
    save_file(single, tmp_path / "one.safetensors")
    found = loaded(tmp_path / "base", single_file=str(tmp_path / "one.safetensors"), dtype=dtype)
    assert same(found, loaded(sd, dtype=dtype))


def test_a_module_may_be_one_file_in_either_layout(sd, single, tmp_path):
    write_sd(tmp_path / "other", 2)
    save_file(single, tmp_path / "one.safetensors")
    shutil.copy(sd / UNET, tmp_path / "mine.safetensors")
    shutil.copytree(sd / "text_encoder", tmp_path / "other/text_encoder", dirs_exist_ok=True)
    for name in ("one", "mine"):
        found = loaded(
            tmp_path / "other",
            unet=str(tmp_path / f"{name}.safetensors"),
            vae=str(tmp_path / "one.safetensors"),
        )
        assert same(found, loaded(sd))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model.diffusion_model.middle_block.1.proj_in.weight": None},
            "missing: mid_block.attentions.0.proj_in.weight",
        ),
        ({"first_stage_model.decoder.conv_out.bias": None}, "missing: decoder.conv_out.bias"),
        (
            {"cond_stage_model.transformer.text_model.final_layer_norm.bias": None},
            "missing: final_layer_norm.bias",
        ),
        (
            {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)},
            r"conv_in.weight \(8, 9, 3, 3\)",
        ),
        ({"v_pred": torch.zeros(0)}, "predicts v, and the scheduler"),
        ({"alphas_cumprod": torch.linspace(1, 0, 1000)}, "alphas_cumprod of another schedule"),
    ],
)
def test_a_single_file_that_does_not_fit_is_told(changes, words, sd, single, tmp_path):
    tensors = {key: value for key, value in (single | changes).items() if value is not None}
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(WrongWeights, match=words) as error:
        loaded(sd, single_file=str(tmp_path / "one.safetensors"))
    assert "one.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "change", "words"),
    [
        (
            "unet",
            {"new_thing": 3},
            "says new_thing, which this diffusers' UNet2DConditionModel does not know",
        ),
        ("unet", {"_class_name": "UNet3D"}, "is of UNet3D, not UNet2DConditionModel"),
        ("vae", {"_class_name": "VQModel"}, "is of VQModel, not AutoencoderKL"),
        ("text_encoder", {"quantization_config": {"quant_method": "fp8"}}, "says quantization_config"),
        ("text_encoder", {"transformers_weights": "other.safetensors"}, "other.safetensors"),
    ],
)
def test_what_a_config_says_is_read_or_refused(module, change, words, sd):
    shutil.copy(sd / "text_encoder/model.safetensors", sd / "text_encoder/other.safetensors")
    path = sd / module / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WrongWeights, match=words) as error:
        loaded(sd)
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shard_of_another_save_is_told(sd):
    shard(sd)
    first, second = sorted((sd / "unet").glob("*-0000[12]-of-*"))
    save_file(load_file(first) | dict(list(load_file(second).items())[:1]), first, {"format": "pt"})
    with pytest.raises(WrongWeights, match=f"{first.name} holds beside what"):
        loaded(sd)
