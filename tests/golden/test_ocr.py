"""Flow-GRPO's formula of read text, on recorded lines of its recogniser."""

import pytest

from align.reading import read_json
from align.rewards.ocr import accuracy, distance, lacks, quoted
from golden.judges import judges  # noqa: F401


def test_accuracies_are_the_recorded_ones(judges):  # noqa: F811
    for row in read_json(judges / "ocr/rewards.json")["rows"]:
        lines = [tuple(line) for line in row["lines"]]
        if row["reward"] is None:  # where the original raised an error, a run is refused before it starts
            assert lacks(row["prompt"], {}, {}) is not None, row
        else:
            assert lacks(row["prompt"], {}, {}) is None, row
            assert accuracy(quoted(row["prompt"]), lines) == pytest.approx(row["reward"], abs=1e-12), row


def test_a_column_may_hold_the_text():
    options = {"target": "sign"}
    assert lacks("a shop", {"sign": "Open"}, options) is None
    assert "column 'sign'" in lacks('a shop "Open"', {}, options)
    assert "column 'sign'" in lacks("a shop", {"sign": "  "}, options)


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_distances(one, other, edits):
    assert distance(one, other) == edits
