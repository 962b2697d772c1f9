"""The store under several processes, and under kills."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from align import writing
from align.store.csvfile import read_csv
from align.store.errors import StoreError
from align.store.lock import Owner
from align.store.measured import Result
from align.store.store import Store

from .helpers import (
    MANIFEST,
    WEIGHTS,
    commit,
    csv_bytes,
    fill,
    fill_and_measure,
    make_plan,
    make_png,
    make_row,
    measure,
    picture_files,
)

ROOT = Path(__file__).parents[2]


def child(task, *arguments):
    command = [sys.executable, str(Path(__file__).with_name("helpers.py")), task, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_live_lock_is_refused(tmp_path):
    plan = make_plan(2)
    with Store(tmp_path, MANIFEST, plan) as store:
        with pytest.raises(StoreError) as caught:
            Store(tmp_path, MANIFEST, plan)
        assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
        assert "run.shared=true" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreError, match="both must have been started with it"):
            Store(tmp_path, MANIFEST, plan, shared=True)
        commit(store, plan[0])
    Store(tmp_path, MANIFEST, plan).close()


def owner(**changes):
    """The record of a process that is gone, or was never here."""
    return vars(Owner(socket.gethostname(), os.getpid(), "other")) | changes


def number_of_a_finished_process():
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    return finished.pid


@pytest.mark.parametrize(
    "content",
    [
        lambda: [owner()],  # its number is given out again, to this very process
        lambda: [owner(locked=False, pid=number_of_a_finished_process())],  # of an older version
        lambda: [],
        lambda: [{"pid": 1}],
        lambda: [owner(token="../../results")],
        lambda: "torn",
    ],
)
def test_a_stale_lock_is_taken_over(tmp_path, content):
    value = content()
    text = '[{"host": "' if value == "torn" else json.dumps(value)
    (tmp_path / ".lock").write_text(text)
    with Store(tmp_path, MANIFEST, make_plan(1)):
        owners = json.loads((tmp_path / ".lock").read_text())
        assert [owner["pid"] for owner in owners] == [os.getpid()]
    assert not (tmp_path / ".lock").exists()
    assert not (tmp_path / ".alive").exists()


def test_a_live_lock_of_an_older_version_is_refused(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps([owner(locked=False)]))
    with pytest.raises(StoreError, match="is in use by process"):
        Store(tmp_path, MANIFEST, make_plan(1))


def test_a_lock_of_another_host_is_believed(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps([owner(host="elsewhere")]))
    with pytest.raises(StoreError, match=r"on elsewhere \(if that one is gone, delete"):
        Store(tmp_path, MANIFEST, make_plan(1))


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_held_for_life_decides_where_process_numbers_mean_nothing(tmp_path, shared):
    """As in containers that share a host name: the other process's number is nobody's here, or somebody else's."""
    plan = make_plan(2)
    process = child("work_until_told", tmp_path, len(plan), int(shared))
    assert process.stdout.readline() == "open\n"
    (tmp_path / ".lock").write_text(
        json.dumps([one | {"pid": 2**22 + 1} for one in json.loads((tmp_path / ".lock").read_text())])
    )
    if shared:
        with Store(tmp_path, MANIFEST, plan, shared=True) as store:
            assert not store.claim(plan[0])  # the other one is at it
            assert len(json.loads((tmp_path / ".lock").read_text())) == 2
    else:
        with pytest.raises(StoreError, match="is in use by process 4194305"):
            Store(tmp_path, MANIFEST, plan)
    process.kill()
    process.communicate()
    with Store(tmp_path, MANIFEST, plan, shared=shared) as store:
        assert store.claim(plan[0])


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(handle, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="file system without file locks") as caught:
        Store(tmp_path, MANIFEST, make_plan(1))
    assert "\n" not in str(caught.value)


