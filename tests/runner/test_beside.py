"""On a device a group is kept and measured in a thread while the next one is sampled."""

import os
import signal
import threading
from functools import partial

import pytest

from align.__main__ import main
from align.runner import work
from align.store.errors import StoreError
from align.store.store import Store

from .helpers import files

OPTIONS = [
    "prompts=shapes_single",
    "prompts.limit=6",
    "run.in_flight=2",
    "metrics=shapes",
    "run.gallery=false",
]


@pytest.fixture
def beside(monkeypatch):
    monkeypatch.setattr(work, "Work", partial(work.Work, beside=True))


def test_the_folder_is_the_same(fake, monkeypatch, tmp_path):
    fake()
    assert main([*OPTIONS, f"run.folder={tmp_path / 'after'}"]) == 0
    monkeypatch.setattr(work, "Work", partial(work.Work, beside=True))
    assert main([*OPTIONS, f"run.folder={tmp_path / 'beside'}"]) == 0
    assert files(tmp_path / "after") == files(tmp_path / "beside")


def test_the_next_group_is_sampled_meanwhile(fake, beside, monkeypatch, tmp_path):
    sampled, commit = threading.Semaphore(0), Store.commit
    fake(hook=lambda requests: sampled.release())
    met = []

    def waiting(self, item, *given, **named):
        if item.index == 0:  # until the second group is at work
            met.append(sampled.acquire(timeout=60) and sampled.acquire(timeout=60))
        commit(self, item, *given, **named)

    monkeypatch.setattr(Store, "commit", waiting)
    assert main([*OPTIONS, f"run.folder={tmp_path / 'run'}"]) == 0
    assert met == [True]


def test_what_goes_wrong_in_the_thread_ends_the_run_in_a_line(fake, beside, monkeypatch, tmp_path, capsys):
    def full(self, *given, **named):
        raise StoreError("cannot write: the disk is full")

    fake()
    monkeypatch.setattr(Store, "commit", full)
    assert main([*OPTIONS, f"run.folder={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "Traceback" not in said


def test_an_interruption_ends_after_the_commit_in_progress_and_the_run_goes_on(
    fake, beside, tmp_path, capsys
):
    folder = f"run.folder={tmp_path / 'run'}"
    calls = []

    def interrupted(requests):
        calls.append(requests)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fake(hook=interrupted)
    assert main([*OPTIONS, folder]) == 130
    assert "2 of 6 done" in capsys.readouterr().err
    fake()
    assert main([*OPTIONS, folder]) == 0
    assert main([*OPTIONS, f"run.folder={tmp_path / 'whole'}"]) == 0
    assert files(tmp_path / "run") == files(tmp_path / "whole")
