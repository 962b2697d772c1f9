"""Processes that train together: shares, and that two of them learn what one learns."""

from dataclasses import replace

import pytest
import torch
from forked import together
from safetensors.torch import load_file

from align.training.loop import train
from align.training.ranks import Ranks

from .test_loop import RECIPE, Distance, Line


@pytest.mark.parametrize(("whole", "number"), [(10, 1), (10, 3), (2, 3), (0, 2)])
def test_the_shares_make_up_the_whole(whole, number):
    items = list(range(whole))
    shares = [Ranks(rank, number).share(items) for rank in range(number)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def learn(folder):
    """A line, by those processes that the environment tells of."""
    line, ranks = Line(), Ranks.here(torch.device("cpu"))
    train(line, line, replace(RECIPE, batch=5), folder, Distance(line), ranks)
    ranks.leave()


def run(folder, number=1):
    ended = [(one.communicate(timeout=600)[1], one.returncode) for one in together(learn, folder, number)]
    assert all(code == 0 for _, code in ended), ended
    return [text for text, _ in ended]


def test_two_processes_learn_what_one_learns(tmp_path):
    (said,) = run(tmp_path / "one")
    first, second = run(tmp_path / "two", number=2)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-6, atol=1e-7)
    assert "round 6 of 6" in said
    assert "round 6 of 6" in first
    assert "round" not in second  # the first speaks for both
    lines = [(tmp_path / name / "log.jsonl").read_text().count("\\n") for name in ("one", "two")]
    assert lines[0] == lines[1]
