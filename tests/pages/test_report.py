import hashlib
import json
import math

import numpy
import pandas
import pytest
from store.helpers import Item, make_png

from align.__main__ import main as align
from align.analysis import intervals
from align.analysis.arms import load_arms
from align.analysis.comparison import compare
from align.analysis.intervals import bootstrap
from align.analysis.paired import choose_baseline
from align.analysis.summary import summary
from align.commands.report import main
from align.pages.document import markdown
from align.pages.numbers import Estimate, line, number, with_interval
from align.pages.report import document, write_report
from align.store.columns import HEAD
from align.store.csvfile import read_csv
from align.store.errors import ReportError
from align.store.manifest import Manifest
from align.store.store import Store
from pages.helpers import tables


def run(folder, method, values, *, steps=25, optimised=(), seeds=(0, 1), **more):
    """A run with one metric; `values` by (prompt, seed), None is a failed row."""
    items, rows = [], []
    for prompt, by_seed in values.items():
        for seed, value in zip(seeds, by_seed, strict=False):
            text = json.dumps([method, steps, prompt, seed])
            items.append(Item(hashlib.sha256(text.encode()).hexdigest(), prompt, seed))
            rows.append({"clip": value} if value is not None else {"status": "failed: no"})
    manifest = Manifest({"method": {"name": method}, "steps": steps})
    with Store(folder, manifest, items) as store:
        for item, row in zip(items, rows, strict=True):
            known = {"prompt": item.prompt, "method": method, "optimised": list(optimised), **more}
            store.commit(item, make_png(item), known | row)
    return folder


BASE = {"p0": (1.0, 2.0), "p1": (3.0, 4.0), "p2": (5.0, 6.0)}


def test_constant_difference_has_no_width(tmp_path):
    base = run(tmp_path / "a", "none", BASE, network_forward=25)
    more = {prompt: tuple(value + 0.1 for value in values) for prompt, values in BASE.items()}
    better = run(tmp_path / "b", "dymo", more, network_forward=100, optimised=["clip"])
    made = compare([better, base])
    assert made.baseline == "none"
    (row,) = made.pairs.to_dict("records")
    assert (row["arm"], row["value"], row["pairs"], row["optimised"]) == ("dymo", "clip", 6, True)
    assert row["difference"] == pytest.approx(0.1)
    assert row["high"] - row["low"] == pytest.approx(0, abs=1e-12)
    assert (row["win_rate"], row["win_low"], row["win_high"], row["ties"]) == (1, 1, 1, 0)
    cost = made.costs.set_index(["arm", "cost"])
    assert cost.loc[("dymo", "network_forward")].tolist() == [100, 4]
    means = made.summary.set_index("label")["clip"]
    assert means["none"] == 3.5
    assert "+0.100* [+0.100, +0.100]" in markdown(document(made)).replace("\\", "")


def test_hand_computed_means_wins_and_ties(tmp_path):
    base = run(tmp_path / "a", "none", BASE)
    other = run(tmp_path / "b", "das", {"p0": (1.0, 4.0), "p1": (2.0, 4.0), "p2": (9.0, 6.0)})
    (row,) = compare([base, other]).pairs.to_dict("records")
    # differences 0 2 | -1 0 | 4 0: mean 5/6; wins 2, losses 1, ties 3
    assert row["difference"] == pytest.approx(5 / 6)
    assert row["ties"] == 3
    assert row["win_rate"] == pytest.approx((2 + 3 / 2) / 6)
    # by prompt the sums are 2, -1, 4 over two pictures each: the resampled mean is within -0.5 .. 2
    assert row["low"] == -0.5
    assert row["high"] == 2.0


