from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from align.errors import MissingWeights, WrongWeights
from align.rewards.clip import clip_config
from align.rewards.preprocess import fit, normalise
from align.rewards.step_aware import FREQUENCIES, StepAwareModel, load_step_aware_model
from scripts.shapes_training.towers import start_modulation

DATA = Path(__file__).parent / "data"
TINY = DATA / "spm_tiny"
"""A tiny model of the released structure; of its token table only the rows that the goldens use are kept."""


@pytest.fixture(scope="module")
def golden():
    return load_file(DATA / "spm_scores.safetensors")


@pytest.fixture(scope="module")
def model():
    return load_step_aware_model(clip_config(TINY), TINY / "model.safetensors")


def score(model, golden, pictures, step):
    text = F.normalize(model.read(golden["input_ids"]), dim=-1)
    image = model.see(normalise(fit(pictures, 64, "spo")), torch.full((len(pictures),), step))
    return model.logit_scale.exp() * (F.normalize(image, dim=-1) * text).sum(-1)


@pytest.mark.parametrize("step", [1, 500, 981])
@pytest.mark.parametrize("case", ["native64", "wide", "small48"])
def test_scores_are_the_golden_ones(model, golden, case, step):
    found = score(model, golden, golden[f"{case}/image"] / 2 + 0.5, step)
    expected = golden[f"{case}/score_t{step}"]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_pixel_gradient_is_the_golden_one(model, golden):
    pictures = (golden["wide/image"] / 2 + 0.5).requires_grad_(True)
    (found,) = torch.autograd.grad(score(model, golden, pictures, 500).sum(), pictures)
    expected = golden["wide/grad_of_score_sum_t500"]
    assert (found / 2 - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_timestep_embedding_is_the_golden_one(model, golden):
    steps = golden["timesteps_for_embedding"]
    waves = get_timestep_embedding(steps, FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
    # Timestep times frequency is up to 1000 in float32, where neighbours are 6.1e-5 apart, and processors differ in exp.
    expected = golden["timestep_frequency_embedding"]
    torch.testing.assert_close(waves, expected, rtol=0, atol=6.2e-5)
    torch.testing.assert_close(model.t_embedder(steps), golden["timestep_embedding"])


def test_starting_modulation_is_the_plain_clip():
    config = clip_config(TINY)
    clip = CLIPModel(config).eval()
    model = StepAwareModel(config).eval()
    start_modulation(model)
    model.load_state_dict(clip.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 64, 64)
    plain = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(model.see(pixels, torch.tensor([3, 900])), plain, rtol=1e-4, atol=1e-5)


def test_files_are_checked_strictly(tmp_path):
    config = clip_config(TINY)
    tensors = load_file(TINY / "model.safetensors")
    name = "model.vision_model.adaLN_modulation.1.bias"
    path = tmp_path / "weights.safetensors"
    with pytest.raises(MissingWeights, match="missing"):
        load_step_aware_model(config, path)
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(WrongWeights, match=r"1 tensors missing: vision_model\.adaLN_modulation\.1\.bias"):
        load_step_aware_model(config, path)
    save_file(tensors | {"model.extra": torch.zeros(1)}, path)
    with pytest.raises(WrongWeights, match="unknown tensors: extra"):
        load_step_aware_model(config, path)
    save_file(tensors | {name: torch.zeros(5)}, path)
    with pytest.raises(WrongWeights, match="wrong shapes") as caught:
        load_step_aware_model(config, path)
    assert "\n" not in str(caught.value)
    save_file(tensors | {"model.text_model.embeddings.position_ids": torch.arange(77)}, path)
    load_step_aware_model(config, path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(WrongWeights, match="not a readable safetensors file"):
        load_step_aware_model(config, path)
