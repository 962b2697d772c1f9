"""Names and shapes of the models of full size, without their memory."""

import hashlib
import json

import torch
from transformers import CLIPConfig, CLIPModel

from align.checkpoints.weight_files import build
from align.rewards.imagereward import (
    PUBLISHED,
    BlipRegressor,
    BlipTextConfig,
    BlipVisionConfig,
    from_published,
)
from align.rewards.open_clip import (
    make_model,
    read_config,
)
from align.rewards.step_aware import StepAwareModel


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
