"""Runs in processes of their own: interruption, kill, sharing."""

import signal
import time

import pytest

from align.__main__ import main
from align.results.csvfile import read_csv
from align.runner import build

from .helpers import FakeSampler, arguments, files, start

pytestmark = pytest.mark.slow
LONG = ["samples=3", "metrics=none"]


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(build, "build_sampler", lambda config, size: FakeSampler(size))


def wait_for(process, text, times=1):
    while times:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        times -= text in line


def finish(process):
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def test_interrupted_killed_and_resumed(tmp_path, capsys):
    assert main(arguments(tmp_path / "a", *LONG)) == 0
    command = arguments(tmp_path / "b", *LONG)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*command)
        wait_for(process, "sampling", 2)
        capsys.readouterr()
        if number == signal.SIGINT:
            assert main(command) == 2  # in use
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert "run.shared=true" in err
        process.send_signal(number)
        code, _, err = finish(process)
        assert code == 130
        assert err.count("\n") == 1, err
        assert "interrupted;" in err
        assert "of 24 done" in err
        assert '"status": "interrupted"' in (tmp_path / "b" / "run" / "run.json").read_text()
        assert len(read_csv(tmp_path / "b" / "run" / "results.csv")) >= 3
    for seconds in (0.0, 0.2):
        process = start(*command)
        wait_for(process, "sampling")
        time.sleep(seconds)
        process.kill()
        process.communicate()
    assert main(command) == 0
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")


def test_two_processes_share_the_work(tmp_path):
    more = ["prompts.limit=null", "samples=4", "metrics=none"]
    assert main(arguments(tmp_path / "a", *more)) == 0
    shared = arguments(tmp_path / "b", *more, "run.shared=true")
    results = [finish(process) for process in [start(*shared), start(*shared)]]
    assert [code for code, _, _ in results] == [0, 0], results
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")
    lines = (tmp_path / "b" / "run" / "journal.jsonl").read_text().splitlines()
    assert sum('"row"' in line for line in lines) == 64
    assert sum("sampling" in out for _, out, _ in results) >= 1


def test_a_second_signal_ends_at_once(tmp_path):
    code = """
import os, signal, time
from align.runner.interrupts import Interrupts
with Interrupts() as interrupts:
    with interrupts.finishing():
        os.kill(os.getpid(), signal.SIGINT)
        print("still here", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        print("never")
"""
    import subprocess
    import sys

    from .helpers import ROOT

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_a_signal_waits_for_the_commit():
    import os

    from align.runner.interrupts import Interrupts

    done = []

    def commit():
        with Interrupts() as interrupts, interrupts.finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        commit()
    assert done
