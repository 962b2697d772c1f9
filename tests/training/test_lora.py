"""Low-rank updates: beside the frozen network, switched off, and saved for whoever reads diffusers' files."""

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tiny import load_tiny, save_pipeline
from transformers import CLIPTextModel, CLIPTokenizer

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.training.lora import FILE, Lora

STEPS, SCALE, PROMPT = 4, 3.0, "a cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_pipeline(folder)
    return folder


def drawn(backbone):
    """The picture of plain sampling without noise."""
    process = ddim(backbone.scheduler_config, STEPS, 0)
    text = Conditioning.of([backbone.encode(PROMPT, "")])
    z = torch.randn(1, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for step in process.steps:
            found = backbone.predict(z, step, text, Guider(SCALE))
            z = process.kernel(found.x0, found.eps, step).mean
        return backbone.decode(z).clamp(0, 1)


def trained(folder, seed=0, moved=0.5):
    backbone = load_tiny(folder, height=32, width=32)
    lora = Lora(backbone.network, rank=2, seed=seed)
    generator = torch.Generator().manual_seed(1)
    for name, one in lora.parameters().items():
        if "lora_B" in name:
            one.data = moved * torch.randn(one.shape, generator=generator)
    return backbone, lora


def test_fresh_updates_change_nothing(folder):
    backbone, lora = trained(folder, moved=0.0)
    assert torch.equal(drawn(backbone), drawn(load_tiny(folder, height=32, width=32)))
    assert all(one.dtype == torch.float32 and one.requires_grad for one in lora.parameters().values())
    rest = [
        name
        for name, one in backbone.network.named_parameters()
        if one.requires_grad and ".lora_" not in name
    ]
    assert not rest


def test_they_begin_as_their_seed_says(folder):
    first, again, other = (trained(folder, seed)[1].parameters() for seed in (0, 0, 1))
    name = next(name for name in first if "lora_A" in name)
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    down = torch.cat([one.detach().flatten() for key, one in first.items() if "lora_A" in key])
    assert float(down.std()) == pytest.approx(0.5, rel=0.05)  # one over the rank


def test_switched_off_the_network_is_the_reference(folder):
    backbone, lora = trained(folder)
    plain, changed = drawn(load_tiny(folder, height=32, width=32)), drawn(backbone)
    with lora.off():
        assert torch.equal(drawn(backbone), plain)
    assert torch.equal(drawn(backbone), changed)
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert all(one.requires_grad for one in lora.parameters().values())


def test_the_file_makes_the_same_picture_here_and_in_a_pipeline_of_diffusers(folder, tmp_path):
    backbone, lora = trained(folder)
    lora.save(tmp_path)
    expected = drawn(backbone)
    merged = load_tiny(folder, height=32, width=32, lora=str(tmp_path / FILE))
    torch.testing.assert_close(drawn(merged), expected, rtol=0, atol=2e-5)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path)
    z = torch.randn(1, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
    made = pipeline(
        PROMPT, num_inference_steps=STEPS, guidance_scale=SCALE, latents=z, eta=0.0, output_type="pt"
    )
    torch.testing.assert_close(made.images, expected, rtol=0, atol=2e-5)
