"""Values recorded from the published implementations; most need ``--golden DIR``.

Of the tiny CLIPs slim copies are in ``data``, with only those rows of the token table that their ids use.
"""

import hashlib
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from align.rewards.aesthetic import Head, numbered
from align.rewards.clip import load_clip, load_tokenizer, token_ids
from align.rewards.files import build, fill
from align.rewards.imagereward import (
    PUBLISHED,
    BlipRegressor,
    BlipTextConfig,
    BlipVisionConfig,
    bert_tokenizer,
    from_published,
    load_imagereward,
    padded,
)
from align.rewards.open_clip import (
    clean,
    from_transformers,
    load_open_clip,
    make_model,
    read_config,
    tokenise,
)
from align.rewards.preprocess import fit, normalise, resize_images, to_pictures
from align.rewards.step_aware import StepAwareModel, load_step_aware

from .test_step_aware import DATA


@pytest.fixture
def measured(record_property):
    """Checks a largest absolute difference, and tells it with ``pytest -s`` or in a JUnit report."""

    def check(what, found, expected, limit):
        difference = float((found.double() - expected.double()).abs().max())
        record_property(what, difference)
        print(f"{what}: {difference:.3g} (limit {limit:g})")
        assert difference <= limit

    return check


def split(path):
    raw = load_file(path)
    state = {key[6:]: value for key, value in raw.items() if key.startswith("state.")}
    return state, {key[3:]: value for key, value in raw.items() if key.startswith("io.")}


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
    monkeypatch.setattr(reward, "pixels", lambda pictures: pictures)
    pixels = pixels.clone().requires_grad_(True)
    score = reward.score(pixels, prompts)
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    return score.detach(), gradient


def write_clip(folder, config, state):
    from safetensors.torch import save_file

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
    monkeypatch.setattr("align.rewards.imagereward.fit", lambda pictures, size, variant: pictures)
    monkeypatch.setattr("align.rewards.imagereward.normalise", lambda pictures: pictures)
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
    from safetensors.torch import save_file

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


def test_bert_words(reference, tmp_path):
    shutil.copy(reference / "imagereward/bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    tokenizer = bert_tokenizer(tmp_path)
    recorded = json.loads((reference / "imagereward/tokens.json").read_text())
    for prompt, ids, mask in zip(
        *(recorded[key] for key in ("prompts", "input_ids", "attention_mask")), strict=True
    ):
        assert padded(tokenizer, prompt, 35).tolist() == [ids, mask]


CURLY = {
    "“Café” — naïve 东京": [257, 15304, 257, 2005, 1097, 35689, 563, 19759, 250, 21078, 361],
    "don't can't I've we'll he'd": [847, 713, 753, 713, 328, 1200, 649, 1342, 797, 1896],
    "  spaces   and\ttabs ": [9006, 537, 29163],
    "sale <b>bold</b> &amp;amp; more": [1690, 283, 321, 285, 8911, 34308, 321, 285, 261, 750],
    "½ ℃ Ⅷ ﬁ ﬂ": [33613, 8604, 481, 158, 227, 371, 3589, 2685],
}
"""Recorded ids of prompts (or their parts) that open_clip cleans, of the fourth with one more entity."""


@pytest.mark.parametrize("prompt", CURLY)
def test_hpsv2_words_are_cleaned_as_open_clip_does(prompt):
    ids = tokenise(None, 77)(prompt)[0].tolist()
    expected = [49406, *CURLY[prompt], 49407]
    assert ids == expected + [0] * (77 - len(expected))


def test_hpsv2_cuts_at_77_words():
    ids = tokenise(None, 77)("highly detailed, " * 60)[0]
    assert ids.shape == (77,)
    assert ids[-1] == 49407


def test_clip_words(reference):
    recorded = json.loads((reference / "pickscore/clip_tokens.json").read_text())
    own, theirs = load_tokenizer(reference.parent / "tiny/tiny-sd/tokenizer"), tokenise(None, 77)
    for prompt, fast, cleaned in zip(
        *(recorded[key] for key in ("prompts", "hf_fast", "open_clip")), strict=True
    ):
        assert token_ids(own, prompt, 77)[0, : len(fast)].tolist() == fast
        assert theirs(prompt)[0].tolist() == cleaned + [0] * (77 - len(cleaned))
        assert token_ids(own, clean(prompt), 77, pad=0)[0].tolist() == cleaned + [0] * (77 - len(cleaned))
    tiny = json.loads((reference / "pickscore/pickscore_tiny.json").read_text())
    _, io = split(reference / "pickscore/pickscore_tiny.safetensors")
    for prompt, ids, mask in zip(tiny["prompts"], io["input_ids"], io["attention_mask"], strict=True):
        assert torch.equal(token_ids(own, prompt, 77)[0][mask.bool()], ids[mask.bool()])


def meta_shapes(make):
    with torch.device("meta"):
        return {key: list(value.shape) for key, value in build(make).state_dict().items()}


def vit_h():
    """PickScore's sizes, as transformers describes them."""
    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
    }
    act = {"hidden_act": "gelu"}
    return CLIPConfig(
        projection_dim=1024,
        text_config=text | act,
        vision_config=vision | act | {"patch_size": 14, "image_size": 224},
    )


