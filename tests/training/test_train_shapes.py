"""The whole training driver, every stage, with next to no data: what it writes must load and sample."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from forked import forked

from align.backbones.registry import load_folder
from align.rewards.registry import load
from scripts import train_shapes
from scripts.shapes_training.reward_stages import NAMES


@pytest.fixture
def started(monkeypatch):
    """The commands of the script's processes, which are forks where each is Python with the script itself."""
    commands = []

    def start(command):
        commands.append(command)
        program, script, *words = command
        own = (program, script) == (sys.executable, train_shapes.__file__)
        return forked(train_shapes.main, words) if own else subprocess.Popen(command)

    monkeypatch.setattr(train_shapes, "subprocess", SimpleNamespace(Popen=start))
    return commands


@pytest.mark.slow
def test_every_stage_runs_and_writes_loadable_weights(tmp_path, started):
    folders = ["--weights", str(tmp_path / "weights"), "--folder", str(tmp_path / "training")]
    train_shapes.main(
        [*folders, "--pictures", "250", "--captions", "8", "--steps", "2", "--processes", "2"]
    )  # which train the denoiser together
    assert len(started) == 10
    assert [command[:3] for command in started if train_shapes.__file__ != command[1]] == [
        [sys.executable, "-m", "torch.distributed.run"]
    ]
    backbone = load_folder(tmp_path / "weights", torch.device("cpu"))
    pictures = backbone.decode(torch.zeros(1, *backbone.latent_shape())).clamp(0, 1)
    for name in NAMES:
        score = load(name, folder=tmp_path / "weights").score(pictures, ["a red circle"], torch.tensor([0]))
        assert torch.isfinite(score).all(), name


def test_an_unknown_stage_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        train_shapes.main(["autoencodre"])
    assert ended.value.code == 2
    assert "autoencodre" in capsys.readouterr().err
