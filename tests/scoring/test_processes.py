"""Scores that are interrupted, killed and gone on with end as if nothing had happened."""

import signal

import pytest

from align.__main__ import main
from align.runner import build

from .helpers import Judge, arguments, many, start, table

pytestmark = pytest.mark.slow


def test_interrupted_killed_and_gone_on_with(tmp_path, monkeypatch):
    judge = Judge()
    monkeypatch.setattr(build, "load_reward", lambda name, device: judge)
    monkeypatch.setattr(build, "check_reward", lambda name, device: None)
    pictures = many(tmp_path / "pictures", 90)
    assert main(arguments(pictures, tmp_path / "whole")) == 0
    command = arguments(pictures, tmp_path / "parts")
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(*command)
        lines = iter(process.stdout.readline, "")
        assert sum("judging" in line for line, _ in zip(lines, range(9), strict=False)) > 2
        process.send_signal(number)
        _, err = process.communicate(timeout=100)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        assert number == signal.SIGKILL or "interrupted;" in err
        assert len(list((tmp_path / "parts" / "images").iterdir())) < 90
    judge.seen.clear()
    assert main(command) == 0
    assert 0 < len(set(judge.seen)) < 90
    assert table(tmp_path / "parts").equals(table(tmp_path / "whole"))
