"""Configurations to real parts, on a tiny random pipeline."""

import json

import pytest

from align.__main__ import main
from align.runner import build, rows
from align.store.csvfile import read_csv

from .helpers import files


@pytest.fixture(autouse=True)
def _fake_reward(monkeypatch, reward):
    monkeypatch.setattr(build, "load_reward", lambda name, device: reward)
    yield
    build._backbone.cache_clear()


def command(pipeline, folder, *more):
    return [
        f"backbone.weights={pipeline}",
        "backbone.height=32",
        "backbone.width=32",
        "sampler.steps=3",
        "metrics=none",
        "prompts=text",
        "prompts.text=[a red circle above a blue star,something else,a,b,c]",
        "run.gallery=false",
        "run.batch_size=2",
        f"run.folder={folder}",
        *more,
    ]


STRONG = ["method.guidance.strength=1", "method.recurrence.rule=fixed", "method.recurrence.rounds=[1,1,1]"]


@pytest.mark.parametrize(
    ("more", "cost"),
    [
        (["method=none"], (3, 0, 1, 0, 0)),
        (["method=best_of_n", "method.particles=2"], (6, 0, 2, 0, 2)),
        (["method=dymo", *STRONG], None),
    ],
)
def test_every_method_runs_and_order_changes_no_byte(more, cost, pipeline_folder, tmp_path, monkeypatch):
    # Weights of rewards are looked for before a run; here a fake one stands in for them.
    monkeypatch.setattr("align.rewards.registry.REWARDS", _none_needed())
    assert main(command(pipeline_folder, tmp_path / "a", *more)) == 0
    table = read_csv(tmp_path / "a" / "results.csv")
    assert set(table["status"]) == {"ok"}
    names = ["network_forward", "network_backward", "decoder_forward", "decoder_backward", "reward_forward"]
    if cost is not None:
        assert {tuple(row) for row in table[names].to_numpy().tolist()} == {cost}
    else:
        assert (table["network_backward"] > 0).all()
        assert (table["rounds"] > 0).all()
    shuffled = ["prompts.shuffle_seed=1", "run.in_flight=2"]
    assert main(command(pipeline_folder, tmp_path / "b", *more, *shuffled)) == 0
    one, other = files(tmp_path / "a"), files(tmp_path / "b")
    assert {k: v for k, v in one.items() if k != "rows"} == {k: v for k, v in other.items() if k != "rows"}


def _none_needed():
    from dataclasses import replace

    from align.rewards.registry import REWARDS

    return {name: replace(spec, weights=()) for name, spec in REWARDS.items()}


def test_strength_0_is_plain_sampling(pipeline_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("align.rewards.registry.REWARDS", _none_needed())
    assert main(command(pipeline_folder, tmp_path / "a", "method=none")) == 0
    off = ["method=dymo", "method.guidance.strength=0"]
    assert main(command(pipeline_folder, tmp_path / "b", *off)) == 0
    pictures = [
        [
            (tmp_path / name / image).read_bytes()
            for image in read_csv(tmp_path / name / "results.csv")["image"]
        ]
        for name in "ab"
    ]
    assert pictures[0] == pictures[1]
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert run["record"]["config"]["method"]["guidance"]["strength"] == 0


def test_weights_that_hold_something_else_exit_3(pipeline_folder, tmp_path, capsys):
    import shutil

    shutil.copytree(pipeline_folder, tmp_path / "weights")
    (tmp_path / "weights" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    assert main(command(tmp_path / "weights", tmp_path / "run")) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "cannot be loaded" in err


def test_pictures_are_rounded_to_the_nearest_level():
    import numpy as np
    import torch

    picture = torch.tensor([0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0, -1.0]).view(1, 1, 6).expand(3, 1, 6)
    assert np.asarray(rows.to_image(picture))[0, :, 0].tolist() == [0, 0, 1, 255, 255, 0]