def test_seeds_of_one_prompt_are_not_independent():
    generator = numpy.random.default_rng(3)
    prompt = numpy.repeat(generator.normal(size=30), 10)
    values = (prompt + 0.01 * generator.normal(size=300))[:, None]
    names = [str(number_) for number_ in numpy.repeat(numpy.arange(30), 10)]
    by_prompt = bootstrap(values, names)
    by_picture = bootstrap(values, range(300))
    expected = 1.96 * prompt[::10].std() / math.sqrt(30)
    assert by_prompt.high[0] - by_prompt.low[0] == pytest.approx(2 * expected, rel=0.1)
    assert by_picture.high[0] - by_picture.low[0] < 0.5 * expected * 2
    again = bootstrap(values, names)
    assert (again.low, again.high) == (by_prompt.low, by_prompt.high)


def test_with_very_many_prompts_the_interval_is_that_of_the_bootstrap_without_drawing(monkeypatch):
    draw = numpy.random.default_rng(3)
    values = draw.gamma(2.0, size=(3000, 2)) * [1, 100]
    values[draw.random((3000, 2)) < 0.1] = numpy.nan
    names = [f"prompt {number // 3}" for number in range(3000)]  # 1000 prompts
    drawn = bootstrap(values, names)
    monkeypatch.setattr(intervals, "MANY", 500)
    monkeypatch.setattr(intervals, "resampled", None)
    known = bootstrap(values, names)
    assert known.mean.tolist() == drawn.mean.tolist()
    width = drawn.high - drawn.low
    assert (abs(known.low - drawn.low) < 0.05 * width).all()
    assert (abs(known.high - drawn.high) < 0.05 * width).all()
    same = bootstrap(numpy.full((1000, 1), 0.1), range(1000))
    assert same.low == same.mean == same.high == 0.1


def test_missing_values_and_too_few_prompts():
    nan = float("nan")
    values = numpy.array([[1.0, nan, nan], [3.0, 2.0, nan], [nan, 4.0, nan]])
    interval = bootstrap(values, ["a", "a", "b"])
    assert interval.mean[:2].tolist() == [2.0, 3.0]
    assert math.isnan(interval.mean[2])
    assert interval.number.tolist() == [2, 2, 0]
    assert numpy.isnan(interval.low).tolist() == [True, False, True]
    assert bootstrap(numpy.empty((0, 2)), []).number.tolist() == [0, 0]


def test_rows_without_partner_are_counted(tmp_path):
    base = run(tmp_path / "a", "none", BASE)
    other = run(tmp_path / "b", "das", {"p0": (1.0, None), "p1": (2.0,), "px": (9.0, 6.0)})
    made = compare([base, other])
    assert made.pairs["pairs"].tolist() == [2]
    assert "das: 2 pairs; without a partner are 2 of its rows and 4 of none" in made.notes
    assert "das: 1 failed rows count for nothing" in made.notes
    assert "das: 2 pairs" in markdown(document(made))
    assert made.summary.set_index("label").loc["das", ["n", "failed"]].tolist() == [4, 1]


def test_labels_merging_and_baseline(tmp_path):
    first = run(tmp_path / "fast", "dymo", BASE, steps=10)
    second = run(tmp_path / "slow", "dymo", BASE, steps=50)
    arms, _ = load_arms([first, second])
    assert [arm.label for arm in arms] == ["dymo (fast)", "dymo (slow)"]
    assert choose_baseline(arms, None) is arms[0]
    assert choose_baseline(arms, "slow") is arms[1]
    assert choose_baseline(arms, str(second)) is arms[1]
    assert choose_baseline(arms, "dymo (slow)") is arms[1]
    with pytest.raises(ReportError, match=r"'dymo' is several of them: choose from dymo \(fast\), dymo"):
        choose_baseline(arms, "dymo")
    with pytest.raises(ReportError, match="is none of them"):
        choose_baseline(arms, "nothing")
    # the same configuration in two folders is one arm, and a row that is in both counts once
    third = run(tmp_path / "more", "dymo", {"p9": (1.0, 2.0), "p0": (1.0, 2.0)}, steps=10)
    arms, notes = load_arms([first, third])
    assert [(arm.label, len(arm.rows)) for arm in arms] == [("dymo", 8)]
    assert notes == ["dymo: 2 rows are there twice and count once"]


