"""The whole training driver, every stage, with next to no data: what it writes must load and sample."""

import sys
from types import SimpleNamespace

import pytest
import torch
from forked import together

from align.backbones.registry import load_folder
from align.rewards.registry import load
from scripts import train_shapes
from scripts.shapes_training.reward_stages import NAMES

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def started(monkeypatch):
    """The stages of the script's processes, and how many are started for them; here they are forks."""
    found = []

    def start(command):
        program, *launcher = command[: (place := command.index(train_shapes.__file__))]
        assert (program, launcher) in [(sys.executable, []), (sys.executable, LAUNCHER)]
        words = command[place + 1 :]
        found.append((words[: words.index("--processes")], 2 if launcher else 1))
        processes = together(train_shapes.main, words, found[-1][1])
        return SimpleNamespace(wait=lambda: any([one.wait() for one in processes]))

    monkeypatch.setattr(train_shapes, "subprocess", SimpleNamespace(Popen=start))
    return found


@pytest.mark.slow
def test_every_stage_runs_and_writes_loadable_weights(tmp_path, started):
    folders = ["--weights", str(tmp_path / "weights"), "--folder", str(tmp_path / "training")]
    few = ["--pictures", "125", "--captions", "8", "--steps", "2", "--processes", "2"]
    train_shapes.main([*folders, *few])
    assert [stages for stages, _ in started] == [list(lane) for wave in train_shapes.WAVES for lane in wave]
    assert [stages for stages, number in started if number == 2] == [["denoiser"]]
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
