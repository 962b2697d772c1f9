"""What judges elsewhere are asked and answer: the rules of the protocol, as recorded cases."""

import base64
import io
import json

import pytest
from PIL import Image

from align.reading import parse_json, read_json
from align.rewards.elsewhere.answers import number, yes_no
from align.rewards.elsewhere.wire import PROTOCOLS, item_of
from align.rewards.errors import CannotJudge
from golden.judges import judges  # noqa: F401


@pytest.fixture
def cases(judges):  # noqa: F811
    return read_json(judges / "remote/cases.json")


def test_numbers_are_read_where_the_answer_says_one(cases):
    low, high = cases["range"]
    for case in cases["number"]:
        row = number(case["text"], low, high)
        assert row.score == case["value"], case
        assert (row.score is None) == bool(row.error), case


def test_probabilities_of_yes(cases):
    for case in cases["yes_no"]:
        for normalise, name in ((False, "value"), (True, "value_normalised")):
            row = yes_no([tuple(one) for one in case["top_logprobs"]], normalise=normalise)
            assert row.score == (case[name] if case[name] is None else pytest.approx(case[name], rel=1e-5))
            assert (row.score is None) == bool(row.error), case


def test_a_request_is_the_recorded_one(cases):
    (one,) = cases["request"]["items"]
    picture = Image.open(io.BytesIO(base64.b64decode(one["image"])))
    assert item_of(picture, one["prompt"]).id == one["id"]
    body = PROTOCOLS["align"].body(cases["request"]["reward"], [item_of(picture, one["prompt"])])
    assert body == cases["request"]


def test_answers_are_rows_or_refused(cases):
    for case in cases["responses"]:
        found = parse_json(case["raw"]) if "raw" in case else case["body"]
        if isinstance(case["rows"], str):
            with pytest.raises(CannotJudge):
                PROTOCOLS["align"].read(json.loads(json.dumps(found)), "mine", 1)
            continue
        rows = PROTOCOLS["align"].read(found, "mine", 1).rows
        assert [row.score for row in rows] == case["rows"]
        assert all((row.score is None) == bool(row.error) for row in rows)
