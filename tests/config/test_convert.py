"""Plain values to the schema: types, ranges, messages."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from align.config.convert import build, option_names, plain
from align.config.errors import ConfigError, nearest
from align.config.ranges import Between, Multiple, Text


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Between(1, 8), Multiple(2)] = 2
    rate: Annotated[tuple[float, float, float], Between(0, 1)] = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Text("name")]
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    terms: dict[str, float] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    limit: Annotated[int, Between(1, 5)] | None = None
    large: Annotated[int, Between(5, 2**63 - 1, below="none is drawn")] = 5
    flag: bool = False


def test_values_and_defaults():
    made = build(Outer, {"name": "x", "inner": {"rate": [0, 1, 1]}, "terms": {"p": 2}, "words": ["a", 1]})
    assert made == Outer("x", inner=Inner(rate=(0.0, 1.0, 1.0)), terms={"p": 2.0}, words=("a", "1"))
    assert isinstance(made.terms["p"], float)
    assert build(Outer, plain(made)) == made


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "missing option name: give name="),
        ({"name": "x", "knd": "a"}, "unknown option knd; did you mean kind?"),
        ({"name": "x", "inner": {"sise": 1}}, "unknown option inner.sise; did you mean inner.size?"),
        ({"name": "x", "_target_": "os.system"}, "unknown option _target_"),
        ({"name": "../x"}, "name=../x is out of range: give a name"),
        ({"name": "x", "kind": "c"}, "kind=c is not a choice; choices: a, b"),
        ({"name": "x", "inner": {"size": 9}}, "inner.size=9 is out of range: give a number from 1 to 8"),
        ({"name": "x", "inner": {"size": 3}}, "give a multiple of 2"),
        ({"name": "x", "large": 2**63}, "give a number from 5 to 9223372036854775807"),
        ({"name": "x", "large": 4}, "to 9223372036854775807; none is drawn"),
        ({"name": "x", "inner": {"size": 1e7}}, "has the wrong type"),
        ({"name": "x", "inner": {"size": True}}, "has the wrong type: give a whole number"),
        ({"name": "x", "inner": {"size": 2.0}}, "has the wrong type: give a whole number"),
        ({"name": "x", "inner": {"rate": [0, 1]}}, "has 2 members: give a list of 3"),
        ({"name": "x", "inner": {"rate": [0, 1, 2]}}, "give numbers from 0 to 1"),
        ({"name": "x", "inner": {"rate": "abc"}}, "is not a list"),
        ({"name": "x", "inner": 3}, "inner=3 is not a group of options"),
        ({"name": "x", "terms": {"p": "q"}}, "terms.p=q has the wrong type: give a number"),
        ({"name": "x", "terms": {"p": float("nan")}}, "terms.p=nan is not finite"),
        ({"name": "x", "terms": [1]}, "is not a mapping"),
        ({"name": "x", "flag": "yes"}, "flag=yes has the wrong type: give true or false"),
        ({"name": "x", "limit": 0}, "limit=0 is out of range"),
        ({"name": None}, "name=null has the wrong type: give a text"),
        ({"name": "x", "words": ["a", None]}, "words[1]=null has the wrong type"),
    ],
)
def test_messages(values, words):
    with pytest.raises(ConfigError) as caught:
        build(Outer, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_option_names():
    assert option_names(Outer) == [
        "name", "kind", "inner", "inner.size", "inner.rate", "terms", "terms.*", "words", "limit", "large", "flag",
    ]  # fmt: skip


def test_nearest():
    names = ["sampler.steps", "sampler.eta", "method", "run.threads"]
    assert nearest("steps", names) == ["sampler.steps"]
    assert nearest("sampler.stepps", names) == ["sampler.steps"]
    assert nearest("METHOD", names) == ["method"]
    assert nearest("zzz", names) == []
