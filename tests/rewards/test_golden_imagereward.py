"""ImageReward against recorded values; needs ``--golden DIR``."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from align.rewards.imagereward import (
    PUBLISHED,
    bert_tokenizer,
    load_imagereward,
    padded,
)

from .recorded import split


def write_imagereward(reference, folder):
    """The tiny ImageReward as its original file; returns recorded values and description."""
    side = json.loads((reference / "imagereward/imagereward_tiny.json").read_text())
    state, io = split(reference / "imagereward/imagereward_tiny.safetensors")
    sizes = side["transformers_config"]
    own = {"vision_config": sizes["BlipVisionConfig"], "text_config": sizes["BlipTextConfig"]}
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **own}))
    torch.save(state, folder / "ImageReward.pt")
    shutil.copy(reference / "imagereward/bert_base_uncased_vocab.txt", folder / "vocab.txt")
    return io, side


def test_imagereward(reference, tmp_path, monkeypatch, measured):
    io, side = write_imagereward(reference, tmp_path)
    monkeypatch.setattr("align.rewards.pickles.cache", lambda: tmp_path / "cache")
    monkeypatch.setattr("align.rewards.clip.fit", lambda pictures, size, variant: pictures)
    monkeypatch.setattr("align.rewards.clip.normalise", lambda pictures: pictures)
    reward = load_imagereward("imagereward", tmp_path, file="ImageReward.pt")
    ids, mask = reward.texts(side["prompts"]).unbind(1)
    assert torch.equal(ids, io["input_ids"])
    assert torch.equal(mask, io["attention_mask"])
    pixels = io["pixels"].clone().requires_grad_(True)
    found = reward.score(pixels, side["prompts"])
    (gradient,) = torch.autograd.grad(found.sum(), pixels)
    measured("score", found.detach(), io["reward"][:, 0], 1e-4)
    measured("gradient", gradient, io["pixel_grad_of_sum"], 1e-4)
    seen = reward.model.vision_model(pixel_values=io["pixels"]).last_hidden_state
    measured("image tokens", seen, io["image_embeds"], 1e-4)


@pytest.mark.slow
def test_imagereward_of_full_size(reference, tmp_path, measured):
    recipe = json.loads((reference / "imagereward/imagereward_full_recipe.json").read_text())
    keys = json.loads((reference / "imagereward/imagereward_v1_keys.json").read_text())["keys"]
    state = from_recipe(keys)
    for key, total in recipe["check_sums"].items():
        assert float(state[key].double().sum()) == pytest.approx(total, rel=1e-6)
    save_file(state, tmp_path / "ImageReward.safetensors")
    del state
    shutil.copy(reference / "imagereward/bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    reward = load_imagereward("imagereward", tmp_path, file="ImageReward.safetensors")
    found, expected = [], []
    for pair, score in recipe["scores"].items():
        name, prompt = pair.split("|")
        image = Image.open(reference / f"preprocess/{name}.png")
        found.append(reward.score_images([image], [prompt]))
        expected.append(score)
    measured("score", torch.cat(found), torch.tensor(expected), 1e-3)


def from_recipe(keys):
    """The random weights that the full-size scores were recorded with."""
    generator = torch.Generator().manual_seed(20240601)
    state = {}
    for key in sorted(keys):
        shape, dtype = keys[key]
        if "int" in dtype:
            continue
        draw = torch.randn(shape, generator=generator)
        if "norm" in key.lower() and key.endswith("weight"):
            draw = 1 + 0.2 * draw
        elif key.endswith("bias"):
            draw = 0.1 * draw
        elif draw.ndim >= 2 and "embed" in key:
            draw = 0.5 * draw
        elif draw.ndim >= 2:
            draw = draw * 1.4 / draw[0].numel() ** 0.5
        else:
            draw = 0.5 * draw
        state[key] = draw
    return state


def test_bert_words(reference, tmp_path):
    shutil.copy(reference / "imagereward/bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    tokenizer = bert_tokenizer(tmp_path)
    recorded = json.loads((reference / "imagereward/tokens.json").read_text())
    for prompt, ids, mask in zip(
        *(recorded[key] for key in ("prompts", "input_ids", "attention_mask")), strict=True
    ):
        assert padded(tokenizer, prompt, 35).tolist() == [ids, mask]
