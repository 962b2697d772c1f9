"""What goes wrong in the middle of a run costs what was in hand at that moment, and nothing else."""

import errno
import json
import os
from datetime import UTC, datetime

import pytest

from align.__main__ import main
from align.store import manifest
from align.store.csvfile import read_csv

from .helpers import arguments, fake_weights, files


def sampled(built):
    """Prompts in the order in which they were sampled."""
    return [prompt for sampler in built for call in sampler.calls for prompt, *_ in call]


def undisturbed(tmp_path, *more):
    assert main(arguments(tmp_path / "undisturbed", *more)) == 0
    return files(tmp_path / "undisturbed" / "run")


def test_what_was_damaged_is_made_again_and_nothing_else(fake, tmp_path):
    fake()
    command = arguments(tmp_path)
    assert main(command) == 0
    run = tmp_path / "run"
    before = files(run)
    rows = read_csv(run / "results.csv")
    os.truncate(run / rows["image"][2], 100)
    (run / rows["image"][4]).unlink()
    journal = run / "journal.jsonl"
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if b'"row"' in line]
    journal.write_bytes(b"".join(lines)[:-50])  # the last line is torn
    (run / "results.csv").unlink()
    built = fake()
    assert main(command) == 0
    assert sampled(built) == [rows["prompt"][k] for k in (2, 4, 7)]
    assert files(run) == before


def test_an_edited_table_is_told_of_and_made_again(fake, tmp_path, capsys):
    fake()
    assert main(arguments(tmp_path)) == 0
    before = files(tmp_path / "run")
    table = tmp_path / "run" / "results.csv"
    table.write_bytes(table.read_bytes().replace(b",ok,", b",OK,", 1))
    capsys.readouterr()
    assert main(arguments(tmp_path)) == 0
    assert "results.csv was edited" in capsys.readouterr().out
    assert files(tmp_path / "run") == before


def test_a_device_that_is_lost_midway_leaves_what_is_finished(fake, tmp_path, capsys):
    fake()
    expected = undisturbed(tmp_path)
    calls = []

    def third_call_fails(requests):
        calls.append(requests)
        if len(calls) == 3:
            raise RuntimeError("CUDA error: unspecified launch failure")

    fake(hook=third_call_fails)
    assert main(arguments(tmp_path)) == 1
    assert "unspecified launch failure" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 6
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    built = fake()
    assert main(arguments(tmp_path)) == 0
    assert len(sampled(built)) == 2
    assert files(tmp_path / "run") == expected


def test_an_item_that_fits_in_no_memory_fails_alone(fake, tmp_path):
    def demand(requests):
        if any(request.prompt == "vast" for request in requests):
            raise RuntimeError("CUDA out of memory. Tried to allocate 900.00 GiB")

    fake(hook=demand)
    more = ["prompts=text", "prompts.text=[one,two,vast,three,four]", "run.in_flight=5", "run.batch_size=4"]
    assert main(arguments(tmp_path / "a", *more)) == 1
    rows = read_csv(tmp_path / "a" / "run" / "results.csv").set_index("prompt")
    assert rows.loc["vast", "status"].startswith("failed: RuntimeError: CUDA out of memory")
    assert list(rows["status"].drop("vast")) == ["ok"] * 4
    fake()
    assert main(arguments(tmp_path / "a", *more)) == 0
    assert files(tmp_path / "a" / "run") == undisturbed(tmp_path, *more)


@pytest.mark.parametrize("year", [1971, 2037])
def test_the_clock_decides_nothing(year, fake, tmp_path, monkeypatch):
    """A run that goes on years earlier or later, with files that seem to be of any time, ends the same."""
    fake()
    expected = undisturbed(tmp_path)
    assert main(arguments(tmp_path, "prompts.limit=4")) == 0
    then = datetime(year, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(manifest, "now", lambda: then.isoformat(timespec="seconds"))
    monkeypatch.setattr("time.time", then.timestamp)
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (then.timestamp(), then.timestamp()))
    built = fake()
    assert main(arguments(tmp_path)) == 0
    assert len(sampled(built)) == 4
    assert files(tmp_path / "run") == expected


def test_runs_started_in_the_same_second_have_folders_of_their_own(fake, tmp_path, monkeypatch):
    fake()
    monkeypatch.setattr(manifest, "now", lambda: "2030-01-01T00:00:00+00:00")
    monkeypatch.chdir(tmp_path)
    fake_weights(tmp_path / "weights")
    common = ["backbone.weights=weights", "metrics=none", "prompts.limit=2", "run.gallery=false"]
    for seed in (0, 1):
        assert main([*common, f"seed={seed}"]) == 0
    made = list((tmp_path / "outputs").iterdir())
    assert len(made) == 2
    assert all(len(read_csv(folder / "results.csv")) == 2 for folder in made)


def test_a_prompt_that_is_listed_twice_gets_two_pictures(fake, tmp_path):
    fake()
    assert main(arguments(tmp_path, "prompts=text", 'prompts.text=["a","b","a",""]')) == 0
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert list(zip(rows["prompt"], rows["sample"], strict=True)) == [("a", 0), ("b", 0), ("a", 1), ("", 0)]
    assert len({(tmp_path / "run" / image).read_bytes() for image in rows["image"]}) == 4


def test_other_weights_in_an_old_folder_are_refused(fake, tmp_path, capsys):
    fake()
    assert main(arguments(tmp_path)) == 0
    before = files(tmp_path / "run")
    command = arguments(tmp_path)
    (tmp_path / "weights" / "vae" / "config.json").write_text("{ }")
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "backbone.files" in error
    assert files(tmp_path / "run") == before


def test_a_folder_that_cannot_be_written_is_found_before_weights_are_loaded(
    fake, tmp_path, monkeypatch, capsys
):
    built = fake()
    command = arguments(tmp_path)
    real = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(tmp_path / "run")):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Read-only file system" in error
    assert not built
