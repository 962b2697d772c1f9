"""A comparison at equal cost: any backbone, methods that find their own numbers for a budget, differences to best-of-N."""

import pytest

from align.__main__ import main
from align.config.errors import ConfigError
from align.pages.plots import plot_tradeoff
from align.runner.paper_rows import Choice, resolve
from align.store.csvfile import read_csv
from align.store.table_plan import read_table

SHAPES = ("backbone=shapes", "budget.calls=40")


def rows(*options, **more):
    (table,) = resolve(["compare"], Choice(options=options or SHAPES, **more))
    return {row.key: row for row in table.rows}


def test_any_backbone_has_the_rows_with_noise_where_a_method_needs_it():
    found = rows("backbone=shapes_flow", "reward=shapes_hps", "budget.calls=200")
    assert list(found) == ["none", "best_of_n", "svdd", "fk", "local_search"]
    assert {row.config.backbone.name for row in found.values()} == {"shapes_flow"}
    assert {row.config.reward.name for row in found.values()} == {"shapes_hps"}
    noisy = [key for key, row in found.items() if not row.config.sampler.deterministic]
    assert noisy == ["svdd", "fk"]


def test_a_row_that_the_backbone_cannot_have_says_why_and_the_others_run():
    found = rows("backbone=shapes_turbo", "budget.calls=16")
    assert [key for key, row in found.items() if row.config is None] == ["none"]
    assert "sampler.timesteps" in found["none"].why_not
    own = {"none": ("budget.calls=null",)}
    assert rows("backbone=shapes_turbo", "budget.calls=16", own=own)["none"].config.sampler.steps == 4
    with pytest.raises(ConfigError, match=r"sampler.timesteps"):
        rows("backbone=shapes_turbo", "budget.calls=16", only=("none",))
    with pytest.raises(ConfigError, match=r"did you mean sampler.steps"):
        rows("sampler.stepz=2")


def test_a_row_has_options_of_its_own():
    own = {"best_of_n": ("sampler.steps=7", "sampler.eta=0")}
    found = rows(*SHAPES, "sampler.steps=10", own=own)
    assert (found["best_of_n"].config.sampler.steps, found["svdd"].config.sampler.steps) == (7, 10)
    assert found["best_of_n"].config.sampler.deterministic


def test_another_budget_is_other_runs_and_another_page():
    def places(*options):
        (table,) = resolve(["compare"], Choice(options=("backbone=shapes", *options)))
        return table, {table.folder, *(row.config.run.folder for row in table.rows)}

    counted, calls = places("budget.calls=40")
    timed, seconds = places("budget.seconds=2")
    assert len(calls | seconds) == 12
    assert counted.title == "Methods against best-of-N: shapes, shapes_demo, 40 calls a picture"
    assert timed.title.endswith("2 seconds a picture")
    assert counted.folder.as_posix() == "outputs/compare/shapes-compare-shapes_demo-seed0-calls=40"


def test_any_method_is_a_row_when_it_is_asked_for():
    found = rows(only=("best_of_n", "dymo"))
    assert [key for key, row in found.items() if row.chosen] == ["best_of_n", "dymo"]
    assert found["dymo"].config.method.name == "dymo"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(options=("method=das",)), "the rows of a table choose method"),
        (Choice(only=("dimo",)), "there is no row 'dimo'"),
        (Choice("shapes"), "has no --scale shapes: leave it out, and give backbone=shapes"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(choice, message):
    with pytest.raises(ConfigError, match=message):
        resolve(["compare"], choice)


def test_seconds_are_measured_alone(tmp_path, capsys):
    command = ["table", "compare", "backbone=shapes", "budget.seconds=2", f"run.root={tmp_path}"]
    assert main([*command, "--jobs", "2"]) == 2
    assert "measured while nothing else runs: leave --jobs out" in capsys.readouterr().err
    assert main([*command, "--plan"]) == 0
    assert capsys.readouterr().out.count("2 seconds a picture: measured before the first one") == 5


def test_a_plan_without_files_says_when_it_is_known(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["table", "compare", "backbone=flux_dev", "budget.calls=200", "--only", "fk", "--plan"]) == 0
    assert "200 calls a picture: told once the backbone's files are there" in capsys.readouterr().out


def test_one_command_from_an_empty_folder_to_the_page(tmp_path, capsys):
    small = ("prompts=shapes_pair", "prompts.limit=2", "sampler.steps=2", "budget.calls=6", "run.threads=1")
    measured = "metrics.rewards=[shapes_pick,shapes_hps]"
    options = ("backbone=shapes", *small, measured, f"run.root={tmp_path}")
    assert main(["table", "compare", *options, "--only", "best_of_n,svdd"]) == 0
    said = capsys.readouterr().out
    assert "6 calls a picture: method.particles=3 sampler.steps=2, which takes 6" in said
    assert "Paired difference to best_of_n" in said
    (folder,) = tmp_path.glob("shapes-compare-*")
    page = (folder / "report.html").read_text()
    for words in (
        "Methods against best-of-N: shapes, shapes_pair, 6 calls a picture",
        "Baseline: best_of_n.",
        "below each its difference to the baseline",
        "* the method optimised this itself",
        "did not optimise checker, shapes_hps",
        "method.search.candidates=5 sampler.steps=2 for 6 calls",
        "not chosen: --only names other rows",
    ):
        assert words in page
    costs = read_csv(folder / "costs.csv").to_dict("records")
    assert {row["arm"]: row["mean"] for row in costs if row["cost"] == "network_forward"} == {
        "best_of_n": 6,
        "svdd": 6,
    }
    assert read_table(folder).baseline == "best_of_n"


def test_what_costs_the_same_stands_side_by_side(tmp_path):
    import pandas

    gains = [
        {"arm": arm, "value": "clip", "difference": 0.1, "low": 0.0, "high": 0.2, "optimised": False}
        for arm in "ab"
    ]
    for spent, told in ((40, "37 to 40 passes"), (80, ">passes through")):
        costs = [
            {"arm": arm, "cost": "network_forward", "mean": n} for arm, n in {"a": 37, "b": spent}.items()
        ]
        plot_tradeoff(pandas.DataFrame(gains), pandas.DataFrame(costs), ["clip"], tmp_path / "gain.svg")
        assert told in (tmp_path / "gain.svg").read_text()
