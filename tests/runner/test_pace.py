"""How many pictures are made between two commits, and in calls of how many rows."""

import pytest

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import prepare
from align.runner.pace import Pace


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


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["backbone=shapes", "method=dymo"], 8),
        (["backbone=toy_gmm"], 8),
        (["backbone=sd15", "run.device=cpu"], 1),
        (["backbone=sdxl", "method=dymo", "run.device=cuda"], 1),
        (["backbone=sd15", "run.device=cuda"], 4),
        (["backbone=sd15", "method=svdd", "run.device=cuda", "sampler=ddim_ancestral"], 4),
        (["backbone=sdxl", "method=dymo", "run.device=cuda", "run.batch_size=3"], 3),
    ],
)
def test_rows_of_a_call_go_by_what_the_run_is(options, rows):
    (job,) = jobs_of(parse(options))
    assert prepare.with_batch_size(job.config).run.batch_size == rows
