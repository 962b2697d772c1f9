"""Options of a search against each other."""

import pytest

from align.config.errors import ConfigError
from align.runner.estimate import network_evaluations
from align.runner.searching import along, searching

from .test_conf_files import compose

ANCESTRAL = "sampler=ddim_ancestral"


def test_one_candidate_that_is_widened_searches():
    config = compose("method=svdd", ANCESTRAL, "method.search.candidates=1", "method.search.widen=3")
    assert config.method.searches
    assert config.method.uses_reward
    assert searching(config).probabilities


def test_one_candidate_does_not_search():
    config = compose("method=svdd", ANCESTRAL, "method.search.candidates=1")
    assert not config.method.searches
    assert not searching(config).probabilities


def test_a_searched_step_has_a_candidate():
    """The released program stops with an empty stack there."""
    with pytest.raises(ConfigError, match=r"widen=0\.1 .* give method\.search\.widen=0\.25"):
        compose("method=svdd", ANCESTRAL, "method.search.candidates=4", "method.search.widen=0.1")


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("method.search.threshold=[]", "needs a bar: give"),
        ("method.search.until=better", "read with method.search.until=above only"),
        ("method.search.temperature=1", "give method.search.candidates above 1"),
        ("method.search.candidates=1", "give method.search.candidates above 1"),
    ],
)
def test_when_a_search_stops_is_said_once(option, mend):
    with pytest.raises(ConfigError, match=mend):
        compose("method=verifier_threshold", ANCESTRAL, "method.search.threshold=[1]", option)


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("method.backtracking.budget=20", "give at least 25"),
        ("method.backtracking.check=[0.5,0.4]", "shares of the steps that rise"),
        ("method.backtracking.threshold=[1,2,3]", "one for each of the 2 checks"),
        ("method.search.candidates=3", "give method.search.candidates=1"),
        ("method.local_search.drafts=2", "leave out method.search, rollover, backtracking"),
    ],
)
def test_what_backtracking_cannot_do_is_said(option, mend):
    more = ("method.backtracking.check=[0.4,0.8]", "method.backtracking.threshold=[1,2]")
    with pytest.raises(ConfigError, match=mend):
        compose("method=dfs", ANCESTRAL, *more, option)


def test_what_backtracking_can_cost():
    config = compose(
        "method=dfs", "method.backtracking.budget=75", "method.particles=2", "method.choose=best"
    )
    assert network_evaluations(config) == (50, 150)


def test_what_a_search_that_stops_early_can_cost():
    config = compose("method=verifier_threshold", ANCESTRAL, "method.search.candidates=5")
    assert network_evaluations(config) == (25, 1 + 24 * 5)


def test_bars_lie_along_the_steps():
    assert along((1.0,), 3) == (1, 1, 1)
    assert along((1.0, 2.0, 4.0), 5) == (1, 1.5, 2, 3, 4)
    assert along((1.0, 2.0, 4.0), 2) == (1, 4)
    assert along((1.0, 2.0), 1) == (1,)
