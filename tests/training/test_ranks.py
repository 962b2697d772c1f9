"""Processes that train together: shares, and that two of them learn what one learns."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.training.ranks import Ranks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("whole", "number"), [(10, 1), (10, 3), (2, 3), (0, 2)])
def test_the_shares_make_up_the_whole(whole, number):
    items = list(range(whole))
    shares = [Ranks(rank, number).share(items) for rank in range(number)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(code, folder, number=1):
    """The code in so many processes, as ``torchrun`` would start them."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    shared = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if number > 1:
        shared |= {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            env=shared | {"RANK": str(rank)} if number > 1 else shared,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(number)
    ]
    ended = [(one.communicate(timeout=600)[1], one.returncode) for one in started]
    assert all(code == 0 for _, code in ended), ended
    return [text for text, _ in ended]


LINE = """
import sys, pathlib, torch
from dataclasses import replace
from training.test_loop import RECIPE, Distance, Line
from align.training.loop import train
from align.training.ranks import Ranks
line, folder = Line(), pathlib.Path(sys.argv[1])
ranks = Ranks.here(torch.device("cpu"))
train(line, line, replace(RECIPE, batch=5), folder, Distance(line), ranks)
ranks.leave()
"""


def test_two_processes_learn_what_one_learns(tmp_path):
    (said,) = run(LINE, tmp_path / "one")
    first, second = run(LINE, tmp_path / "two", number=2)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-6, atol=1e-7)
    assert "round 6 of 6" in said
    assert "round 6 of 6" in first
    assert "round" not in second  # the first speaks for both
    lines = [(tmp_path / name / "log.jsonl").read_text().count("\\n") for name in ("one", "two")]
    assert lines[0] == lines[1]
