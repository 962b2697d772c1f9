"""Published tables: every row of the paper is run or says why not, equal runs are made once, and the report follows."""

from pathlib import Path

import pytest
from rich.console import Console

from align.__main__ import main
from align.analysis.paper_numbers import load_paper
from align.config.errors import ConfigError
from align.config.places import conf_folder
from align.runner.children import Children
from align.runner.paper_rows import Choice, resolve
from align.runner.paper_runs import longest_first, plan_text, runs_of
from align.store.table_plan import read_table

TABLES = ("dymo_table1", "dymo_table2", "dymo_table3", "dymo_table4")


@pytest.fixture(scope="module", params=["shapes", pytest.param("full", marks=pytest.mark.slow)])
def tables(request):
    return resolve(TABLES, Choice(request.param))


@pytest.fixture(scope="module")
def toys():
    return {table.name: {row.key: row for row in table.rows} for table in resolve(TABLES, Choice("shapes"))}


def test_every_row_of_the_paper_is_in_its_table(tables):
    for number, table in enumerate(tables, 1):
        paper = [row.method for row in load_paper("dymo").of_table(number)]
        ours = [row.row.paper for row in table.rows if row.row.paper and row.row.of_table is None]
        assert ours == paper
        assert table.table.number == number
        assert len({row.label for row in table.rows}) == len(table.rows)


def test_every_row_is_run_or_says_why_not(tables):
    for table in tables:
        for row in table.rows:
            assert (row.config is None) == bool(row.why_not), row.key
            assert (row.config is not None) == row.chosen
        assert {row.key: row.config for row in table.rows}["plain"].method.name == "none"


def test_rows_of_other_tables_have_numbers_there(tables):
    for table in tables:
        for row in table.rows:
            if row.row.paper:
                assert load_paper("dymo").row(row.row.of_table or table.table.number, row.row.paper)


def test_what_cannot_be_run_is_not(tables):
    first, second, third, _ = ({row.key: row for row in table.rows} for table in tables)
    toy = tables[0].scale == "shapes"
    for row in (first["alignprop"], third["llama"], third["gpt4"]):
        assert (row.config is None) == (not toy), row.key
    if toy:
        assert third["llama"].config.semantics.source == "rules"
        assert third["gpt4"].config == third["dymo"].config
    for table in (first, second):
        assert [table[key].config.method.name for key in ("dno", "promptopt")] == ["dno", "promptopt"]
    for key in ("dpo", "kto", "spo"):
        assert first[key].config.backbone.name == (f"shapes_{key}" if toy else f"{key}_sd15")
    for key, name in (("sd35", "sd35_medium"), ("flux", "flux_dev")):
        assert second[key].config.backbone.name == ("shapes_flow" if toy else name)
    assert second["dymo_spo"].config.backbone.name == ("shapes_spo" if toy else "spo_sdxl")
    assert second["dymo_spo"].config.method.name == "dymo"


def test_equal_runs_are_one(tables):
    by_name = {table.name: {row.key: row.config for row in table.rows} for table in tables}
    full = tables[0].scale == "full"
    dymo = {
        by_name["dymo_table1"]["dymo"].run.folder,
        by_name["dymo_table3"]["dymo"].run.folder,
        by_name["dymo_table4"]["dynamic" if full else "fixed_1"].run.folder,
    }
    assert len(dymo) == 1
    assert len({by_name[name]["plain"].run.folder for name in TABLES}) == (2 if full else 1)
    assert len(runs_of(tables)) == (27 if full else 21)


def test_the_rows_change_what_they_say(toys):
    third, fourth = toys["dymo_table3"], toys["dymo_table4"]
    whole = third["dymo"].config.method
    assert third["no_semantic"].config.method.objective.semantic == 0 < whole.objective.semantic
    assert third["no_preference"].config.method.objective.preference == 0 < whole.objective.preference
    assert not third["no_weights"].config.method.objective.dynamic
    assert (third["no_polyak"].config.method.guidance.rule, whole.guidance.rule) == ("constant", "correction")
    assert (third["pickscore"].config.reward.name, third["dymo"].config.reward.name) == (
        "shapes_pick",
        "shapes_spm",
    )
    rounds = {key: row.config.method.recurrence for key, row in fourth.items() if key != "plain"}
    assert {key: (one.rule, max(one.rounds)) for key, one in rounds.items()} == {
        "fixed_1": ("none", 0),
        "fixed_5": ("fixed", 4),
        "fixed_10": ("fixed", 9),
        "dynamic": ("gradient_norm", 0),
    }
    assert min(one.cap for key, one in rounds.items() if key != "fixed_1") == 9


