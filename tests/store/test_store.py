import errno
import fcntl
import json
import math
import os
import shutil

import numpy
import pytest
from PIL import Image

from align.pictures import PictureError, read_picture
from align.store.csvfile import read_csv
from align.store.errors import StoreError
from align.store.index import Index
from align.store.manifest import Manifest, first_difference, other_versions
from align.store.measured import Result
from align.store.pictures import picture_name
from align.store.snapshot import Snapshot
from align.store.store import Store

from .helpers import (
    MANIFEST,
    commit,
    csv_bytes,
    fill,
    make_item,
    make_plan,
    make_png,
    make_row,
    picture_files,
)


def status_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_leaves_its_files(tmp_path):
    folder = tmp_path / "deep" / "run"
    plan = make_plan(6)
    with Store(folder, MANIFEST, plan) as store:
        assert store.done == set()
        assert status_of(folder)["status"] == "started"
        for item in plan:
            assert store.claim(item)
            commit(store, item)
        assert not store.claim(plan[0])
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "journal.jsonl",
        "results.csv",
        "run.json",
    ]
    run = status_of(folder)
    assert run["status"] == "finished"
    assert run["counts"] == {"planned": 6, "done": 6, "failed": 0, "remaining": 0, "foreign": 0}
    assert run["identity"] == MANIFEST.identity
    assert run["record"] == MANIFEST.record
    table = read_csv(folder / "results.csv")
    assert table["key"].tolist() == [item.key for item in plan]
    for item, row in zip(plan, table.to_dict("records"), strict=True):
        assert row["image"] == f"images/seed{item.seed}-0-{item.key[:16]}.png"
        assert (folder / row["image"]).read_bytes() == make_png(item)
        assert row["clip"] == make_row(item)["clip"]
        assert row["config"] == MANIFEST.digest


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path):
    plan = make_plan(9)
    fill(tmp_path / "whole", plan)
    store = Store(tmp_path / "run", MANIFEST, plan)
    for item in plan[3:7]:
        commit(store, item)
    store.close("interrupted")
    assert status_of(tmp_path / "run")["status"] == "interrupted"
    with Store(tmp_path / "run", MANIFEST, plan) as store:
        assert store.done == {item.key for item in plan[3:7]}
        assert store.pending() == [*plan[:3], *plan[7:]]
        for item in store.pending():
            commit(store, item)
    assert csv_bytes(tmp_path / "run") == csv_bytes(tmp_path / "whole")
    assert picture_files(tmp_path / "run") == picture_files(tmp_path / "whole")