def test_labels_tell_what_default_folders_have_of_their_own(tmp_path):
    place = "shapes-best_of_n-shapes_pair-seed0-calls=40,steps="
    found = [run(tmp_path / f"{place}{steps}", "best_of_n", BASE, steps=steps) for steps in (10, 20)]
    assert [arm.label for arm in load_arms(found)[0]] == ["best_of_n (steps=10)", "best_of_n (steps=20)"]


def test_a_folder_of_runs(tmp_path):
    run(tmp_path / "sweep" / "a", "none", BASE)
    run(tmp_path / "sweep" / "b", "das", BASE)
    assert [arm.label for arm in compare([tmp_path / "sweep"]).arms] == ["none", "das"]


def test_the_command(tmp_path, capsys):
    run(tmp_path / "a", "none", BASE)
    run(tmp_path / "b", "das", BASE, optimised=["clip"])
    out = tmp_path / "out"
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*folders, "--out", str(out), "--gallery"]) == 0
    assert "Paired difference to none" in capsys.readouterr().out
    tables = {"costs.csv", "pairs.csv", "prompts.csv", "summary.csv"}
    pages = {"report.md", "report.tex", "report.html", "gallery.html", "contact_sheet.png"}
    assert {path.name for path in out.iterdir()} == {*tables, *pages, "tradeoff.svg", "differences.svg"}
    assert pandas.read_csv(out / "pairs.csv")["win_rate"].tolist() == [0.5]
    sheet = (out / "contact_sheet.png").read_bytes()
    assert main([*folders, "--out", str(out), "--gallery"]) == 0
    assert (out / "contact_sheet.png").read_bytes() == sheet
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.csv").write_text("a,b\n1,2\n")
    for wrong in (["missing"], ["empty"], ["bad"], ["a", "--baseline", "x"], ["a", "--gallery"]):
        arguments = [str(tmp_path / wrong[0]), *wrong[1:]]
        assert align(["report", *arguments]) == 2, wrong
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1


def tagged(folder, method, values, tags):
    """As ``run``; prompts have tags."""
    items = [Item(hashlib.sha256(f"{method} {prompt}".encode()).hexdigest(), prompt, 0) for prompt in values]
    with Store(folder, Manifest({"method": {"name": method}}), items) as store:
        for item in items:
            more = {f"tag_{name}": text for name, text in tags.get(item.prompt, {}).items()}
            row = {"prompt": item.prompt, "method": method, "clip": values[item.prompt]} | more
            store.commit(item, make_png(item), row)
    return folder


KINDS = {"p0": {"Kind": "=animals"}, "p1": {"Kind": "=animals"}, "p2": {"Kind": "9"}}


def test_groups_by_a_tag(tmp_path):
    base = tagged(tmp_path / "a", "none", {"p0": 1.0, "p1": 2.0, "p2": 3.0, "p3": 4.0}, KINDS)
    other = tagged(tmp_path / "b", "das", {"p0": 2.0, "p1": 4.0, "p2": 3.0, "p3": 4.5}, {})
    made = compare([base, other], by="Kind")
    write_report(made, tmp_path / "out")
    summary = made.groups.summary.set_index(["group", "label"])
    assert summary["n"].to_dict() == {
        ("=animals", "none"): 2, ("=animals", "das"): 2, ("9", "none"): 1, ("9", "das"): 1,
        ("(no Kind)", "none"): 1, ("(no Kind)", "das"): 1,
    }  # fmt: skip
    assert summary.loc[("=animals", "das"), ["clip", "clip_low", "clip_high"]].tolist() == [3.0, 2.0, 4.0]
    pairs = made.groups.pairs.set_index("group")
    assert pairs["difference"].to_dict() == {"=animals": 1.5, "9": 0.0, "(no Kind)": 0.5}
    assert pairs.loc["=animals", ["low", "high", "pairs"]].tolist() == [1.0, 2.0, 2]
    shown = tables(made)
    assert {kind: cells["none"] for kind, cells in shown["Pictures by Kind"].items()} == {
        "=animals": "2",
        "9": "1",
        "(no Kind)": "1",
    }
    assert shown["clip by Kind: paired difference to none"] == {
        "=animals": {"das": "+1.500 [+1.000, +2.000] (n=2)"},
        "9": {"das": "0.000 (n=1)"},
        "(no Kind)": {"das": "+0.500 (n=1)"},
    }
    over = shown["clip by Kind (mean, 95% interval)"]["mean of groups"]
    assert {arm: float(text.split()[0]) for arm, text in over.items()} == pytest.approx(
        {"none": 8.5 / 3, "das": 10.5 / 3}, abs=1e-3
    )
    for page in ("report.md", "report.tex", "report.html"):
        assert "animals" in (tmp_path / "out" / page).read_text()
    found = read_csv(tmp_path / "out" / "groups_pairs.csv")
    assert found["group"].tolist() == ["=animals", "9", "(no Kind)"]
    assert tables(compare([base, other], by="tag_Kind")) == shown
    assert list(tables(compare([base, other], by="method"))["Pictures by method"]["das"]) == ["das"]


