"""The page of the toy problems says what was measured."""

import json
from pathlib import Path

import pytest
import torch

from scripts.toys.measure import PROBLEMS, drawn, emd, exact, figures, jobs
from scripts.toys.page import evidence_table, published, tables
from scripts.toys.runs import ensemble, sampler_of

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pages_tables_are_those_of_the_kept_results():
    results = json.loads((DOCS / "toy.json").read_text())
    assert {"/".join(key) for key in jobs(PROBLEMS)} == set(results)
    page = (DOCS / "toy.md").read_text()
    assert tables(results, DOCS / "toy_published.csv") in page
    assert evidence_table(results) in page


def test_published_cells_tell_what_is_second_hand():
    source = DOCS / "toy_published.csv"
    assert published(source, "gmm", "DAS (SMC)") == "−0.21, EMD 0.82†"
    assert published(source, "gmm2", "approximate guidance") == "−406.79"
    assert published(source, "gaussian", "pretrained") == ""


def test_earth_movers_distance():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    assert emd(points, points[[2, 0, 1]]) == 0
    assert emd(points, points + torch.tensor([0.0, 2.0])) == pytest.approx(2)
    assert emd(points, torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 3.0]])) == pytest.approx(1)


def test_a_run_is_told_by_what_it_returns():
    """best_of_n: one particle of each run, the one of the highest reward; cost and errors follow."""
    sampler = sampler_of("gaussian", "method=best_of_n", "method.particles=4", "sampler.steps=5", rows=40)
    found = ensemble(sampler, "gaussian", 10)
    assert found.shares.sum(dim=1).tolist() == [1] * 10
    reward = found.x[..., 0] - found.x[..., 1] / 2
    row = figures("gaussian", found, {"reward": 2.0, "z": 1.0, "mean": [0.0, 0.0]})
    assert row["reward"] == pytest.approx(float(reward.amax(dim=1).mean()))
    assert (row["forward"], row["backward"]) == (20, 0)
    best = found.x[torch.arange(10), reward.argmax(dim=1)]
    assert row["l1"] == pytest.approx(float(best.mean(dim=0).abs().sum()))
    points = drawn(found, 2, seed=0)
    torch.testing.assert_close(points, best.repeat_interleave(2, dim=0))


@pytest.mark.slow
def test_the_chains_figures_of_the_gaussian():
    truth = exact("gaussian")
    assert truth["z"] == pytest.approx(8.722445, rel=1e-6)
    assert truth["mean"] == pytest.approx([1.265581, -2.132694], abs=1e-5)
    assert truth["continuous_reward"] == pytest.approx(2.375)