def test_an_exception_is_an_interruption(tmp_path):
    plan = make_plan(2)

    def run():
        with Store(tmp_path, MANIFEST, plan) as store:
            commit(store, plan[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert status_of(tmp_path)["status"] == "interrupted"
    assert status_of(tmp_path)["counts"]["done"] == 1
    assert not (tmp_path / ".lock").exists()


def test_a_failed_item_is_made_again(tmp_path):
    plan = make_plan(2)
    with Store(tmp_path, MANIFEST, plan) as store:
        commit(store, plan[0], status="failed: out of memory\nat step 3", info_trace="x")
        commit(store, plan[1])
        assert store.failed == {plan[0].key}
    assert status_of(tmp_path)["counts"]["failed"] == 1
    assert len(picture_files(tmp_path)) == 1
    assert read_csv(tmp_path / "results.csv")["status"].tolist() == ["failed: out of memory\nat step 3", "ok"]
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.pending() == [plan[0]]
        commit(store, plan[0])
        assert len(store.rows()) == 2
    fill(tmp_path / "whole", plan)
    assert csv_bytes(tmp_path) == csv_bytes(tmp_path / "whole")


def test_values_are_exact_and_nonfinite_is_empty(tmp_path):
    plan = make_plan(1)
    single = numpy.float32(0.1)
    row = {
        "prompt": "x",
        "a": single,
        "b": float("nan"),
        "c": -math.inf,
        "d": numpy.bool_(True),
        "e": numpy.int64(7),
        "f": numpy.array(0.3),
        "optimised": ["a", "b"],
    }
    with Store(tmp_path, MANIFEST, plan) as store:
        store.commit(plan[0], Image.new("RGB", (4, 4), "red"), row)
        kept = store.rows()[0]
    assert kept["a"] == float(single)
    assert kept["b"] is None
    table = read_csv(tmp_path / "results.csv").iloc[0]
    assert table["a"] == float(single)
    assert math.isnan(table["b"])
    assert math.isnan(table["c"])
    assert (table["d"], table["e"], table["f"], table["optimised"]) == (1, 7, 0.3, "a;b")
    assert b"nan" not in csv_bytes(tmp_path).lower()


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    plan = make_plan(4)
    fill(tmp_path / "whole", plan)
    folder = tmp_path / "run"
    store = Store(folder, MANIFEST, plan, csv_every=1e9)
    for item in plan[:3]:
        commit(store, item)
    store._journal.close()
    (folder / ".lock").unlink()  # as if killed
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with Store(folder, MANIFEST, plan) as store:
        assert store.done == {item.key for item in plan[:2]}
        for item in store.pending():
            commit(store, item)
    assert csv_bytes(folder) == csv_bytes(tmp_path / "whole")
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_an_unreadable_line_costs_only_its_item(tmp_path):
    plan = make_plan(4)
    fill(tmp_path, plan)
    before = csv_bytes(tmp_path)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if plan[1].key.encode() in line)
    lines[place] = b"\x00" * 40 + b"\n"
    journal.write_bytes(b"".join(lines))
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.pending() == [plan[1]]
        commit(store, plan[1])
    assert csv_bytes(tmp_path) == before


def hostile_lines(line):
    """Lines that an item's own line could be replaced by, none of which may be taken for a result."""
    image = line["image"]
    changes = [
        *({"key": key} for key in ("../../precious", 7, line["key"].upper())),
        *({"image": image | {"name": name}} for name in ("../../precious", "/precious", "..", "a\0b", 7)),
        *({"image": wrong} for wrong in ({}, "x.png", image | {"size": "1"})),
        *({name: wrong} for name in ("row", "seed", "sample", "place", "session") for wrong in ([], "x")),
    ]
    yield from (line | change for change in changes)
    for results in (7, {"pick": 7}, {"pick": {}}, {"other": {"values": {}}}):
        yield {"measured": {line["key"]: results}, "by": {"pick": "1"}}
    yield {"measured": {line["key"]: {"pick": {"values": {}}}}, "by": {"pick": []}}
    yield {"csv": [], "end": "x"}


def test_lines_that_somebody_else_wrote_name_nothing_outside_and_are_no_results(tmp_path):
    precious, folder, plan = tmp_path / "precious", tmp_path / "run", make_plan(1)
    fill(folder, plan)
    precious.write_bytes(next((folder / "images").iterdir()).read_bytes())
    journal = folder / "journal.jsonl"
    line = next(one for one in map(json.loads, journal.read_text().splitlines()) if "key" in one)
    lines = list(hostile_lines(line))
    journal.write_text("".join(json.dumps(one) + "\n" for one in lines))
    with Store(folder, MANIFEST, plan, shared=True) as store:
        assert store.pending() == plan
        assert store.counts()["foreign"] == 0
        assert store.claim(plan[0])
        commit(store, plan[0])
    assert precious.read_bytes() == make_png(plan[0])


def test_a_picture_that_is_a_link_or_a_pipe_is_made_again_and_not_read(tmp_path):
    outside, plan = tmp_path / "outside.png", make_plan(2)
    fill(tmp_path / "run", plan)
    first, other = (
        tmp_path / "run" / "images" / picture_name(item.key, item.seed, item.sample) for item in plan
    )
    first.rename(outside)
    first.symlink_to(outside)
    other.unlink()
    os.mkfifo(other)
    for verify in ("quick", "full"):
        with Store(tmp_path / "run", MANIFEST, plan, verify=verify) as store:
            assert store.pending() == plan
    with pytest.raises(PictureError, match="it is a pipe"):
        read_picture(other)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"sessions": 7}, "sessions"),
        ({"sessions": [{}]}, "sessions.0.session"),
        ({"sessions": [{"session": "1"}]}, "sessions.0.session"),
        ({"sessions": [{"session": 1, "git": {"commit": 7}}]}, "sessions.0.git.commit"),
        ({"record": []}, "record"),
        ({"record": {"fingerprints": 7}}, "record.fingerprints"),
        ({"earlier": [7]}, "earlier"),
    ],
)
def test_a_run_json_that_somebody_else_wrote_is_one_line(part, name, tmp_path):
    plan = make_plan(1)
    fill(tmp_path, plan)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    with pytest.raises(StoreError, match=rf"run.json is damaged \({name} is not"):
        Store(tmp_path, MANIFEST, plan)


