"""The whole training driver, every stage, with next to no data: what it writes must load and sample."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def train(folder, *options):
    command = [sys.executable, "scripts/train_shapes.py", *options, "--weights", str(folder / "weights")]
    command += ["--folder", str(folder / "training"), "--pictures", "250", "--captions", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_every_stage_runs_and_writes_loadable_weights(tmp_path):
    train(tmp_path, "--steps", "2", "--processes", "2")  # which train the denoiser together

    from align.backbones.registry import load_folder
    from align.rewards.registry import load
    from scripts.shapes_training.reward_stages import NAMES

    backbone = load_folder(tmp_path / "weights", torch.device("cpu"))
    pictures = backbone.decode(torch.zeros(1, *backbone.latent_shape())).clamp(0, 1)
    for name in NAMES:
        score = load(name, folder=tmp_path / "weights").score(pictures, ["a red circle"], torch.tensor([0]))
        assert torch.isfinite(score).all(), name


def test_an_unknown_stage_is_named():
    command = [sys.executable, "scripts/train_shapes.py", "autoencodre"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "autoencodre" in done.stderr
