"""Paper and ours side by side: every row of the paper, differences in both, and whether the baselines agree."""

import json
from dataclasses import replace

import pandas
import pytest
from pages.helpers import tables
from pages.test_report import BASE, run

from align.__main__ import main as align
from align.analysis.comparison import compare
from align.analysis.paper_numbers import load_paper
from align.commands.report import main
from align.pages.document import markdown
from align.pages.report import document
from align.store.errors import ReportError
from align.store.table_plan import FileRow, TableFile, read_table

PAPER = load_paper("dymo").of_table(1)
RUN = {"SD V1.5": "plain", "FreeDom": "freedom", "DyMO (SD V1.5+Ours)": "dymo"}


def table(folder, scale="full", run_rows=RUN):
    """The folder of Table 1 with runs of some of its rows beside it."""
    rows = []
    for number, row in enumerate(PAPER):
        key = RUN.get(row.method, f"row{number}")
        there = row.method in run_rows
        place, why = (f"../runs/{key}", "") if there else (None, "there is <b>none</b>")
        rows.append(FileRow(key, row.method, row.method, 1, place, why, ""))
    file = TableFile("dymo_table1", "dymo", 1, "Other methods", scale, "plain", tuple(rows))
    file.write(folder / "table1")
    assert read_table(folder / "table1") == file
    return folder / "table1"


def full(folder, plain=20.73, freedom=21.0, dymo=23.0):
    """Runs with the real metrics, constant over pictures."""
    for key, pick in {"plain": plain, "freedom": freedom, "dymo": dymo}.items():
        rest = {"hpsv2": 0.2341, "imagereward": 0.1697, "aesthetic": 5.337, "seconds": 2.0}
        run(folder / "runs" / key, key, BASE, pickscore=pick, optimised=["hpsv2"] * (key == "dymo"), **rest)
    return table(folder)


def toys(folder):
    """Runs of the shapes world."""
    for place, key in enumerate(("plain", "freedom", "dymo")):
        names = ("shapes_pick", "shapes_hps", "shapes_imagereward", "shapes_aesthetic")
        run(folder / "runs" / key, key, BASE, **dict.fromkeys(names, 1.0 + place), check_all=True)
    return table(folder, "shapes")


def test_every_row_of_the_paper_is_there_with_its_numbers(tmp_path):
    made = compare([full(tmp_path)])
    values, differences, *_ = tables(made).values()
    assert list(values) == list(differences) == [row.method for row in PAPER]
    assert values["DNO"]["PickScore, paper"] == "20.05"
    assert values["DNO"]["pickscore, ours"] == "not run"
    assert values["PromptOpt"]["HPSv2, paper"] == "0.2490"
    assert values["Diffusion-DPO"]["HPSv2, paper"] == "0.2656†"
    assert tables(made)["Rows that are not run"]["SPO"] == {"why": "there is <b>none</b>"}
    assert "† Diffusion-DPO: row garbled" in markdown(document(made))


def test_differences_to_the_baseline_in_both(tmp_path):
    differences = list(tables(compare([full(tmp_path)])).values())[1]
    assert differences["FreeDom"]["PickScore, paper"] == "+1.23"
    assert differences["FreeDom"]["pickscore, ours"] == "+0.270 [+0.270, +0.270]"
    assert differences["SD V1.5"]["pickscore, ours"] == "baseline"
    # What the method optimised itself is marked.
    assert differences["DyMO (SD V1.5+Ours)"]["hpsv2, ours"].startswith("0*")
    assert not differences["FreeDom"]["hpsv2, ours"].startswith("0*")


def test_the_line_above_says_whether_the_baselines_agree(tmp_path):
    (_, line, _) = document(compare([full(tmp_path / "a")])).lead
    assert line.startswith("Our baseline agrees with the paper's (SD V1.5): its 4 means")
    made = compare([full(tmp_path / "b", plain=21.5)])
    (_, line, _) = document(made).lead
    assert line.startswith(
        "Our baseline is not the paper's (SD V1.5): PickScore 21.50 [21.50, 21.50] against 20.73 (+0.770)."
    )
    text = markdown(document(made))
    assert text.index("is not the paper's") < text.index("## Table 1")


def test_toy_rewards_never_stand_under_a_real_metrics_name(tmp_path):
    made = compare([toys(tmp_path)])
    assert "not comparable" in document(made).lead[1]
    values = next(iter(tables(made).values()))
    names = {name for cells in values.values() for name in cells}
    ours = {name.removesuffix(", ours") for name in names if name.endswith(", ours")}
    assert ours == {"shapes_pick", "shapes_hps", "shapes_imagereward", "shapes_aesthetic", "check_all"}
    frame = made.beside_paper()
    assert set(frame["column"]) == ours
    assert frame[frame["column"] == "check_all"]["paper"].isna().all()


