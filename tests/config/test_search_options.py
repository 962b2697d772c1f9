"""Options of a search against each other."""

import pytest

from align.config.errors import ConfigError
from align.runner.searching import searching

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