def test_damaged_pictures_are_made_again(tmp_path):
    plan = make_plan(6)
    fill(tmp_path, plan)
    before = picture_files(tmp_path)
    rows = csv_bytes(tmp_path)
    paths = [tmp_path / "images" / f"seed{item.seed}-0-{item.key[:16]}.png" for item in plan]
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].write_bytes(b"")
    paths[2].unlink()
    data = bytearray(paths[3].read_bytes())
    data[-20] ^= 1
    paths[3].write_bytes(data)
    os.utime(paths[4])  # touched only
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.pending() == plan[:4]
        assert len(store.rows()) == 2
        for item in store.pending():
            commit(store, item)
    assert picture_files(tmp_path) == before
    assert csv_bytes(tmp_path) == rows


def test_full_verification_sees_what_quick_trusts(tmp_path):
    plan = make_plan(2)
    fill(tmp_path, plan)
    path = tmp_path / "images" / f"seed0-0-{plan[0].key[:16]}.png"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.pending() == []
    with Store(tmp_path, MANIFEST, plan, verify="full") as store:
        assert store.pending() == [plan[0]]


def test_an_edited_csv_is_rebuilt_with_a_warning(tmp_path):
    plan = make_plan(3)
    fill(tmp_path, plan)
    good = (tmp_path / "results.csv").read_bytes()
    edited = good.replace(b"prompt 0", b"prompt X")
    (tmp_path / "results.csv").write_bytes(edited)
    with pytest.warns(UserWarning, match="was edited"):
        Store(tmp_path, MANIFEST, plan).close()
    assert (tmp_path / "results.csv").read_bytes() == good
    (kept,) = tmp_path.glob("results.edited-*.csv")
    assert kept.read_bytes() == edited


@pytest.mark.filterwarnings("error")
def test_a_missing_or_older_csv_is_rebuilt_in_silence(tmp_path):
    plan = make_plan(3)
    store = Store(tmp_path, MANIFEST, plan)
    commit(store, plan[0])
    store.rebuild_csv()
    older = (tmp_path / "results.csv").read_bytes()
    commit(store, plan[1])
    commit(store, plan[2])
    store.close()
    good = csv_bytes(tmp_path)
    (tmp_path / "results.csv").write_bytes(older)
    Store(tmp_path, MANIFEST, plan).close()
    assert csv_bytes(tmp_path) == good
    (tmp_path / "results.csv").unlink()
    Store(tmp_path, MANIFEST, plan).close()
    assert csv_bytes(tmp_path) == good


