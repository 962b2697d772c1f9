"""Values recorded from the published implementations; most need ``--golden DIR``.

Of the tiny CLIPs slim copies are in ``data``, with only those rows of the token table that their ids use.
"""

import hashlib
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from align.checkpoints.weight_files import build, fill
from align.rewards.aesthetic import Head, numbered
from align.rewards.clip import load_clip
from align.rewards.open_clip import load_open_clip
from align.rewards.preprocess import fit, normalise, resize_images, to_pictures
from align.rewards.step_aware import load_step_aware
from scripts.shapes_training.towers import from_transformers

from .recorded import split
from .test_step_aware import DATA


@pytest.fixture(params=["slim", "recorded"])
def tiny(request):
    """Name to state, recorded values and configuration."""

    def find(name):
        if request.param == "slim":
            state, io = split(DATA / f"{name}_tiny.safetensors")
            return state, io, json.loads((DATA / f"{name}_tiny.json").read_text())
        folder = request.getfixturevalue("reference") / name
        state, io = split(folder / f"{name}_tiny.safetensors")
        side = json.loads((folder / f"{name}_tiny.json").read_text())
        if name == "pickscore":
            own = {key: side[key] for key in ("text_config", "vision_config")}
            return state, io, own | {"projection_dim": 24}
        return state, io, side["open_clip_config"]

    return find


def run(reward, pixels, prompts, monkeypatch):
    """Score, and gradient of its sum, of pixels that are normalised already."""
    monkeypatch.setattr(reward, "pixels", lambda pictures, device, dtype: pictures)
    pixels = pixels.clone().requires_grad_(True)
    score = reward.score(pixels, prompts)
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    return score.detach(), gradient


def write_clip(folder, config, state):
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key: value for key, value in state.items() if "position_ids" not in key},
        folder / "model.safetensors",
    )


def numbered_prompts(monkeypatch, module, ids):
    """Prompts "0", "1", ... that have recorded ids."""
    monkeypatch.setattr(f"{module}.load_tokenizer", lambda folder: None)
    monkeypatch.setattr(
        f"{module}.token_ids", lambda tokenizer, prompt, *rest, **more: ids[int(prompt)][None]
    )
    return [str(k) for k in range(len(ids))]


def test_pickscore(tiny, tmp_path, monkeypatch, measured):
    state, io, config = tiny("pickscore")
    write_clip(tmp_path, config, state)
    prompts = numbered_prompts(monkeypatch, "align.rewards.clip", io["input_ids"])
    reward = load_clip("pickscore", tmp_path)
    found, gradient = run(reward, io["pixel_values"], prompts, monkeypatch)
    expected = io["scores_prompt_by_image"]
    measured("score", found, expected.diagonal(), 1e-3)
    measured("gradient", gradient, io["pixel_grad_of_diag_sum"], 1e-4)
    with torch.no_grad():
        rows = [reward.score(io["pixel_values"], [prompt] * len(prompts)) for prompt in prompts]
    measured("every pair", torch.stack(rows), expected, 1e-3)


def test_hpsv2(tiny, tmp_path, monkeypatch, measured):
    state, io, config = tiny("hpsv2")
    monkeypatch.setattr("align.rewards.pickles.cache", lambda: tmp_path / "cache")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save({"state_dict": state}, tmp_path / "HPS.pt")
    prompts = numbered_prompts(monkeypatch, "align.rewards.open_clip", io["token_ids"])
    reward = load_open_clip("hpsv2", tmp_path, tmp_path, file="HPS.pt")
    found, gradient = run(reward, io["pixel_values"], prompts, monkeypatch)
    measured("score", found, io["scores"], 1e-5)
    measured("gradient", gradient, io["pixel_grad_of_sum"], 1e-5)


def test_hpsv2_from_its_prompts(reference, tmp_path, monkeypatch, measured):
    side = json.loads((reference / "hpsv2/hpsv2_tiny.json").read_text())
    state, io = split(reference / "hpsv2/hpsv2_tiny.safetensors")
    monkeypatch.setattr("align.rewards.pickles.cache", lambda: tmp_path / "cache")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": side["open_clip_config"]}))
    torch.save({"state_dict": state}, tmp_path / "HPS.pt")
    reward = load_open_clip("hpsv2", tmp_path, None, file="HPS.pt")
    found, _ = run(reward, io["pixel_values"], side["prompts"], monkeypatch)
    measured("score", found, io["scores"], 1e-5)


