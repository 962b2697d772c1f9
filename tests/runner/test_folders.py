"""The folders of several runs of one command: one that cannot be used stops no other, and none is spoilt by another."""

import pytest

from align.__main__ import main
from align.store.csvfile import read_csv
from align.store.store import Store

from .helpers import arguments

SEEDS = ["-m", "seed=0,1,2", "metrics=none", "prompts.limit=2", "run.folder=run${seed}"]


@pytest.fixture
def command(fake, tmp_path, monkeypatch):
    fake()
    monkeypatch.chdir(tmp_path)
    # The folder's name has the seed, so that each run has its own.
    return [word for word in arguments(tmp_path) if not word.startswith("run.folder=")] + SEEDS


def finished(tmp_path):
    return sorted(path.parent.name for path in tmp_path.glob("run*/results.csv") if len(read_csv(path)) == 2)


def test_a_folder_that_cannot_be_used_is_told_before_the_first_run(command, tmp_path, capsys):
    (tmp_path / "run1").write_text("a file")
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert err == "align: run.folder=run1: run1 is not a folder: give another one\n"
    assert "2 of shapes_demo" in out
    assert finished(tmp_path) == ["run0", "run2"]


def test_a_folder_of_another_configuration_is_told_before_the_first_run(command, tmp_path, capsys):
    assert main([*command, "seed=1", "sampler.steps=3"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("align: run1 was made with sampler.steps=3")
    assert finished(tmp_path) == ["run0", "run1", "run2"]


def test_a_folder_in_use_is_told_and_the_others_go_on(command, tmp_path, capsys, monkeypatch):
    from align.store.errors import StoreError

    found = Store.__init__

    def opened(store, folder, *rest, **options):
        if folder.name == "run1":
            raise StoreError("run1 is in use by process 7 on here; wait for it to end")
        found(store, folder, *rest, **options)

    monkeypatch.setattr(Store, "__init__", opened)
    assert main(command) == 2
    assert capsys.readouterr().err == "align: run1 is in use by process 7 on here; wait for it to end\n"
    assert finished(tmp_path) == ["run0", "run2"]


def test_an_error_that_nobody_thought_of_stops_no_other_run(command, tmp_path, capsys, monkeypatch):
    from align.runner import run

    found = run._print_plan

    def broken(prepared, *rest):
        if prepared.config.seed == 1:
            raise KeyError("a mistake")
        found(prepared, *rest)

    monkeypatch.setattr(run, "_print_plan", broken)
    assert main(command) == 1
    assert "internal error: KeyError: 'a mistake'" in capsys.readouterr().err
    assert finished(tmp_path) == ["run0", "run2"]


def test_seeds_of_one_run_may_share_a_folder(command, tmp_path):
    assert main([*command, "run.folder=run"]) == 0
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 6
