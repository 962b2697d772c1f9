"""Diversity, size of latents and what was optimised, from the command that draws to the report."""

import math

import pandas
import pytest

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.config.places import group_choices
from align.runner.rows import optimised
from align.store.csvfile import read_csv

FEW = ["prompts.limit=2", "samples=2", "sampler.steps=3", "run.gallery=false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Plain sampling and best of two on the shapes world, two pictures of two prompts each."""
    root = tmp_path_factory.mktemp("runs")
    best = ["method=best_of_n", "method.particles=2"]
    for name, method in (("none", ["method=none"]), ("best", best)):
        assert main([*method, *FEW, f"run.folder={root / name}"]) == 0
    return root


def test_latent_norms_are_columns(runs):
    rows = read_csv(runs / "none" / "results.csv")
    assert rows["info_latent_norm"].between(0.2, 3).all()
    assert rows["info_latent_norm"].nunique() == 4


def test_the_report_measures_diversity_and_drift(runs, tmp_path, capsys):
    assert main(["report", str(runs), "--diversity", "--out", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "optimised shapes_pick; did not optimise checker, shapes_aesthetic, shapes_hps" in text
    drift = pandas.read_csv(tmp_path / "drift.csv").set_index("arm")
    assert drift.loc["best_of_n", "pairs"] == 4
    assert drift.loc["best_of_n", "size"] >= abs(drift.loc["best_of_n", "difference"])
    figures = pandas.read_csv(tmp_path / "diversity.csv").set_index(["arm", "of", "value"])
    assert set(figures["features"]) == {"shapes_pick"}  # A shipped model under its own name, not CLIP's.
    within = figures.loc[("none", "prompt", "distance")]
    assert within["low"] <= within["mean"] <= within["high"]
    assert 0 < within["mean"] < 2
    assert 0 < figures.loc[("none", "run", "distance"), "mean"] < 2
    assert figures.loc[("none", "prompt", "entropy"), "dimensions"] == 1
    assert figures.loc[("none", "run", "entropy"), "dimensions"] == 3


def test_what_a_model_was_trained_for_is_marked_as_what_a_method_follows():
    """Labels decide no picture."""

    def config_of(*words):
        return jobs_of(parse([*words, "run.folder=x"]))[0].config

    assert optimised(config_of("backbone=shapes_alignprop", "method=none")) == ["shapes_hps"]
    both = config_of("backbone=shapes_spo", "method=best_of_n")
    assert optimised(both) == ["shapes_pick", "shapes_spm"]
    with pytest.raises(ConfigError, match=r"backbone.trained_for\[0\].*did you mean shapes_hps"):
        config_of("backbone.trained_for=[shapes_hpz]")


def test_traces_have_a_number_a_step(tmp_path):
    """Also of a method that selects at some steps only, so that methods can be drawn over each other."""
    fk = ["method=fk", "method.particles=2", "sampler=ddim_ancestral"]
    assert main([*fk, *FEW, "sampler.steps=5", f"run.folder={tmp_path}"]) == 0
    rows = read_csv(tmp_path / "results.csv")
    for cell in rows["info_ess"]:
        figures = [float(word) for word in cell.split()]
        assert len(figures) == 5
        told = [figure for figure in figures if not math.isnan(figure)]
        assert 0 < len(told) < 5
        assert all(1 <= figure <= 2 for figure in told)


@pytest.mark.parametrize("method", group_choices("method"))
def test_every_method_says_what_it_optimises(method):
    """So that tables can mark it, and tell it from the rewards that are evidence."""
    (job,) = jobs_of(parse([f"method={method}", "sampler=ddim_ancestral"]))
    assert job.config.method.uses_reward == (method != "none")