def test_openai_clip(reference, tmp_path, monkeypatch, measured):
    state, io = split(reference / "openai_clip/openai_clip_tiny.safetensors")
    config = {
        "projection_dim": 24,
        "text_config": {
            "vocab_size": 1000,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "hidden_act": "quick_gelu",
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "vision_config": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "hidden_act": "quick_gelu",
        },
    }
    write_clip(tmp_path, config, to_transformers(state, config))
    prompts = numbered_prompts(monkeypatch, "align.rewards.clip", io["token_ids"])
    reward = load_clip("clipscore", tmp_path, scaled=False)
    found, gradient = run(reward, io["pixel_values"], prompts, monkeypatch)
    measured("cosine", found, io["cosine_diag"], 1e-5)
    measured("gradient", gradient, io["pixel_grad_of_cosine_sum"], 1e-5)
    features = torch.nn.functional.normalize(io["image_features"], dim=-1)
    measured("image embedding", reward.image_embeddings(io["pixel_values"]), features, 1e-5)


@pytest.mark.parametrize("step", [1, 500, 981])
@pytest.mark.parametrize("case", ["native64", "wide", "small48"])
def test_step_aware_from_its_pickle(case, step, reference, tmp_path, monkeypatch, measured):
    recorded = load_file(reference.parent / "dymo/goldens/spm_scores.safetensors")
    tiny = reference.parent / "dymo/spm_tiny"
    monkeypatch.setattr("align.rewards.pickles.cache", lambda: tmp_path / "cache")
    torch.save(load_file(tiny / "spm.safetensors"), tmp_path / "spm.bin")
    prompts = numbered_prompts(monkeypatch, "align.rewards.step_aware", recorded["input_ids"])
    reward = load_step_aware("spm", tiny, weights=tmp_path / "spm.bin")
    pictures = recorded[f"{case}/image"] / 2 + 0.5
    found = reward.score(pictures, prompts, torch.full((len(prompts),), step))
    expected = recorded[f"{case}/score_t{step}"]
    # Relative, as in test_step_aware: the scale is 100, and angles of large timesteps are rounded differently.
    measured("score", found, expected, 1e-5 * float(expected.abs().max()))


def to_transformers(state, config):
    """open_clip's names to transformers', by sending numbers of elements the other way."""
    shapes = {key: value.shape for key, value in CLIPModel(CLIPConfig(**config)).state_dict().items()}
    flat, ids = 0, {}
    for key, shape in shapes.items():
        ids[key] = torch.arange(flat, flat + shape.numel()).reshape(shape)
        flat += shape.numel()
    values = torch.empty(flat)
    for key, places in from_transformers(ids, {"text": 3, "vision": 3}).items():
        values[places] = state[key]
    return {key: values[places].clone() for key, places in ids.items()}


def test_aesthetic_head(reference, measured):
    recorded = load_file(reference / "aesthetic/aesthetic_head.safetensors")
    weights = load_file(reference / "aesthetic/sac_logos_ava1_l14_linearMSE.safetensors")
    head = fill(
        build(lambda: Head((768, 1024, 128, 64, 16), "none")), numbered(weights, "layers.", "layers."), "head"
    )
    found = head(recorded["embeddings"])
    measured("five layers", found, recorded["scores"], 1e-5)
    measured(
        "affine form",
        recorded["embeddings"] @ recorded["affine_weight"] + recorded["affine_bias"],
        found,
        1e-5,
    )
    side = json.loads((reference / "aesthetic/aesthetic_head.json").read_text())
    measured("first eight", found[:8], torch.tensor(side["scores_first_8"]), 1e-5)


@pytest.mark.parametrize("name", ["test_300x500", "test_512x512"])
def test_preprocessing(name, reference, measured):
    recorded = load_file(reference / "preprocess/preprocess.safetensors")
    image = Image.open(reference / f"preprocess/{name}.png")
    side = json.loads((reference / "preprocess/preprocess.json").read_text())["images"][name]
    assert hashlib.sha256(image.convert("RGB").tobytes()).hexdigest() == side["rgb_sha256"]
    pictures = to_pictures([image])
    pillow = normalise(to_pictures(resize_images([image], 224, "clip")))[0]
    measured("Pillow", pillow, recorded[f"clip_pil.{name}"], 1e-5)
    measured(
        "transformers 5 (steps of 1/255)", pillow, recorded[f"clip_transformers5.{name}"], 1.01 / 255 / 0.26
    )
    for variant, key in (("hps", "hpsv2_aa"), ("hps2023", "hpsv2_noaa"), ("spo", "spo_dymo")):
        measured(variant, normalise(fit(pictures, 224, variant))[0], recorded[f"{key}.{name}"], 1e-4)
    low, high = normalise(torch.zeros(1, 3, 1, 1))[0], normalise(torch.ones(1, 3, 1, 1))[0]
    clamped = recorded[f"diff_bicubic_aa_crop.{name}"].clamp(low, high)
    measured("clip, clamped", normalise(fit(pictures, 224, "clip"))[0], clamped, 1e-4)
