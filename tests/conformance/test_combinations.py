"""Parts of methods that only fail together: altered copies in parts, and searches in which some prompts travel in time."""

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward, words_graph

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

PROMPTS = ["red cat blue dog", "a quiet morning", "blue dog"]
REQUESTS = [Request(prompt, seed=5) for prompt in PROMPTS]


@cache
def config_of(*options):
    return jobs_of(parse(["sampler.steps=4", "sampler.eta=1", "sampler.guidance_scale=3", *options]))[
        0
    ].config


def sample(config, reward, requests=REQUESTS):
    pairs = PromptGraphs(words_graph).pairs
    return build.assemble(config, FakeBackbone(), reward, pairs, Calls(2), CPU).sample(requests)


COPIED = {
    "dymo_smc": ("method=dymo_smc", "method.particles=2"),
    "dymo": ("method=dymo", "method.recurrence.cap=1"),
    "mpgd": ("method=mpgd", "method.clean.iterations=2"),
}


@pytest.mark.parametrize(
    ("method", "clamp", "quirks"), list(product(COPIED, [True, False], [(), ("sign_blind",)]))
)
def test_copies_scored_in_parts_are_those_scored_together(method, clamp, quirks):
    config = config_of(*COPIED[method])
    objective = replace(config.method.objective, copies=3, clamp=clamp, dynamic=clamp)
    config = replace(config, method=replace(config.method, objective=objective, quirks=quirks))
    whole = sample(config, FakeReward())
    for together in (1, 2):
        parts = sample(replace(config, run=replace(config.run, views_together=together)), FakeReward())
        for one, two in zip(whole, parts, strict=True):
            assert one.error is two.error is None
            assert one.cost == two.cost
            torch.testing.assert_close(one.picture, two.picture, rtol=0, atol=1e-3)


SEARCHED = {
    "candidates": ("method.search.candidates=3",),
    "fewer particles": ("method.search.candidates=2", "method.particles=3", "method.search.drop=linear"),
    "copied particles": (
        "method.search.candidates=2",
        "method.particles=3",
        "method.search.replace=0.4",
        "method.choose=best",
    ),
}
TRAVELS = {
    "fixed": ("method.recurrence.rule=fixed", "method.recurrence.rounds=1"),
    "by the gradient": ("method.recurrence.rule=gradient_norm", "method.recurrence.rate=1000"),
}


@pytest.mark.parametrize(("search", "travel"), list(product(SEARCHED, TRAVELS)))
def test_a_search_in_which_some_travel_goes_on_without_values(search, travel):
    """Only prompts with objects are guided, and so travel; one of them has no value in any round."""
    config = config_of(
        "method=dymo",
        "method.objective.preference=0",
        "method.objective.phases.both_until=0",
        "method.recurrence.cap=2",
        *SEARCHED[search],
        *TRAVELS[travel],
    )
    reward = FakeReward(broken=PROMPTS[:1])
    made = sample(config, reward)
    assert [one.info["rounds"] > 0 for one in made] == [True, False, True]
    assert ["unvalued" in one.info for one in made] == [True, False, False]
    assert [one.error is None for one in made] == [config.method.choose != "best", True, True]
    for request, one in zip(REQUESTS, made, strict=True):
        (alone,) = sample(config, reward, [request])
        assert str(one.info) == str(alone.info)  # nan is not nan
        assert (one.picture is None) or torch.equal(one.picture, alone.picture)


@pytest.mark.parametrize("whiten", ["phase", "wgnc", "order"])
def test_a_gradient_as_noise_in_a_search_is_of_its_own_prompt_alone(whiten):
    """All candidates of a step share what points against the gradient, and each has noise of its own beside it."""
    config = config_of(
        "method=ntrk",
        f"method.guidance.whiten={whiten}",
        *SEARCHED["fewer particles"],
        *TRAVELS["fixed"],
    )
    made = sample(config, FakeReward())
    for request, one in zip(REQUESTS, made, strict=True):
        (alone,) = sample(config, FakeReward(), [request])
        assert torch.equal(one.picture, alone.picture)
        assert one.cost == alone.cost
    pulled = replace(config.method.guidance, coefficient=(0.0, 0.0, 0.0))
    plain = sample(replace(config, method=replace(config.method, guidance=pulled)), FakeReward())
    assert not any(torch.equal(one.picture, two.picture) for one, two in zip(made, plain, strict=True))
