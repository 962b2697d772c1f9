"""The papers' numbers that come with the package."""

import pytest

from align.analysis.paper_numbers import load_paper
from align.store.errors import ReportError


def test_dymo_has_its_four_tables():
    paper = load_paper("dymo")
    assert "arXiv 2412.00759" in paper.citation
    assert [len(paper.of_table(number)) for number in (1, 2, 3, 4)] == [9, 11, 7, 4]
    for row in paper.rows:
        assert set(row.values) == {"pickscore", "hpsv2", "imagereward", "aesthetic"}
        assert (row.seconds is not None) == (row.table == 4)
        assert 19 < row.values["pickscore"] < 25
        assert 0.23 < row.values["hpsv2"] < 0.29


def test_the_full_method_is_one_row_in_three_tables():
    paper = load_paper("dymo")
    names = {1: "DyMO (SD V1.5+Ours)", 3: "Ours (GPT-4)", 4: "dynamic"}
    rows = [paper.row(number, name) for number, name in names.items()]
    assert rows[0].values == rows[1].values == rows[2].values
    assert rows[0].values["pickscore"] == 23.07
    assert [row.seconds for row in rows] == [None, None, 190]


def test_doubtful_numbers_say_so():
    paper = load_paper("dymo")
    assert "0.2708" in paper.row(2, "PromptOpt").doubt
    assert "21.03" in paper.row(2, "SD V3.5").doubt
    assert paper.row(1, "SD V1.5").doubt == ""


def test_unknown_names_are_told():
    with pytest.raises(ReportError, match="there are dymo"):
        load_paper("nothing")
    with pytest.raises(ReportError, match=r"table 4 has no row 'DNO': its rows are fixed 1 iteration, "):
        load_paper("dymo").row(4, "DNO")