def test_reordering_and_enlarging_the_plan_changes_no_row(tmp_path):
    plan = make_plan(4)
    fill(tmp_path, plan)
    pictures = picture_files(tmp_path)
    more = [make_item("new"), *plan[::-1]]
    with Store(tmp_path, MANIFEST, more) as store:
        assert store.pending() == more[:1]
        commit(store, more[0])
    assert read_csv(tmp_path / "results.csv")["key"].tolist() == [item.key for item in more]
    assert pictures.items() <= picture_files(tmp_path).items()
    Store(tmp_path, MANIFEST, plan[:1]).close()
    assert status_of(tmp_path)["counts"] == {
        "planned": 1, "done": 1, "failed": 0, "remaining": 0, "foreign": 4
    }  # fmt: skip
    assert len(read_csv(tmp_path / "results.csv")) == 5


def test_another_configuration_is_refused_or_added(tmp_path):
    plan = make_plan(2)
    fill(tmp_path, plan)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = Manifest({"method": {"name": "none"}, "protocol": {"steps": 50}})
    plan2 = make_plan(2, salt="50")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path, other, plan2)
    message = str(caught.value)
    assert "protocol.steps=25, this run has 50" in message
    assert "run.extend=true" in message
    assert "\n" not in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    with Store(tmp_path, other, plan2, extend=True) as store:
        assert store.pending() == plan2
        for item in plan2:
            commit(store, item)
    table = read_csv(tmp_path / "results.csv")
    assert table["key"].tolist() == [item.key for item in plan2 + plan]
    assert table["config"].tolist() == [other.digest] * 2 + [MANIFEST.digest] * 2
    assert [earlier["protocol"]["steps"] for earlier in status_of(tmp_path)["earlier"]] == [25]
    with Store(tmp_path, MANIFEST, plan) as store:  # it is a folder of both now
        assert store.pending() == []


def test_a_folder_without_any_item_is_free_for_another_configuration(tmp_path):
    plan = make_plan(2)
    Store(tmp_path, MANIFEST, plan).close("interrupted")
    other = Manifest({"method": {"name": "none"}})
    with Store(tmp_path, other, plan, shared=True) as store:
        assert status_of(tmp_path)["identity"] == other.identity
        assert status_of(tmp_path)["earlier"] == []
        with pytest.raises(StoreError, match="was made with"):  # somebody is at it
            Store(tmp_path, MANIFEST, plan, shared=True)
        commit(store, plan[0])
    with pytest.raises(StoreError, match="was made with"):
        Store(tmp_path, MANIFEST, plan)


def test_first_difference():
    assert first_difference({"a": [1, 2]}, {"a": [1, 3]}) == ("a.1", "2", "3")
    assert first_difference({"a": 1}, {"a": 1, "b": {"c": 2}}) == ("b", "nothing", '{"c": 2}')
    assert first_difference({"a": 1}, {"a": 1.0}) == ("a", "1", "1.0")
    assert first_difference({"b": 1, "a": {"x": None}}, {"a": {"x": None}, "b": 1}) is None
    assert Manifest({"clip": math.inf}).plain_identity() != Manifest({"clip": None}).plain_identity()


def test_a_foreign_folder_and_a_damaged_run_json(tmp_path):
    plan = make_plan(1)
    (tmp_path / "results.csv").write_text("mine\n")
    with pytest.raises(StoreError, match=r"no run\.json"):
        Store(tmp_path, MANIFEST, plan)
    assert (tmp_path / "results.csv").read_text() == "mine\n"
    assert not (tmp_path / ".lock").exists()
    (tmp_path / "run.json").write_text('{"identity": ')
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path, MANIFEST, plan)
    with pytest.raises(StoreError, match="cannot create"):
        Store(tmp_path / "run.json", MANIFEST, plan)


