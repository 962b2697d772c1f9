"""Traces of steps, drift of latents, and what a method did not optimise, in a report."""

import math

import numpy
import pandas
import pytest
from pages.helpers import tables
from pages.test_report import BASE, run

from align.analysis.comparison import compare
from align.analysis.summary import summary
from align.analysis.traces import trace_columns
from align.commands.report import main
from align.pages.document import markdown
from align.pages.report import document
from align.store.csvfile import read_csv


def smc(folder, traces):
    """A run of two prompts with a trace each."""
    made = run(folder, "das", {"p0": (1.0,), "p1": (2.0,)}, info_ess="?", info_other=3.0, info_note="a b")
    text = (made / "results.csv").read_text()
    for trace in traces:
        text = text.replace("?", trace, 1)
    (made / "results.csv").write_text(text)
    return made


def test_traces_are_means_by_step(tmp_path):
    base = run(tmp_path / "a", "none", BASE)
    folder = smc(tmp_path / "b", ["4 2 nan 1e+01", "2 3"])
    rows = read_csv(folder / "results.csv")
    assert trace_columns(rows) == ["info_ess"]
    found = compare([base, folder]).traces
    assert set(found["arm"]) == {"das"}
    assert set(found["trace"]) == {"ess"}
    assert found["step"].tolist() == [1, 2, 3, 4]
    assert found["pictures"].tolist() == [2, 2, 0, 1]
    numpy.testing.assert_equal(found["mean"].tolist(), [3.0, 2.5, math.nan, 10.0])
    assert found["low"][0] == pytest.approx(2.2)
    assert found["high"][0] == pytest.approx(3.8)


def test_of_the_values_of_candidates_the_best_so_far_is_told(tmp_path):
    folder = run(tmp_path, "noise_search", {"p0": (1.0,), "p1": (2.0,)}, info_values="?")
    text = (folder / "results.csv").read_text()
    for values in ("1 3 nan 2", "nan 1 5 4"):
        text = text.replace("?", values, 1)
    (folder / "results.csv").write_text(text)
    found = compare([folder]).traces
    numpy.testing.assert_equal(found["mean"].tolist(), [1.0, 2.0, 4.0, 4.0])


def test_tables_do_not_take_traces_for_numbers(tmp_path):
    folder = smc(tmp_path, ["4 2 1", "2 3 2"])
    rows = read_csv(folder / "results.csv")
    assert rows["info_ess"].tolist() == ["4 2 1", "2 3 2"]
    assert not [name for name in summary(rows) if "ess" in name]
    (made,) = compare([folder]).summary.to_dict("records")
    assert made["clip"] == 1.5
    assert not [name for name in made if "info" in name]


def test_traces_are_drawn_beside_the_report(tmp_path, capsys):
    base = run(tmp_path / "a", "none", BASE)
    folder = smc(tmp_path / "b", ["4 2 1", "2 3 2"])
    out = tmp_path / "out"
    for _ in range(2):
        assert main([str(base), str(folder), "--out", str(out)]) == 0
        drawn = (out / "traces.svg").read_bytes()
    assert b"effective sample size" in drawn
    assert b">das<" in drawn
    assert str(out / "traces.svg") in capsys.readouterr().out
    assert "![](traces.svg)" in (out / "report.md").read_text()
    assert len(pandas.read_csv(out / "traces.csv")) == 3
    assert main([str(base), str(folder), "--out", str(out)]) == 0
    assert (out / "traces.svg").read_bytes() == drawn
    assert main([str(base), "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "traces.svg").exists()


def test_drift_is_paired(tmp_path):
    base = run(tmp_path / "a", "none", BASE, info_latent_norm=1.0)
    other = run(tmp_path / "b", "dymo", BASE, info_latent_norm=0.75)
    silent = run(tmp_path / "c", "old", BASE)
    made = compare([base, other, silent])
    drift = made.drift.set_index("arm")
    assert drift.index.tolist() == ["none", "dymo"]
    assert drift.loc["dymo", ["norm", "difference", "difference_high", "size"]].tolist() == [
        0.75,
        -0.25,
        -0.25,
        0.25,
    ]
    assert drift.loc["dymo", "pairs"] == 6
    assert math.isnan(drift.loc["none", "difference"])
    assert "| −0.250 [−0.250, −0.250] |" in markdown(document(made)).replace("\\", "")
    # A size is no quality: nothing is won by more of it.
    assert "info_latent_norm" not in set(made.pairs["value"])


def test_what_was_not_optimised_is_named(tmp_path):
    base = run(tmp_path / "a", "none", BASE, hps=0.5, check_all=True)
    best = run(tmp_path / "b", "best_of_n", BASE, hps=0.5, check_all=True, optimised=["clip"])
    svdd = run(tmp_path / "c", "svdd", BASE, hps=0.5, check_all=True, optimised=["clip"])
    made = compare([base, best, svdd])
    assert made.notes == ["best_of_n, svdd: optimised clip; did not optimise checker, hps"]
    quality = tables(made)["Quality (mean, 95% interval)"]
    assert {name: "*" in quality[name]["svdd"] for name in ("clip", "hps", "check_all")} == {
        "clip": True,
        "hps": False,
        "check_all": False,
    }


def test_missing_evidence_is_named(tmp_path):
    base = run(tmp_path / "a", "none", BASE)
    blind = run(tmp_path / "b", "best_of_n", BASE, optimised=["jpeg"])
    own = run(tmp_path / "c", "dymo", BASE, optimised=["clip"])
    assert compare([base, blind, own]).notes == [
        "best_of_n: optimised jpeg, not measured: give it to metrics.rewards",
        "best_of_n: optimised jpeg; did not optimise clip",
        "dymo: optimised clip; nothing else was measured: no independent evidence",
    ]
