"""Stable Diffusion XL's layout on tiny random models: two encoders, pooled embeddings, picture sizes."""

import pytest
import torch
from hub_box import save, sdxl_unet, write_sd, write_sdxl
from tiny import load_tiny

from align.backbones.base import Conditioning, guidance_embedding
from align.backbones.guider import Guider
from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.errors import MissingWeights, WrongWeights
from align.processes.ddim import ddim

CPU = torch.device("cpu")
PROMPTS = ("a red cat", "Two dogs, on the  moon é", "w" * 200, "", "a \ud83d\ude00 b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    write_sdxl(folder, 3)
    return folder


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    write_sd(folder, 1, half_too=True)
    return folder


@pytest.fixture
def xl(folder):
    return load_tiny(folder, height=64, width=96, layout="sdxl")


@pytest.fixture
def step(xl):
    return ddim(xl.scheduler_config, 10, 1).steps[4]


def batch(backbone, *prompts):
    z = torch.randn(len(prompts), *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    return z, Conditioning.of([backbone.encode(prompt, "") for prompt in prompts])


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("negative", ["", "blurry picture"])
def test_the_embeddings_are_those_of_diffusers_own_xl_pipeline(prompt, negative, folder, xl):
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    prompt = prompt.encode("utf-16", "surrogatepass").decode("utf-16")
    expected = pipeline.encode_prompt(prompt, negative_prompt=negative or None, device=CPU)
    found = xl.encode(prompt, negative)
    ours = (found.prompt, found.negative, found.pooled_prompt, found.pooled_negative)
    for own, theirs in zip(ours, expected, strict=True):
        assert torch.equal(own, theirs[0])
    ids = pipeline._get_add_time_ids((64, 96), (0, 0), (64, 96), torch.float32, 8)
    assert torch.equal(found.size, ids[0])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_embeddings_are_those_of_diffusers_own_sd_pipeline(prompt, sd_folder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(sd_folder, local_files_only=True)
    prompt = prompt.encode("utf-16", "surrogatepass").decode("utf-16")
    expected = pipeline.encode_prompt(prompt, CPU, 1, True, negative_prompt="blurry")
    found = load_tiny(sd_folder).encode(prompt, "blurry")
    assert torch.equal(found.prompt, expected[0][0])
    assert torch.equal(found.negative, expected[1][0])
    assert found.pooled_prompt is found.pooled_negative is found.size is None


def test_an_empty_negative_prompt_is_zeros_and_an_empty_prompt_is_not(xl):
    read = xl.encode("", "")
    assert not read.negative.any()
    assert not read.pooled_negative.any()
    assert read.prompt.any()
    assert read.pooled_prompt.any()
    assert xl.encode("a", "b").negative.any()


def test_an_empty_negative_prompt_is_read_where_the_pipeline_says_so(tmp_path):
    write_sdxl(tmp_path, 3)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("true", "false"))
    xl = load_tiny(tmp_path, layout="sdxl")
    read = xl.encode("a", "")
    assert torch.equal(read.negative, xl.encode("", "").prompt)
    assert read.pooled_negative.any()


def test_words_are_found_by_character_and_truncation_is_told(xl):
    read = xl.encode("ab cd", "")
    assert read.offsets[:6] == ((0, 0), (0, 1), (1, 2), (3, 4), (4, 5), (0, 0))
    assert (read.limit, read.truncated, len(read.offsets)) == (5, False, 77)
    assert xl.encode("w" * 200, "").truncated


def test_the_network_is_given_pooled_embeddings_and_sizes_of_both_halves(xl, step):
    z, conditioning = batch(xl, "a red cat", "dogs")
    found = xl.predict(z, step, conditioning, Guider(3.0))
    halves = []
    for states, pooled in (
        (conditioning.negative, conditioning.pooled_negative),
        (conditioning.prompt, conditioning.pooled_prompt),
    ):
        size = torch.tensor([[64.0, 96, 0, 0, 64, 96]]).expand(2, -1)
        added = {"text_embeds": pooled, "time_ids": size}
        halves.append(xl.unet(z, step.time, states, added_cond_kwargs=added).sample)
    torch.testing.assert_close(found.eps, halves[0] + 3 * (halves[1] - halves[0]))
    torch.testing.assert_close(found.correction, halves[1] - halves[0])


def test_pictures_of_a_batch_do_not_mix_and_rows_are_taken_with_all_they_have(xl, step):
    z, conditioning = batch(xl, "a red cat", "dogs", "a tree")
    whole = xl.predict(z, step, conditioning, Guider(3.0))
    rows = torch.tensor([2, 0, 0])
    some = xl.predict(z[rows], step, conditioning.take(rows), Guider(3.0))
    torch.testing.assert_close(some.eps, whole.eps[rows])
    assert conditioning.take(rows).size.shape == (3, 6)
    plain = Conditioning(conditioning.prompt, conditioning.negative)
    assert plain.take(rows).pooled_prompt is None
    with pytest.raises(ValueError, match="pooled"):
        xl.predict(z, step, plain, Guider(3.0))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 136), (72, 40)])