def test_more_prompts_go_on_in_the_same_folder_and_another_seed_does_not(toys):
    def folder(*options):
        (table,) = resolve(["dymo_table4"], Choice("shapes", options))
        return table.rows[1].config.run.folder

    known = toys["dymo_table4"]["fixed_1"].config.run.folder
    assert folder("prompts.limit=4", "run.batch_size=2") == known
    other = folder("seed=1", "run.root=elsewhere")
    assert other.startswith("elsewhere/runs/")
    assert Path(other).name != Path(known).name
    assert folder("sampler.steps=3") != known


def test_what_the_user_brings_makes_a_row_run():
    def rows(**more):
        return {row.key: row for row in resolve(["dymo_table1"], Choice(**more))[0].rows}

    own = {"alignprop": ("backbone.lora=mine.safetensors",)}
    assert rows(own=own)["alignprop"].config.backbone.lora == "mine.safetensors"
    assert rows(own=own)["plain"].config.backbone.lora is None
    assert rows(scale="shapes")["alignprop"].config.backbone.lora == "shapes_alignprop"
    chosen = rows(only=("plain",))
    assert [key for key, row in chosen.items() if row.chosen] == ["plain"]
    assert chosen["dymo"].why_not == "not chosen: --only names other rows"


@pytest.mark.parametrize(
    ("names", "choice", "message"),
    [
        (["dymo_table9"], Choice(), "no such table; did you mean dymo_table1"),
        (["shapes_pair"], Choice(), "shapes_pair is no table"),
        (["dymo_table4"], Choice(only=("fixd_5",)), "there is no row 'fixd_5'; did you mean fixed_5"),
        (["dymo_table4"], Choice(own={"x": ("seed=1",)}), "there is no row 'x'"),
        (["dymo_table4"], Choice(options=("method=das",)), "the rows of a table choose method"),
        (["dymo_table4"], Choice("shapes", ("sampler.stepz=1",)), "did you mean sampler.steps"),
    ],
)
def test_wrong_names_are_one_line(names, choice, message):
    with pytest.raises(ConfigError, match=message):
        resolve(names, choice)


def test_the_plan_names_every_row(tables):
    text = plan_text(tables, runs_of(tables))
    for table in tables:
        for row in table.rows:
            assert row.label in text
    toy = tables[0].scale == "shapes"
    assert ("AlignProp: not run: no checkpoint is published" in text) == (not toy)


@pytest.mark.parametrize("name", TABLES)
def test_headers_tell_source_cost_and_command(name):
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text()
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    for part in (
        f"python -m align table {name}",
        "arXiv 2412.00759",
        "Network evaluations of a picture",
        "H200",
    ):
        assert part in header


def test_several_runs_at_a_time(tmp_path):
    console = Console(record=True, width=200)
    commands = {str(tmp_path / "good"): ["--help"], str(tmp_path / "bad"): ["method=nothing"]}
    assert Children(console).run(commands, 2) == 2
    text = console.export_text()
    assert "bad" in text
    assert "exit 2, align: method=nothing: there is no such method" in text
    assert "good" in text


def test_of_several_at_a_time_the_longest_starts_first(toys):
    fourth = toys["dymo_table4"]
    folders = {key: str(row.config.run.folder) for key, row in fourth.items()}
    runs = {folders[key]: fourth[key] for key in ("plain", "fixed_1", "fixed_5", "fixed_10")}
    assert longest_first(runs) == [folders[key] for key in ("fixed_10", "fixed_5", "fixed_1", "plain")]


def test_what_was_stopped_does_not_start(tmp_path):
    children = Children(Console(quiet=True))
    children.stop()
    assert children.run({str(tmp_path): ["method=nothing"]}, 1) == 130


def test_an_interruption_says_what_is_waited_for(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Children, "_one", interrupted)
    console = Console(record=True, width=200)
    assert Children(console).run({str(tmp_path): ["--help"]}, 1) == 130
    assert console.export_text() == "interrupted; what is under way ends after its commit\n"


@pytest.mark.slow
def test_a_table_from_the_command_line(tmp_path, capsys):
    small = [
        "prompts.limit=2",
        "sampler.steps=2",
        "run.batch_size=2",
        f"run.root={tmp_path}",
        "run.threads=1",
    ]
    command = ["table", "dymo_table4", "--scale", "shapes", *small]
    assert main([*command, "--only", "plain"]) == 0
    folder = tmp_path / "dymo_table4"
    for page in ("report.html", "report.md", "report.tex", "gallery.html", "table.csv"):
        assert (folder / page).is_file()
    assert "not comparable" in capsys.readouterr().out
    # Another command adds a row; the one that is there already stays in the table.
    assert main([*command, "--only", "fixed_1"]) == 0
    rows = {row.key: row for row in read_table(folder).rows}
    assert [key for key, row in rows.items() if row.folder] == ["plain", "fixed_1"]
    assert rows["dynamic"].why_not == "not chosen: --only names other rows"
    assert "fixed 1 iteration" in (folder / "report.md").read_text()
