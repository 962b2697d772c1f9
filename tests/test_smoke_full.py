"""The full-size smoke test, at toy sizes: what it runs, counts and refuses."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig

from align.rewards.step_aware import StepAwareModel
from scripts import smoke_full


def tower(**more):
    return {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    } | more


@pytest.fixture
def toy(monkeypatch):
    """The same code on networks of a few thousand parameters."""
    shared = {"layers_per_block": 1, "norm_num_groups": 8}
    unet = smoke_full.UNETS["sd15"] | shared
    unet |= {"block_out_channels": (8, 16, 16, 16), "attention_head_dim": 2, "cross_attention_dim": 16}
    vae = smoke_full.VAE | shared | {"block_out_channels": (8, 8, 8, 8)}
    vit = {
        "projection_dim": 16,
        "text_config": tower(projection_dim=16),
        "vision_config": tower(projection_dim=16, image_size=28, patch_size=14),
    }
    monkeypatch.setitem(smoke_full.UNETS, "sd15", unet)
    monkeypatch.setattr(smoke_full, "VAE", vae)
    monkeypatch.setattr(smoke_full, "VIT_H", vit)
    with torch.device("meta"):
        made = {
            "sd15": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "step_aware": StepAwareModel(CLIPConfig(**vit)),
        }
    for name, model in made.items():
        millions = sum(value.numel() for value in model.parameters()) / 1e6
        monkeypatch.setitem(smoke_full.PARAMETERS, name, millions)


TOY = ["sd15", "--dtype", "float32", "--side", "64", "--views", "3"]


def test_both_modes_compute_the_same_and_only_one_recomputes(toy, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert smoke_full.main([*TOY, "--both", "--steps", "2", "--json", str(file)]) == 0
    facts = json.loads(file.read_text())
    assert (facts["backbone"], facts["side"], facts["card"]) == ("sd15", 64, "CPU")
    kept, checkpointed = facts["results"]
    assert (kept["checkpointing"], checkpointed["checkpointing"]) == (False, True)
    for one in (kept, checkpointed):
        assert one["fits"]
        assert len(one["seconds"]) == 2
        assert one["needed_tflop"] == kept["tflop"]
        assert one["tflop_per_second"] == pytest.approx(one["tflop"] / one["seconds_median"])
    # A gradient costs about two forward passes; recomputing network and decoder adds less than one.
    assert 1.05 < checkpointed["tflop"] / kept["tflop"] < 1.5
    shown = capsys.readouterr().out
    assert "blocks       kept" in shown
    assert "blocks       checkpointed" in shown


def test_views_in_parts_cost_the_same(toy, tmp_path):
    found = []
    for more in ([], ["--views-together", "2"]):
        smoke_full.main([*TOY, *more, "--json", str(tmp_path / "figures.json")])
        (one,) = json.loads((tmp_path / "figures.json").read_text())["results"]
        assert len(one["seconds"]) == 1  # on a CPU, one evaluation unless asked otherwise
        found.append(one["tflop"])
    assert found[0] == pytest.approx(found[1])


def test_what_has_no_room_fails(toy, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(smoke_full.UNetBackbone, "predict", full)
    assert smoke_full.main([*TOY, "--json", str(tmp_path / "figures.json")]) == 1
    (one,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert not one["fits"]
    assert "does not fit: CUDA out of memory. Tried to allocate 2 GiB\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--limit-gb", "12"], "--limit-gb needs --device cuda"),
        (["--views-together", "0"], "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(more, told, capsys):
    with pytest.raises(SystemExit):
        smoke_full.options(["sd15", *more])
    assert told in capsys.readouterr().err


def test_more_steps_than_the_phase_has_are_refused(toy):
    with pytest.raises(SystemExit, match="--steps must be 1 to 17"):
        smoke_full.main([*TOY, "--steps", "40"])


def test_a_gpu_times_five_evaluations():
    assert smoke_full.options(["sdxl", "--device", "cuda"]).steps == 5
    assert smoke_full.options(["sdxl"]).steps == 1