def test_groups_by_a_list_of_what_each_part_is_about(tmp_path):
    skills = {"p0": {"skills": '["count","count","verb"]'}, "p1": {"skills": '["verb","object"]'}}
    parts = {
        "none": {"p0": [0.0, 1.0, 0.5], "p1": [1.0, 1.0]},
        "das": {"p0": [1.0, 1.0, 0.5], "p1": [0.0, 1.0]},
    }
    folders = []
    for method, by_prompt in parts.items():
        more = {
            prompt: {"tag_skills": skills[prompt]["skills"], "am": sum(own) / len(own), "info_am": own}
            for prompt, own in by_prompt.items()
        }
        items = [
            Item(hashlib.sha256(f"{method} {prompt}".encode()).hexdigest(), prompt, 0) for prompt in more
        ]
        folders.append(tmp_path / method)
        with Store(folders[-1], Manifest({"method": {"name": method}}), items) as store:
            for item in items:
                row = {"prompt": item.prompt, "method": method, "clip": 1.0, **more[item.prompt]}
                store.commit(item, make_png(item), row)
    made = compare(folders, by="skills")
    summary = made.groups.summary.set_index(["group", "label"])
    assert summary["am"].to_dict() == {
        ("count", "none"): 0.5, ("count", "das"): 1.0, ("verb", "none"): 0.75, ("verb", "das"): 0.25,
        ("object", "none"): 1.0, ("object", "das"): 1.0,
    }  # fmt: skip
    assert summary["n"].to_dict() == {
        (skill, arm): number
        for skill, number in {"count": 1, "verb": 2, "object": 1}.items()
        for arm in ("none", "das")
    }
    assert (summary["clip"] == 1.0).all()
    pairs = made.groups.pairs.set_index(["group", "value"])["difference"]
    assert pairs.xs("am", level="value").to_dict() == {"count": 0.5, "verb": -0.5, "object": 0.0}
    assert made.summary["am"].tolist() == [pytest.approx(0.75), pytest.approx(2 / 3)]


