"""A method that climbs the judge that it follows while another judge falls is told of."""

import pandas
import pytest

from align.analysis.paired import fooled_notes

UP, DOWN, OPEN = (0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3)


def pairs(**intervals):
    """Differences of one arm, which followed ``pick``."""
    rows = [
        {
            "arm": "dno",
            "baseline": "none",
            "value": name,
            "optimised": name == "pick",
            "low": low,
            "high": high,
        }
        for name, (low, high) in intervals.items()
    ]
    return pandas.DataFrame(rows)


def test_the_followed_rose_and_two_others_fell():
    assert fooled_notes(pairs(pick=UP, hps=DOWN, imagereward=OPEN, check_all=DOWN, check_counts=DOWN)) == [
        "dno: pick, which it followed, rose against none, and hps, checker, which it did not follow, fell: "
        "it may have found what the followed judge is fooled by"
    ]


@pytest.mark.parametrize(
    "intervals",
    [
        {"pick": UP, "hps": OPEN},
        {"pick": OPEN, "hps": DOWN},
        {"pick": DOWN, "hps": DOWN},
        {"pick": UP, "hps": UP},
        {"hps": DOWN, "imagereward": UP},
        {"pick": UP, "check_counts": DOWN},
    ],
    ids=str,
)
def test_anything_less_is_no_reason_for_a_line(intervals):
    assert fooled_notes(pairs(**intervals)) == []


def test_nothing_to_compare_is_nothing_to_tell():
    assert fooled_notes(pairs(pick=UP).iloc[:0]) == []