def count(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def digest(shapes):
    return hashlib.sha256(
        json.dumps(sorted((key, list(shape)) for key, shape in shapes.items())).encode()
    ).hexdigest()


HPS_KEYS = "8f84955cb04fd99bb86255ee0642a89e68587dadbfcadd5f280171e599e5d02e"
IMAGEREWARD_KEYS = "60ef83c727c1bf76a430f5e6de0e5feacb0386934ab7b43ef630f02dc728836c"
"""Hashes of the recorded lists of names and shapes of the full-size models."""


def test_hpsv2s_names_and_shapes(request, tmp_path):
    shapes = meta_shapes(lambda: make_model(read_config(tmp_path)))
    assert (len(shapes), count(shapes)) == (686, 986_109_441)
    assert digest(shapes) == HPS_KEYS
    if request.config.getoption("--golden") is not None:
        path = request.getfixturevalue("reference") / "hpsv2/vit_h_14_keys.json"
        assert shapes == json.loads(path.read_text())["keys"]


def published_imagereward():
    """Every name and shape of the published file, from the model's own."""
    shapes = meta_shapes(
        lambda: BlipRegressor(
            BlipVisionConfig(**PUBLISHED["vision_config"]),
            BlipTextConfig(**PUBLISHED["text_config"]),
            PUBLISHED["head"],
        )
    )
    return shapes


def test_imagerewards_names_and_shapes(reference):
    recorded = json.loads((reference / "imagereward/imagereward_v1_keys.json").read_text())
    assert (
        sum(torch.Size(shape).numel() for shape, kind in recorded["keys"].values() if "int" not in kind)
        == (recorded["n_parameters"])
    )
    mapped = from_published(
        {key: torch.empty(shape, device="meta") for key, (shape, _) in recorded["keys"].items()}
    )
    assert {key: list(value.shape) for key, value in mapped.items()} == published_imagereward()


def test_imagerewards_own_names_and_shapes():
    shapes = published_imagereward()
    assert digest(shapes) == IMAGEREWARD_KEYS
    # BLIP's two unused projections of 768 and 1024 to 256 are all that the published file has beside these.
    assert count(shapes) == 446_665_953 - 256 * (768 + 1024) - 2 * 256


def test_pickscores_size():
    assert count(meta_shapes(lambda: CLIPModel(vit_h()))) == 986_109_441


def test_step_aware_names_and_shapes():
    shapes = meta_shapes(lambda: StepAwareModel(vit_h()))
    assert (len(shapes), count(shapes)) == (980, 1_306_176_001)
    assert shapes["vision_model.encoder.layers.31.adaLN_modulation.1.weight"] == [7680, 1280]
    assert shapes["vision_model.adaLN_modulation.1.weight"] == [2560, 1280]
    assert shapes["t_embedder.mlp.0.weight"] == [1280, 256]
    plain = meta_shapes(lambda: CLIPModel(vit_h()))
    assert {key: shapes.get(key) for key in plain} == plain
    timed = {key for key in shapes if "adaLN" in key or "t_embedder" in key}
    assert shapes.keys() - plain.keys() == timed
    assert sum(torch.Size(shapes[key]).numel() for key in timed) == 320_066_560