def test_two_processes_share_a_run(tmp_path):
    size = 50
    fill(tmp_path / "whole", make_plan(size))
    folder = tmp_path / "run"
    children = [child("work_shared", folder, size) for _ in range(2)]
    for process in children:
        assert process.stdout.readline() == "open\n"
    for process in children:
        print("go", file=process.stdin, flush=True)
    first = [process.stdout.readline().split() for process in children]
    for process in children:  # both have begun
        print("go", file=process.stdin, flush=True)
    rest = [process.communicate(timeout=500)[0].split() for process in children]
    done = [some + more for some, more in zip(first, rest, strict=True)]
    assert [process.returncode for process in children] == [0, 0]
    assert sorted(done[0] + done[1]) == sorted(item.key for item in make_plan(size))
    assert all(done), "one process did everything: nothing was shared"
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]
    keys = [line["key"] for line in lines if "key" in line]
    assert len(keys) == len(set(keys)) == size
    assert csv_bytes(folder) == csv_bytes(tmp_path / "whole")
    assert picture_files(folder) == picture_files(tmp_path / "whole")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert not (folder / ".lock").exists()
    assert not (folder / "claims").exists()


def test_claims_within_a_shared_folder(tmp_path):
    plan = make_plan(3)
    first = Store(tmp_path, MANIFEST, plan, shared=True)
    second = Store(tmp_path, MANIFEST, plan, shared=True)
    assert first.claim(plan[0])
    assert first.claim(plan[0])
    assert not second.claim(plan[0])
    commit(first, plan[0])
    assert not second.claim(plan[0])
    assert plan[0].key in second.done
    assert first.claim(plan[1])
    commit(first, plan[1], status="failed: x")
    assert not second.claim(plan[1])  # the next run tries again, not this one
    claim = tmp_path / "claims" / plan[2].key
    claim.write_text(json.dumps(owner()))
    assert second.claim(plan[2])
    assert not first.claim(plan[2])
    first.close()
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "started"
    assert claim.exists()
    commit(second, plan[2])
    second.close()
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["counts"]["failed"] == 1
    assert not (tmp_path / "claims").exists()


def test_what_a_process_did_not_live_to_measure_is_measured_by_another(tmp_path):
    plan = make_plan(3)
    first = Store(tmp_path, MANIFEST, plan, shared=True)
    second = Store(tmp_path, MANIFEST, plan, shared=True)
    for item in plan:
        assert first.claim(item)
        first.commit(item, make_png(item), make_row(item), hold=True)
    assert first.claim(plan[0], WEIGHTS)
    assert not second.claim(plan[0], WEIGHTS)  # the first one is going to
    measure(first, plan[:1])
    assert not second.claim(plan[0], WEIGHTS)  # it has
    first.measured({plan[1].key: {"pick": Result({"pick": None}, "failed: x", failed=True)}}, WEIGHTS)
    assert second.unmeasured(WEIGHTS) == plan[1:]
    assert not second.claim(plan[1], WEIGHTS)  # the next run tries again, not this one
    os.close(first._lock._life)  # as if killed
    assert second.claim(plan[2], WEIGHTS)
    measure(second, plan[2:])
    assert [path.name for path in (tmp_path / "claims").iterdir()] == [plan[1].key]
    second.close()
    assert not (tmp_path / "claims").exists()
    assert not (tmp_path / ".alive").exists()


def test_kills_leave_no_duplicate_and_no_half_file(tmp_path):
    size = 24
    plan = make_plan(size)
    fill_and_measure(tmp_path / "whole", plan)
    whole = read_csv(tmp_path / "whole" / "results.csv")[["key", "clip", "pick"]]
    folder = tmp_path / "run"
    kills = 0
    for turn in range(12):
        process = child("work_until_killed", folder, size, turn % 3)
        process.communicate(timeout=500)
        kills += process.returncode == -signal.SIGKILL
        for path in (folder / "images").glob("*.png"):
            assert path.read_bytes() == picture_files(tmp_path / "whole")[path.name]
        if (folder / "results.csv").exists():
            measured = read_csv(folder / "results.csv").reindex(columns=["key", "clip", "pick"]).dropna()
            assert set(measured.itertuples(index=False)) <= set(whole.itertuples(index=False))
        with Store(folder, MANIFEST, plan) as store:
            keys = [row["key"] for row in store.rows()]
            assert len(keys) == len(set(keys))
        assert not [path for path in folder.rglob("*") if path.name.endswith(writing.SUFFIX)]
    assert kills >= 6
    fill_and_measure(folder, plan)
    assert csv_bytes(folder) == csv_bytes(tmp_path / "whole")
    assert picture_files(folder) == picture_files(tmp_path / "whole")