def test_misuse(tmp_path):
    plan = make_plan(1)
    with pytest.raises(ValueError, match="twice"):
        Store(tmp_path, MANIFEST, plan * 2)
    with (
        Store(tmp_path, MANIFEST, plan) as store,
        pytest.raises(ValueError, match="not in the plan"),
    ):
        commit(store, make_item("other"))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    plan = make_plan(3)
    fill(tmp_path / "whole", plan)
    folder = tmp_path / "run"
    store = Store(folder, MANIFEST, plan)
    commit(store, plan[0])
    store.rebuild_csv()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write = os.write

    def part(handle, data):
        write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", part)  # the picture is written, half of the journal line too
        with pytest.raises(StoreError, match="No space left on device") as caught:
            commit(store, plan[1])
        assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before.items() <= after.items()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space"):
            commit(store, plan[2])
        with pytest.raises(StoreError, match="No space"):
            store.close()
    assert not (folder / ".lock").exists()
    fill(folder, plan)
    assert csv_bytes(folder) == csv_bytes(tmp_path / "whole")
    assert picture_files(folder) == picture_files(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_for_a_user(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot"):
            Store(tmp_path / "run", MANIFEST, make_plan(1))
        with pytest.raises(StoreError, match="cannot"):
            Store(tmp_path, MANIFEST, make_plan(1))
    finally:
        tmp_path.chmod(0o755)


def test_a_read_only_file_system(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        Store(tmp_path, MANIFEST, make_plan(1))
    assert "\n" not in str(caught.value)


def test_a_truncated_picture_with_its_old_time_is_noticed(tmp_path):
    plan = make_plan(2)
    fill(tmp_path, plan)
    path = tmp_path / "images" / f"seed0-0-{plan[0].key[:16]}.png"
    stat = path.stat()
    os.truncate(path, stat.st_size - 1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.pending() == plan[:1]


def test_a_line_torn_by_another_process_swallows_nothing(tmp_path):
    plan = make_plan(2)
    with Store(tmp_path, MANIFEST, plan, shared=True) as store:
        commit(store, plan[0])
        with open(tmp_path / "journal.jsonl", "ab") as journal:
            journal.write(b'{"key": "half')
        commit(store, plan[1])
        assert store.done == {item.key for item in plan}
    assert all(json.loads(line) for line in (tmp_path / "journal.jsonl").read_bytes().splitlines())


def test_snapshots_of_a_process_that_enters_and_of_one_at_work_keep_apart(tmp_path, monkeypatch):
    plan, guarded = make_plan(2), []
    intact, write = Index.drop_broken, Snapshot._write

    def meanwhile(*args):
        commit(one, plan[0])
        one.rebuild_csv()
        commit(one, plan[1])
        return intact(*args)

    def observed(snapshot):
        with open(tmp_path / ".lock", "rb+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                guarded.append(False)
            except BlockingIOError:
                guarded.append(True)
        write(snapshot)

    with Store(tmp_path, MANIFEST, plan, shared=True) as one:
        monkeypatch.setattr(Index, "drop_broken", meanwhile)
        monkeypatch.setattr(Snapshot, "_write", observed)
        with Store(tmp_path, MANIFEST, plan, shared=True):
            assert guarded == [True, True]
    assert not list(tmp_path.glob("results.edited*"))


def test_a_snapshot_that_another_process_made_of_fewer_items_is_made_again(tmp_path):
    """Its line can come after an item's although the item is not in it."""
    plan = make_plan(3)
    with Store(tmp_path / "run", MANIFEST, plan) as store:
        commit(store, plan[0])
        store.rebuild_csv()
        known = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[-1])
        old = (tmp_path / "run" / "results.csv").read_bytes()
        commit(store, plan[1])
        commit(store, plan[2])
        store._journal.append(known)  # what the other process writes, late
        (tmp_path / "run" / "results.csv").write_bytes(old)
    fill(tmp_path / "whole", plan)
    assert csv_bytes(tmp_path / "run") == csv_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    "name", [".lock", "journal.jsonl", "run.json", "results.csv", "errors.log", "images", "claims"]
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_nothing_is_written_through_what_somebody_put_into_the_folder(name, kind, tmp_path):
    folder, outside, plan = tmp_path / "run", tmp_path / "outside", make_plan(2)
    fill(folder, plan[:1])
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "link":
        outside.mkdir() if name in ("images", "claims") else outside.write_text("precious")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(outside)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    with pytest.raises(StoreError, match=f"{path} is .*: remove it, or choose another run.folder"):
        Store(folder, MANIFEST, plan)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
    assert not outside.is_file() or outside.read_text() == "precious"
    assert not outside.is_dir() or not list(outside.iterdir())


def test_a_link_for_a_picture_is_replaced_and_a_folder_that_is_a_link_is_used(tmp_path):
    outside, plan = tmp_path / "outside.png", make_plan(1)
    outside.write_text("precious")
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")
    (tmp_path / "real" / "images").mkdir()
    name = picture_name(plan[0].key, plan[0].seed, plan[0].sample)
    (tmp_path / "real" / "images" / name).symlink_to(outside)
    fill(tmp_path / "run", plan)
    assert outside.read_text() == "precious"
    assert (tmp_path / "real" / "images" / name).read_bytes() == make_png(plan[0])
    assert not (tmp_path / "real" / "images" / name).is_symlink()


PICK = {"pick": "weights 1"}


def told(value):
    return {"pick": Result({"pick": value}, "" if value is not None else "is not finite")}


FAILED = {"pick": Result({"pick": None}, "failed: MemoryError", failed=True)}


def rows_of(folder):
    return read_csv(folder / "results.csv").to_dict("records")


def test_pictures_are_committed_first_and_measured_after(tmp_path):
    plan = make_plan(5)
    with Store(tmp_path, MANIFEST, plan) as store:
        for item in plan[:4]:
            commit(store, item)
        assert store.unmeasured(PICK) == plan[:4]
        store.measured({plan[0].key: told(0.5), plan[1].key: told(None), plan[2].key: FAILED}, PICK)
        assert store.lacking(plan[0], PICK) == []
        assert store.unmeasured(PICK) == plan[2:4]  # what failed is no result, what is not finite is one
        assert store.without_value(PICK) == plan[2:3]
        assert store.unmeasured({"pick": "weights 2"}) == plan[:4]
        assert not store.claim(plan[0], PICK)
        assert store.claim(plan[2], PICK)
        assert not store.claim(plan[4], PICK)  # there is no picture
    rows = rows_of(tmp_path)
    assert [row["pick"] for row in rows[:2]] == [0.5, pytest.approx(math.nan, nan_ok=True)]
    assert [row["status"] for row in rows] == [
        "ok", "ok: pick is not finite", "ok: pick failed: MemoryError", "ok",
    ]  # fmt: skip
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.unmeasured(PICK) == plan[2:4]
        store.measured({plan[2].key: told(2.0), plan[3].key: told(3.0)}, PICK)
        commit(store, plan[4])
        store.measured({plan[4].key: told(4.0)}, PICK)
    assert [row["status"] for row in rows_of(tmp_path)[2:]] == ["ok"] * 3
    assert [row["pick"] for row in rows_of(tmp_path)[2:]] == [2, 3, 4]


def test_a_picture_that_is_made_again_is_measured_again(tmp_path):
    plan = make_plan(2)
    with Store(tmp_path, MANIFEST, plan) as store:
        for item in plan:
            commit(store, item)
        store.measured({item.key: told(1.0) for item in plan}, PICK)
        picture = store.picture(plan[0])
    picture.unlink()
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.unmeasured(PICK) == []
        commit(store, plan[0])
        assert store.unmeasured(PICK) == plan[:1]
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.unmeasured(PICK) == plan[:1]


def test_notes_of_a_status_do_not_depend_on_what_was_measured_first(tmp_path):
    plan = make_plan(1)
    both = {"a": "1", "b": "1"}
    nothing = {name: {name: Result({name: None}, "is not finite")} for name in both}
    with Store(tmp_path / "one", MANIFEST, plan) as store:
        commit(store, plan[0])
        store.measured({plan[0].key: nothing["a"] | nothing["b"]}, both)
    with Store(tmp_path / "other", MANIFEST, plan) as store:
        commit(store, plan[0])
        store.measured({plan[0].key: nothing["b"]}, {"b": "1"})
        store.measured({plan[0].key: nothing["a"]}, both)
    assert rows_of(tmp_path / "one")[0]["status"] == "ok: a is not finite; b is not finite"
    assert csv_bytes(tmp_path / "one") == csv_bytes(tmp_path / "other")


def old_folder(folder, plan, fingerprints):
    """As versions wrote it that measured before they committed."""
    manifest = Manifest(MANIFEST.identity, {"fingerprints": fingerprints})
    with Store(folder, manifest, plan) as store:
        commit(store, plan[0], pick=1.5)
        commit(store, plan[1], pick=None, other=2.5, status="ok: pick is not finite; other is odd")
    run = status_of(folder)
    del run["sessions"]
    (folder / "run.json").write_text(json.dumps(run))
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("session", None)
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "results.csv").unlink()


def test_values_of_an_older_folder_count_as_by_the_weights_that_its_record_names(tmp_path):
    plan = make_plan(2)
    old_folder(tmp_path, plan, {"reward pick": "1", "reward other": "1", "reward other (more)": "2"})
    for _ in range(2):  # also when a session of this version came after
        with Store(tmp_path, MANIFEST, plan) as store:
            wanted = {"pick": "1", "other": "1 2", "checker": "1"}
            assert store.lacking(plan[0], wanted) == ["other"]
            assert store.lacking(plan[1], wanted) == []
            assert store.unmeasured({"pick": "2"}) == plan
    with Store(tmp_path, MANIFEST, plan) as store:
        store.measured({item.key: told(9.0) for item in plan}, {"pick": "2"})
        assert store.unmeasured({"pick": "2"}) == []
    rows = rows_of(tmp_path)
    assert [row["pick"] for row in rows] == [9, 9]
    assert [row["status"] for row in rows] == ["ok", "ok: other is odd"]
    assert [row["session"] for row in rows] == ["", ""]


def test_what_an_older_folder_does_not_name_is_measured_again(tmp_path):
    plan = make_plan(2)
    old_folder(tmp_path, plan, {})
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.unmeasured({"pick": "1"}) == plan


def test_rows_name_their_session_and_sessions_their_versions(tmp_path):
    plan = make_plan(3)
    for number, version in enumerate(["0.1", "0.2"]):
        record = {"versions": {"align": version}, "machine": {"cpus": 2}, "config": {"big": 1}}
        with Store(tmp_path, Manifest(MANIFEST.identity, record), plan) as store:
            commit(store, plan[number])
    with Store(tmp_path, MANIFEST, plan, shared=True) as one:
        with Store(tmp_path, MANIFEST, plan, shared=True) as other:
            commit(other, plan[2])
        assert (one.session, other.session) == (3, 4)
    assert [row["session"] for row in rows_of(tmp_path)] == ["1", "2", "4"]
    sessions = status_of(tmp_path)["sessions"]
    assert [one["session"] for one in sessions] == [1, 2, 3, 4]
    assert [one["versions"]["align"] for one in sessions] == ["0.1", "0.2", "0", "0"]
    assert other_versions(sessions[:2]) == ["align 0.1 (now 0.2)"]
    assert other_versions(sessions[2:]) == []
    assert sessions[1]["machine"] == {"cpus": 2}
    assert "big" not in json.dumps(sessions)


def test_a_folder_that_nobody_closed_says_so(tmp_path):
    plan = make_plan(2)
    store = Store(tmp_path, MANIFEST, plan)
    commit(store, plan[0])
    assert not store.unclosed
    with Store(tmp_path / "other", MANIFEST, plan) as other:
        assert not other.unclosed
    store._lock.release(lambda alone: None)  # as if killed
    with Store(tmp_path, MANIFEST, plan) as store:
        assert store.unclosed
    with Store(tmp_path, MANIFEST, plan) as store:
        assert not store.unclosed
