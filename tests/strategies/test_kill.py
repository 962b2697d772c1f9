"""A search over noise that is killed while it runs, and the same command again."""

import os
import signal
from pathlib import Path

import pytest
from forked import forked

import align.shapes
from align.__main__ import main
from align.strategies.noise_search import NoiseSearch
from scripts.pull_the_plug import content

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(align.shapes.__file__).parent / "weights/unet").is_dir(),
        reason="the shapes weights are not here",
    ),
]


def dies_in_the_sixth_round(words):
    """The command, killed when so many rounds of candidates are made."""
    made, inner = [], NoiseSearch.make

    def make(*arguments):
        inner(*arguments)
        made.append(arguments)
        if len(made) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    NoiseSearch.make = make
    return main(words)


def test_killed_while_searching_it_ends_in_the_same_bytes(tmp_path):
    def arguments(folder):
        return [
            *("backbone=shapes", "method=evosearch", "prompts=shapes_val_pair", "prompts.limit=3", "sampler.steps=3"),
            *("metrics=none", "run.gallery=false", "run.batch_size=1", f"run.folder={folder / 'run'}"),
            *("method.noise_search.candidates=2", "method.noise_search.populations=[2,1,1,1]"),
        ]  # fmt: skip

    assert main(arguments(tmp_path / "a")) == 0
    assert forked(dies_in_the_sixth_round, arguments(tmp_path / "b")).wait() == -signal.SIGKILL
    assert main(arguments(tmp_path / "b")) == 0
    assert content(tmp_path / "b" / "run") == content(tmp_path / "a" / "run")
