"""A search over noise that is killed while it runs, and the same command again."""

import subprocess
import sys
from pathlib import Path

import pytest

import align.shapes
from align.__main__ import main
from scripts.pull_the_plug import content

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(align.shapes.__file__).parent / "weights/unet").is_dir(),
        reason="the shapes weights are not here",
    ),
]


@pytest.mark.parametrize("method", ["noise_search", "evosearch"])
def test_killed_while_searching_it_ends_in_the_same_bytes(tmp_path, method):
    def arguments(folder):
        return [
            *("backbone=shapes", f"method={method}", "prompts=shapes_val_pair", "prompts.limit=3", "sampler.steps=5"),
            *("metrics=none", "run.gallery=false", "run.batch_size=1", f"run.root={folder}", "run.name=run"),
        ]  # fmt: skip

    assert main(arguments(tmp_path / "a")) == 0
    for _ in range(2):
        command = [sys.executable, "-u", "-m", "align", *arguments(tmp_path / "b")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        while "sampling" not in (line := process.stdout.readline()):
            assert line
        process.kill()
        process.communicate()
    assert main(arguments(tmp_path / "b")) == 0
    assert content(tmp_path / "b" / "run") == content(tmp_path / "a" / "run")
