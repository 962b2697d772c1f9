"""Runs in processes of their own: interruption, kill, sharing."""

import signal
import time

from align.results.csvfile import read_csv

from .helpers import arguments, files, start


def wait_for(process, text, times=1):
    while times:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        times -= text in line


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def reference(folder, *more):
    code, _, err = finish(start(*arguments(folder, *more)))
    assert code == 0, err
    return files(folder / "run")


def test_interrupted_and_resumed(tmp_path):
    expected = reference(tmp_path / "a")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*arguments(tmp_path / "b"))
        wait_for(process, "sampling", 2)
        process.send_signal(number)
        code, _, err = finish(process)
        assert code == 130
        assert err.count("\n") == 1, err
        assert "interrupted;" in err
        assert "of 8 done" in err
        assert "interrupted" in (tmp_path / "b" / "run" / "run.json").read_text()
        if number == signal.SIGINT:
            assert len(read_csv(tmp_path / "b" / "run" / "results.csv")) == 3
    assert reference(tmp_path / "b") == expected


def test_killed_and_resumed(tmp_path):
    expected = reference(tmp_path / "a")
    for seconds in (0.0, 0.1, 0.3):
        process = start(*arguments(tmp_path / "b"))
        wait_for(process, "sampling")
        time.sleep(seconds)
        process.kill()
        process.communicate()
    assert reference(tmp_path / "b") == expected


def test_two_processes_share_the_work(tmp_path):
    more = ["prompts.limit=null", "samples=2"]
    expected = reference(tmp_path / "a", *more)
    shared = arguments(tmp_path / "b", *more, "run.shared=true")
    both = [start(*shared), start(*shared)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert all("sampling" in out for _, out, _ in results)
    assert files(tmp_path / "b" / "run") == expected
    lines = (tmp_path / "b" / "run" / "journal.jsonl").read_text().splitlines()
    assert sum('"row"' in line for line in lines) == 32


def test_a_folder_in_use_is_refused(tmp_path):
    process = start(*arguments(tmp_path))
    wait_for(process, "sampling")
    code, _, err = finish(start(*arguments(tmp_path)))
    assert code == 2
    assert err.count("\n") == 1
    assert "run.shared=true" in err
    assert finish(process)[0] == 0
