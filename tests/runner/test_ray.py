"""One run by several Ray workers: the same bytes, whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from align.__main__ import main
from align.config.schema import RunnerConfig
from align.runner.workers import _cluster
from align.writing import remove_leftovers

from .helpers import ROOT, arguments, files

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra: pip install -e '.[ray]'")
WORK = [
    "prompts.limit=8",
    "samples=4",
    "sampler.steps=5",
    "metrics=checker",
    "run.batch_size=2",
    "run.in_flight=4",
    "run.threads=1",
    "run.gallery=false",
]


def start(folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "align", *WORK, "runner=ray", "runner.workers=2", f"run.folder={folder}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows(folder: Path) -> int:
    journal = folder / "journal.jsonl"
    return journal.read_bytes().count(b'"row"') if journal.exists() else 0


def workers(folder: Path, process) -> list[int]:
    try:
        return [one["pid"] for one in json.loads((folder / ".lock").read_text()) if one["pid"] != process.pid]
    except (OSError, ValueError):
        return []


def wait(process, condition):
    ends = time.monotonic() + 500
    while not condition():
        if process.poll() is not None or time.monotonic() > ends:
            process.kill()
            pytest.fail("\n".join(process.communicate()))
        time.sleep(0.02)


@needs_ray
@pytest.mark.slow
def test_two_workers_interrupted_and_killed_make_the_bytes_of_one_process(tmp_path):
    folder = tmp_path / "ray"
    process = start(folder)
    wait(process, lambda: rows(folder) >= 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "interrupted; " in err
    made = rows(folder)
    assert 4 <= made < 32
    assert not (folder / ".lock").exists()

    process = start(folder)
    wait(process, lambda: len(workers(folder, process)) == 2 and rows(folder) > made)
    os.kill(workers(folder, process)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert "another one takes its place" in out
    assert rows(folder) == 32, "an item was made twice"
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"

    assert main([*WORK, f"run.folder={tmp_path / 'local'}"]) == 0
    remove_leftovers(
        folder / "images"
    )  # of a worker that was killed while it wrote: the next opening does so
    assert files(folder) == files(tmp_path / "local")


def test_without_ray_it_says_how_to_get_it(fake, tmp_path, monkeypatch, capsys):
    built = fake()
    monkeypatch.setattr("align.runner.prepare.find_spec", lambda name: None)
    assert main(arguments(tmp_path, "runner=ray")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install -e '.[ray]'" in error
    assert "runner=local" in error
    assert not built
    assert not (tmp_path / "run").exists()


def test_one_device_for_all_workers_is_refused(fake, tmp_path, monkeypatch, capsys):
    fake()
    monkeypatch.setattr("align.runner.prepare.find_spec", lambda name: object())
    monkeypatch.setattr("align.runner.prepare.check_device", lambda name: None)
    assert main(arguments(tmp_path, "runner=ray", "run.device=cuda:1")) == 2
    assert "each worker its own" in capsys.readouterr().err


def test_the_runner_is_no_part_of_a_folder_s_name_or_of_an_identity(tmp_path):
    from align.commands.parser import parse
    from align.config.compose import jobs_of

    one, two = (jobs_of(parse(more))[0].config for more in ([], ["runner=ray", "runner.workers=3"]))
    assert one.run.folder == two.run.folder
    assert one.runner.kind == "local"
    assert two.runner.workers == 3


def test_a_cluster_of_this_machine_alone_lets_nobody_in_who_does_not_know_its_token(monkeypatch):
    seen = []
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **options: seen.append((options, dict(os.environ))),
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    for address in ("auto", None):
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        with _cluster(RunnerConfig("ray", "ray", address=address)):
            pass
    (theirs, before), (ours, environment) = seen
    assert (theirs["address"], ours["address"], ours["include_dashboard"]) == ("auto", "local", False)
    assert "RAY_AUTH_MODE" not in before  # a cluster that is running has its own way
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
