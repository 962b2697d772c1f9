"""Runs in processes of their own: interruption, kill, sharing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from align.__main__ import main
from align.runner import build
from align.store.csvfile import read_csv
from scripts import pull_the_plug

from .helpers import ROOT, FakeSampler, arguments, files, go_on, start

pytestmark = pytest.mark.slow
LONG = ["samples=3", "metrics=none"]


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(build, "build_sampler", lambda config, calls, files=None: FakeSampler(calls.most))


def wait_for(process, text):
    while text not in (line := process.stdout.readline()):
        assert line, process.stderr.read()


def finish(process):
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def test_interrupted_killed_and_resumed(tmp_path, capsys):
    assert main(arguments(tmp_path / "a", *LONG)) == 0
    command = arguments(tmp_path / "b", *LONG)
    process = start(*command)
    wait_for(process, "sampling")
    go_on(process)
    wait_for(process, "sampling")
    capsys.readouterr()
    assert main(command) == 2  # in use
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "run.shared=true" in err
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.count("\n") == 1, err
    assert "interrupted;" in err
    assert "of 24 done" in err
    assert '"status": "interrupted"' in (tmp_path / "b" / "run" / "run.json").read_text()
    assert len(read_csv(tmp_path / "b" / "run" / "results.csv")) >= 3
    process = start(*command)
    for _ in range(2):
        wait_for(process, "sampling")
        go_on(process)
    wait_for(process, "sampling")
    process.kill()
    process.communicate()
    assert main(command) == 0
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")


@pytest.mark.parametrize("more", [[], ["run.shared=true"]])
def test_a_kill_between_commit_and_measurement_loses_no_picture(tmp_path, monkeypatch, capsys, more):
    assert main(arguments(tmp_path / "a")) == 0
    command = arguments(tmp_path / "b", *more)
    process = start("--die", *command)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    built = []
    monkeypatch.setattr(
        build,
        "build_sampler",
        lambda config, calls, files=None: built.append(FakeSampler(calls.most)) or built[-1],
    )
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    said = (
        r"an earlier session ended without closing; going on with (\d) items left, (\d) pictures to measure"
    )
    left, lacking = map(int, re.search(said, out).groups())
    assert lacking >= 2
    assert f"8, {8 - left} done already, {left} to make, {lacking} of those done to measure" in out
    assert sum(len(call) for sampler in built for call in sampler.calls) == left
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")


def test_two_processes_share_the_work(tmp_path):
    more = ["prompts.limit=null", "samples=4"]
    assert main(arguments(tmp_path / "a", *more)) == 0
    shared = arguments(tmp_path / "b", *more, "run.shared=true")
    both = [start(*shared, stdin=subprocess.DEVNULL) for _ in range(2)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")
    lines = (tmp_path / "b" / "run" / "journal.jsonl").read_text().splitlines()
    assert sum('"row"' in line for line in lines) == 64
    measured = [key for line in lines for key in json.loads(line).get("measured", {})]
    assert len(measured) == len(set(measured)) == 64
    assert sum("sampling" in out for _, out, _ in results) >= 1


def test_a_second_signal_ends_at_once(tmp_path):
    code = """
import os, signal
from align.runner.interrupts import Interrupts
with Interrupts() as interrupts:
    with interrupts.finishing():
        os.kill(os.getpid(), signal.SIGINT)
        print("still here", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_a_signal_waits_for_the_commit():
    from align.runner.interrupts import Interrupts

    done = []

    def commit():
        with Interrupts() as interrupts, interrupts.finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        commit()
    assert done


def test_the_second_ctrl_c_does_not_wait_for_a_disk_that_hangs(tmp_path):
    assert main(arguments(tmp_path / "a")) == 0
    process = start("--hang", *arguments(tmp_path / "b"), stdin=subprocess.DEVNULL)
    wait_for(process, "hanging")
    process.send_signal(signal.SIGINT)
    wait_for(process, "still hanging")  # the first one waits for the commit
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert main(arguments(tmp_path / "b")) == 0
    assert files(tmp_path / "b" / "run") == files(tmp_path / "a" / "run")


def test_kills_at_random_moments_change_no_byte(tmp_path, monkeypatch, capsys):
    """The shapes model itself; ``make plug`` does the same twenty times with a run of ten minutes."""
    monkeypatch.undo()
    options = [
        "prompts.limit=8",
        "sampler.steps=2",
        "metrics=checker",
        "run.batch_size=2",
        "run.in_flight=3",
    ]
    assert pull_the_plug.main(["--folder", str(tmp_path / "plug"), "--kills", "4", "--", *options]) == 0
    out = capsys.readouterr().out
    found = re.search(r"(\d+) kills in .* after (\d+) pictures in all; 0 differences", out)
    assert found, out
    assert int(found[1]) == 4
    assert int(found[2]) > 0, "no kill came after a picture"


IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = "mount -t tmpfs -o size=160k tmpfs"
SMALL_DISK = """
import json, shutil, subprocess, sys
from pathlib import Path
from align.__main__ import main
from align.runner import build
from runner.helpers import FakeSampler

disk, kept, *command = sys.argv[1:]
built = []
build.build_sampler = lambda config, calls, files=None: built.append(calls.most) or FakeSampler(calls.most)
subprocess.run([*MOUNT.split(), disk], check=True)
codes = [main(command)]
shutil.copytree(Path(disk) / "run", Path(kept) / "full")
subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
codes.append(main(command))
shutil.copytree(Path(disk) / "run", Path(kept) / "mended")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
built.clear()
codes.append(main([*command, f"run.folder={disk}/new"]))
codes.append(main([*command, "prompts.limit=9"]))
print(json.dumps({"codes": codes, "built": built}))
"""


def namespaces(folder):
    """Whether this system lets anybody mount a small disk that nobody else sees."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*IN_A_NAMESPACE, *MOUNT.split(), str(folder)], capture_output=True)
    return tried.returncode == 0


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A run on a disk of 160 kB; the same command when there is space; and with the disk read-only."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "disk").mkdir()
    if not namespaces(folder / "disk"):
        pytest.skip("this system lets nobody mount a disk of his own")
    command = [*arguments(folder, *LONG), f"run.folder={folder / 'disk' / 'run'}"]
    code = SMALL_DISK.replace("MOUNT", repr(MOUNT))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*IN_A_NAMESPACE, sys.executable, "-c", code, str(folder / "disk"), str(folder), *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


def test_a_full_disk_stops_the_run_and_space_mends_it(small_disk, tmp_path):
    folder, told, errors = small_disk
    assert told["codes"][:2] == [1, 0], errors
    assert "No space left on device" in errors[0]
    assert "run the same command again" in errors[0]
    rows = read_csv(folder / "full" / "results.csv")  # an older state, but whole
    assert set(rows["image"]) <= {f"images/{path.name}" for path in (folder / "full/images").iterdir()}
    for line in (folder / "full" / "journal.jsonl").read_text().splitlines():
        json.loads(line)
    assert main(arguments(tmp_path, *LONG)) == 0
    assert files(folder / "mended") == files(tmp_path / "run")


def test_a_read_only_disk_is_found_before_weights_are_loaded(small_disk):
    _, told, errors = small_disk
    assert told["codes"][2:] == [2, 2]
    assert told["built"] == []
    assert all("Read-only file system" in line for line in errors[-2:])