def test_agreement_counts_signs_and_order(tmp_path):
    made = compare([full(tmp_path, freedom=21.0, dymo=20.0)])
    # In the paper both gain and DyMO is above FreeDoM: of three pairs of rows one has the paper's order.
    assert tables(made)["Agreement of the differences"]["PickScore"] == {
        "same sign": "1 of 2 rows",
        "interval without zero": "1 of these",
        "same order": "1 of 3 pairs of rows",
    }


def test_another_row_can_be_the_baseline(tmp_path):
    made = compare([full(tmp_path)], baseline="freedom")
    values, differences, *_ = tables(made).values()
    assert next(iter(values)) == "FreeDom"
    assert differences["SD V1.5"]["PickScore, paper"] == "−1.23"
    with pytest.raises(ReportError, match="baseline 'x' is no row of dymo_table1: choose from plain, row1"):
        compare([tmp_path / "table1"], baseline="x")


def test_times_stand_beside_the_papers(tmp_path):
    for key in ("plain", "fixed"):
        run(tmp_path / "runs" / key, key, BASE, seconds=3.0)
    rows = (
        FileRow("plain", "SD V1.5", "SD V1.5", 1, "../runs/plain", "", ""),
        FileRow("fixed", "fixed 5 iterations", "fixed 5 iterations", 4, "../runs/fixed", "", "by hand"),
        FileRow("ours", "ours alone", None, 4, None, "not yet", ""),
    )
    TableFile("t", "dymo", 4, "Time travel", "full", "plain", rows).write(tmp_path / "t")
    made = compare([tmp_path / "t"])
    (costs,) = [cells for title, cells in tables(made).items() if title.startswith("Cost")]
    assert {name: cells["fixed 5 iterations"] for name, cells in costs.items()} == {
        "seconds": "3 (1×)",
        "seconds, paper": "170",
    }
    assert "SD V1.5" not in costs["seconds, paper"]
    assert "fixed 5 iterations: by hand" in document(made).notes


def test_the_command_writes_every_format(tmp_path, capsys):
    folder = full(tmp_path)
    assert main([str(folder), "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "Our baseline agrees" in printed
    assert str(folder / "report.html") in printed
    frame = pandas.read_csv(folder / "table.csv")
    assert len(frame) == len(PAPER) * 4
    pages = {name: (folder / name).read_text() for name in ("report.md", "report.tex", "report.html")}
    for text in pages.values():
        assert all(row.method.partition("(")[0] in text for row in PAPER)
        assert "20.05" in text
        assert "not run" in text
    assert "<b>none" not in pages["report.html"]
    assert "&lt;b&gt;none" in pages["report.html"]
    assert pages["report.html"].count("data:image/svg+xml;base64,") == 2


def test_a_folder_that_is_no_table(tmp_path, capsys):
    folder = table(tmp_path, run_rows=())
    with pytest.raises(ReportError, match="no row of dymo_table1 has results yet"):
        compare([folder])
    good = json.loads((folder / "table.json").read_text())
    (first, *rows) = good["rows"]
    wrong = [good | {"title": 7}, good | {"rows": [first | {"folder": 7}, *rows]}]
    for text in ("{", "[]", json.dumps({"format": 9}), *map(json.dumps, wrong)):
        (folder / "table.json").write_text(text)
        assert align(["report", str(folder)]) == 2
        assert "table.json is damaged" in capsys.readouterr().err
    (tmp_path / "secret.csv").write_text("# citation\nsecret")
    (folder / "table.json").write_text(json.dumps(good | {"paper": str(tmp_path / "secret")}))
    with pytest.raises(ReportError, match="no numbers of a paper"):
        compare([folder])


def test_a_trained_row_tells_from_how_many_pictures_on_it_is_cheaper(tmp_path):
    folder = toys(tmp_path)
    file = read_table(folder)
    rows = [replace(row, training=1000) if row.key == "freedom" else row for row in file.rows]
    replace(file, rows=tuple(rows)).write(folder)
    made = compare([folder])
    costs = {
        ("FreeDom", "network_forward"): 25.0,
        ("DyMO (SD V1.5+Ours)", "network_forward"): 25.0,
        ("DyMO (SD V1.5+Ours)", "network_backward"): 25.0,
    }
    table_of_costs = [(*key, mean, 1.0) for key, mean in costs.items()]
    made = replace(made, costs=pandas.DataFrame(table_of_costs, columns=["arm", "cost", "mean", "ratio"]))
    found = tables(made)["Training in place of guidance"]
    assert list(found) == ["FreeDom in place of DyMO (SD V1.5+Ours)"]
    cells = found["FreeDom in place of DyMO (SD V1.5+Ours)"]
    assert cells["cheaper from"] == "40 pictures"
    assert cells["shapes_pick, gain of training"].startswith("+1")
    assert cells["shapes_pick, gain of guidance"].startswith("+2")
