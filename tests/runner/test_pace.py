"""How many pictures are made between two commits, and in calls of how many rows."""

import pytest
import torch

from align.__main__ import main
from align.backbones.unet import UNetBackbone
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import calls
from align.runner.pace import Pace
from align.runner.plan import Item
from align.runner.prepare import prepare

from .helpers import files


@pytest.mark.parametrize(
    ("call", "each", "sizes"),
    [
        (8, 0.1, [8, 32, 32]),
        (8, 20.0, [8, 8, 8]),  # 15 would fit, but two calls would make 16
        (8, 40.0, [8, 7, 7]),
        (1, 190.0, [1, 1, 1]),  # guided pictures of SDXL
        (1, 900.0, [1, 1, 1]),
        (4, 8.0, [4, 32, 32]),
        (500, 0.01, [32, 32, 32]),
        (0, 1.0, [1, 32, 32]),  # of a group of more particles than a call has rows
    ],
)
def test_at_least_a_commit_every_five_minutes_of_work(call, each, sizes):
    pace, found = Pace(None, call), []
    for _ in sizes:
        found.append(pace.size)
        pace.took(pace.size, pace.size * each)
    assert found == sizes


def test_a_number_that_is_given_stays():
    pace = Pace(50, 8)
    pace.took(50, 1e6)
    assert pace.size == 50


def prepared(options):
    (job,) = jobs_of(parse([*options, "metrics=none"]))
    (run,) = prepare([job.config])
    return run.calls.shared(run.config.method.particles)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["prompts.limit=1"], 1),
        (["prompts.limit=1", "samples=3"], 3),
        (["prompts.limit=5", "samples=2"], 5),  # two calls of five, instead of two of eight
        (["prompts.limit=5", "samples=20"], 8),
        (["prompts.limit=1", "samples=20", "run.batch_size=3"], 3),
        (["prompts.limit=1", "method=best_of_n", "method.particles=6"], 6),
        (["prompts.limit=1", "method=best_of_n", "method.particles=4", "method.returned=2", "samples=2"], 4),
        (["prompts.limit=1", "method=svdd", "method.search.candidates=20", "sampler=ddim_ancestral"], 1),
        (["prompts.limit=3", "method=svdd", "method.search.candidates=2", "sampler=ddim_ancestral"], 3),
        (["backbone=toy_gmm", "prompts.limit=1", "samples=100"], 8),
    ],
)
def test_rows_of_a_call_fit_the_plan(options, rows):
    assert prepared(options) == rows


@pytest.mark.parametrize(
    ("options", "gib", "rows"),
    [
        (["backbone=sd15", "run.device=cpu"], 0, 1),
        (["backbone=sd15"], 139, 8),
        (["backbone=sd15", "method=dymo"], 139, 8),
        (["backbone=sd15", "method=dymo"], 24, 1),
        (["backbone=sdxl"], 24, 2),
        (["backbone=sdxl", "method=dymo"], 139, 4),
        (["backbone=sdxl", "method=dymo"], 24, 1),
    ],
)
def test_rows_of_a_call_fit_the_device(options, gib, rows, monkeypatch):
    monkeypatch.setattr(calls, "torch_device", lambda name: torch.device("cpu" if name == "cpu" else "cuda"))
    monkeypatch.setattr(calls, "gb_of", lambda device: gib * calls.GIB)
    (job,) = jobs_of(parse(options))
    items = [Item(str(n), "a", "", 0, n, n) for n in range(100)]
    assert calls.calls_of(job.config, items).most == rows


def test_a_small_plan_has_calls_of_its_size_however_many_are_left_or_made_together(tmp_path, monkeypatch):
    predict, sizes = UNetBackbone.predict, set()

    def counted(self, z, *given, **named):
        sizes.add(len(z))
        return predict(self, z, *given, **named)

    monkeypatch.setattr(UNetBackbone, "predict", counted)
    few = ["prompts=shapes_single", "prompts.limit=3", "sampler.steps=2", "metrics=none", "run.gallery=false"]
    for together in (2, 3):
        options = [f"run.in_flight={together}", f"run.folder={tmp_path / str(together)}", "run.threads=1"]
        assert main([*few, *options]) == 0
    assert sizes == {3}
    assert files(tmp_path / "2") == files(tmp_path / "3")