def test_rectangles(folder, height, width):
    xl = load_tiny(folder, height=height, width=width, layout="sdxl", attention_stride=4)
    step = ddim(xl.scheduler_config, 10, 1).steps[4]
    z, conditioning = batch(xl, "a red cat")
    found = xl.predict(z, step, conditioning, Guider(3.0), attention="both")
    sides = (-(-height // 32), -(-width // 32))
    assert found.attention.shape == (1, *sides, 77)
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(1, *sides))
    assert xl.decode(found.x0).shape == (1, 3, height, width)


def test_encoders_leave_the_device_before_the_network_runs(xl, step, monkeypatch):
    moves = []
    text = xl.text
    monkeypatch.setattr(text, "_move", moves.append)
    z, conditioning = batch(xl, "something new")
    xl.predict(z, step, conditioning, Guider(3.0))
    assert moves[-1] == text._home
    assert moves[0] == text.device


@pytest.mark.parametrize(
    ("more", "decoder", "text"),
    [
        ({}, torch.float16, torch.float16),
        ({"decoder_dtype": "float32", "text_dtype": "float32"}, torch.float32, torch.float32),
        ({"decoder_dtype": "bfloat16"}, torch.bfloat16, torch.float16),
    ],
)
def test_numbers_of_each_module(more, decoder, text, sd_folder):
    backbone = load(Recipe((str(sd_folder),), dtype="float16", **more), CPU, 32, 32)
    assert backbone.unet.dtype == torch.float16
    assert backbone.vae.dtype == decoder
    assert backbone.text.encoders[0].model.dtype == text


def test_an_autoencoder_that_overflows_is_never_float16_by_default(folder):
    for dtype, decoder in (("float16", torch.float32), ("bfloat16", torch.bfloat16)):
        backbone = load(Recipe((str(folder),), "sdxl", dtype=dtype), CPU, 32, 32)
        assert backbone.vae.dtype == decoder


def test_the_half_files_are_read_where_they_are(sd_folder, tmp_path):
    import shutil

    shutil.copytree(sd_folder, tmp_path / "half")
    (tmp_path / "half/unet/diffusion_pytorch_model.safetensors").write_bytes(b"not read")
    load(Recipe((str(tmp_path / "half"),), dtype="bfloat16"), CPU, 32, 32)
    with pytest.raises(WrongWeights, match=r"^backbone.weights=\S+ cannot be loaded: [^\n]+$"):
        load(Recipe((str(tmp_path / "half"),)), CPU, 32, 32)


def test_what_does_not_belong_is_one_line(folder, sd_folder, tmp_path):
    with pytest.raises(WrongWeights, match=r"not of backbone.layout=sd$"):
        load(Recipe((str(sd_folder),), unet=str(folder / "unet")), CPU, 32, 32)
    with pytest.raises(MissingWeights, match=r"backbone\.vae="):
        load(Recipe((str(sd_folder),), vae=str(tmp_path)), CPU, 32, 32)


def test_a_network_and_an_autoencoder_from_elsewhere(sd_folder, tmp_path):
    write_sd(tmp_path, 9)
    other = load_tiny(tmp_path)
    mixed = load(
        Recipe((str(sd_folder),), unet=str(tmp_path / "unet"), vae=str(tmp_path / "vae")), CPU, 64, 64
    )
    assert torch.equal(mixed.unet.conv_in.weight, other.unet.conv_in.weight)
    assert torch.equal(mixed.vae.decoder.conv_in.weight, other.vae.decoder.conv_in.weight)
    own = load_tiny(sd_folder).encode("a", "").prompt
    assert torch.equal(mixed.encode("a", "").prompt, own)


def test_a_network_that_reads_the_guidance_scale_is_given_the_prompts_half_of_all(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "distilled")
    save(sdxl_unet(3, time_cond_proj_dim=8), tmp_path / "distilled/unet")
    xl = load_tiny(tmp_path / "distilled", height=64, width=96, layout="sdxl", consistency=True)
    z, conditioning = batch(xl, "a red cat", "two dogs")
    step = ddim(xl.scheduler_config, 10, 1).steps[4]
    raw = xl.unet(
        z,
        step.time,
        conditioning.prompt,
        timestep_cond=guidance_embedding(7.5, 8).expand(2, -1),
        added_cond_kwargs={"text_embeds": conditioning.pooled_prompt, "time_ids": conditioning.size},
    ).sample
    torch.testing.assert_close(xl.predict(z, step, conditioning, Guider(embedded=7.5)).eps, raw)
