"""The store under several processes, and under kills."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from align.results import atomic
from align.results.errors import StoreError
from align.results.lock import Owner
from align.results.store import Store

from .helpers import MANIFEST, commit, csv_bytes, fill, make_plan, picture_files

ROOT = Path(__file__).parents[2]


def child(task, *arguments):
    command = [sys.executable, str(Path(__file__).with_name("helpers.py")), task, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_live_lock_is_refused(tmp_path):
    plan = make_plan(2)
    with Store.open(tmp_path, MANIFEST, plan) as store:
        with pytest.raises(StoreError) as caught:
            Store.open(tmp_path, MANIFEST, plan)
        assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
        assert "run.shared=true" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreError, match="both must have been started with it"):
            Store.open(tmp_path, MANIFEST, plan, shared=True)
        commit(store, plan[0])
    Store.open(tmp_path, MANIFEST, plan).close()


def stale_owner(**changes):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    owner = vars(Owner.current()).copy()
    return owner | {"token": "other", "pid": finished.pid} | changes


@pytest.mark.parametrize(
    "content",
    [
        lambda: [stale_owner()],
        lambda: [stale_owner(pid=os.getpid(), start=1)],  # the process id was given out again
        lambda: [stale_owner(pid=os.getpid(), boot="another boot")],
        lambda: [],
        lambda: [{"pid": 1}],
        lambda: "torn",
    ],
)
def test_a_stale_lock_is_taken_over(tmp_path, content):
    value = content()
    text = '[{"host": "' if value == "torn" else json.dumps(value)
    (tmp_path / ".lock").write_text(text)
    with Store.open(tmp_path, MANIFEST, make_plan(1)):
        owners = json.loads((tmp_path / ".lock").read_text())
        assert [owner["pid"] for owner in owners] == [os.getpid()]
    assert not (tmp_path / ".lock").exists()


def test_a_lock_of_another_host_is_believed(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps([stale_owner(host="elsewhere")]))
    with pytest.raises(StoreError, match=r"on elsewhere \(if that one is gone, delete"):
        Store.open(tmp_path, MANIFEST, make_plan(1))


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.from_record(vars(Owner.current()) | {"pid": process.pid, "start": None})
    assert owner.alive()
    record = vars(owner) | {"start": int(Path(f"/proc/{process.pid}/stat").read_text().split()[21])}
    owner = Owner.from_record(record)
    assert owner.alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive()
    process.communicate()


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
    first = Store.open(tmp_path, MANIFEST, plan, shared=True)
    second = Store.open(tmp_path, MANIFEST, plan, shared=True)
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
    claim.write_text(json.dumps(stale_owner()))
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


def test_kills_leave_no_duplicate_and_no_half_file(tmp_path):
    size = 24
    plan = make_plan(size)
    fill(tmp_path / "whole", plan)
    folder = tmp_path / "run"
    kills = 0
    for turn in range(12):
        process = child("work_until_killed", folder, size, turn % 3)
        process.communicate(timeout=500)
        kills += process.returncode == -signal.SIGKILL
        for path in (folder / "images").glob("*.png"):
            assert path.read_bytes() == picture_files(tmp_path / "whole")[path.name]
        csv = folder / "results.csv"
        if csv.exists():
            assert set(csv.read_bytes().splitlines()[1:]) <= set(csv_bytes(tmp_path / "whole").splitlines())
        with Store.open(folder, MANIFEST, plan) as store:
            keys = [row["key"] for row in store.rows()]
            assert len(keys) == len(set(keys))
        assert not [path for path in folder.rglob("*") if path.name.endswith(atomic.SUFFIX)]
    assert kills >= 6
    fill(folder, plan)
    assert csv_bytes(folder) == csv_bytes(tmp_path / "whole")
    assert picture_files(folder) == picture_files(tmp_path / "whole")