def test_an_unknown_group_is_one_line(tmp_path, capsys):
    base = tagged(tmp_path / "a", "none", {"p0": 1.0, "p2": 3.0}, KINDS)
    assert align(["report", str(base), "--by", "Kinds"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("align: report: --by: no row has a column 'Kinds'; did you mean Kind?")
    assert printed.err.count("\n") == 1
    assert align(["report", str(tagged(tmp_path / "b", "none", {"p0": 1.0}, {})), "--by", "Kind"]) == 2
    assert "no prompt has a tag" in capsys.readouterr().err


def test_tags_are_texts_and_no_metrics(tmp_path):
    folder = tagged(tmp_path / "a", "none", {"p0": 1.0, "p2": 3.0}, KINDS | {"p0": {"Kind": "8"}})
    table = read_csv(folder / "results.csv")
    assert table["tag_Kind"].tolist() == ["8", "9"]
    assert list(table.columns).index("tag_Kind") == len(HEAD)
    assert not {"tag_Kind"} & set(compare([folder]).summary.columns)


def test_summary_of_a_frame(tmp_path):
    folder = run(tmp_path, "dymo", {"p0": (1.0, 2.0), "p1": (3.0, None)}, optimised=["clip"], seconds=2.0)
    table = summary(read_csv(folder / "results.csv"))
    (row,) = table.to_dict("records")
    assert (row["method"], row["n"], row["failed"], row["optimised"]) == ("dymo", 3, 1, "clip")
    assert (row["clip"], row["clip_low"], row["clip_high"], row["seconds"]) == (2.0, 1.5, 3.0, 2.0)
    items = [Item(key, "", 0) for key in read_csv(folder / "results.csv")["key"]]
    manifest = Manifest({"method": {"name": "dymo"}, "steps": 25})
    with Store(folder, manifest, items) as store:
        from_rows = summary(pandas.DataFrame(store.rows()))
    assert from_rows.to_dict("records") == table.to_dict("records")


def test_numbers_for_people():
    values = (0.5, 2.0, -12.5, 123.46, 12345.6, math.nan, 0.05, 2e-5)
    texts = ["0.500", "2", "−12.50", "123.5", "12346", "–", "0.0500", "0.000020"]
    assert [number(value) for value in values] == texts
    assert [number(value, 1, signed=True) for value in (0.04, -0.04, 0.06, -0.06)] == [
        "0.0",
        "0.0",
        "+0.1",
        "−0.1",
    ]
    assert with_interval(0.5, -0.25, 0.75, signed=True) == "+0.500 [−0.250, +0.750]"
    assert with_interval(0.5, math.nan, math.nan) == "0.500"


def test_numbers_of_a_line_have_as_many_decimals():
    cells = line({"a": Estimate(12.5, 9.0, 16.0), "b": Estimate(0.001, -0.5, 0.5, "*", "(n=3)")}, signed=True)
    assert [str(cell) for cell in cells.values()] == ["+12.50 [+9.00, +16.00]", "0.00* [−0.50, +0.50] (n=3)"]
    assert [cell.sign for cell in cells.values()] == [1, 0]
    assert str(line({"a": Estimate(3.0, 1.0, 6.0)})["a"]) == "3 [1, 6]"
    tiny = {"a": Estimate(1.2e-6, 0.0, 0.0), "b": Estimate(-8e-9, -3e-8, 1e-9)}
    assert [str(line({key: one})[key]) for key, one in tiny.items()] == [
        "0.000001 [0.000000, 0.000000]",
        "−0.00000001 [−0.00000003, 0.00000000]",
    ]


def test_cells_that_are_no_numbers_are_one_line_or_count_for_nothing(tmp_path, capsys):
    folder = run(tmp_path / "a", "none", BASE, check_all=1, network_forward=25)
    path = folder / "results.csv"
    whole = path.read_text()
    head, *lines = whole.splitlines()
    names = head.split(",")

    def with_cell(name, cell):
        rows = [line.split(",") for line in lines]
        for row in rows:
            row[names.index(name)] = cell
        return "\n".join([head, *map(",".join, rows)]) + "\n"

    for name, cell, words in (
        ("seed", "x", "column 'seed' holds what is no whole number"),
        ("seed", "", "column 'seed' holds what is no whole number"),
        ("sample", "1.5", "column 'sample' holds what is no whole number"),
        ("seed", "9" * 5000, "column 'seed' holds what is no whole number"),
    ):
        path.write_text(with_cell(name, cell))
        assert align(["report", str(folder)]) == 2
        assert words in capsys.readouterr().err
    path.write_text(whole.replace("\n", ",1\n").replace(",1", ",seed", 1))
    assert align(["report", str(folder)]) == 2
    assert "two columns are called 'seed'" in capsys.readouterr().err
    for name, cell in (
        ("clip", "inf"),
        ("image", "a\\x00b"),
        ("check_all", "abc"),
        ("network_forward", "abc"),
    ):
        path.write_text(with_cell(name, cell))
        assert align(["report", str(folder), "--out", str(tmp_path / "out"), "--gallery"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert ("infinite numbers of clip count for nothing" in out) == (cell == "inf")
