"""Drafts that an early look finds poor stop."""

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeBackbone, FakeReward, words_graph

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.runner.dry_run import calls_of_a_picture
from align.runner.estimate import network_evaluations
from align.sampling.batching import Calls
from align.sampling.ledger import Cost
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

PRUNE = ("method=prune", "method.particles=6", "method.search.at=[0.5,0.75]", "method.search.keep=[0.5,0.3]")
REQUESTS = [Request(prompt, seed=5) for prompt in ("red cat blue dog", "blue dog")]


def config_of(*options):
    steps = ("sampler.steps=4", "sampler.eta=0", "sampler.guidance_scale=3")
    return jobs_of(parse([*steps, *options]))[0].config


def built(*options, reward=None):
    pairs = PromptGraphs(words_graph).pairs
    return build.assemble(config_of(*options), FakeBackbone(), reward or FakeReward(), pairs, Calls(1), CPU)


def test_the_best_predictions_go_on_and_the_best_picture_of_these_is_kept():
    """Written apart, from six plain samplings: half of them stop at the third of four steps, one more at the last."""
    plain, judge = built("method=best_of_n", "method.particles=6"), FakeReward()
    for request, made in zip(REQUESTS, built(*PRUNE).sample(REQUESTS), strict=True):
        seen = {}

        def watch(info, seen=seen):
            seen[info.step.index] = plain.decode(info.estimate.x0)

        finished = plain.decode(plain.run([request], plain.encode([request]), on_evaluation=watch).z)
        left = list(range(6))
        for step, number in ((2, 3), (3, 2)):
            worth = judge.score(seen[step], [request.prompt] * 6).tolist()
            left = sorted(left, key=lambda k, worth=worth: -worth[k])[:number]
        worth = judge.score(finished, [request.prompt] * 6).tolist()
        torch.testing.assert_close(made.picture, finished[max(left, key=lambda k: worth[k])])


def test_it_costs_what_the_plan_says():
    config = config_of(*PRUNE)
    whole = Cost(network_forward=6 * 3 + 3 + 0, decoder_forward=6 + 3 + 2, reward_forward=6 + 3 + 2)
    assert [one.cost for one in built(*PRUNE).sample(REQUESTS)] == [whole] * 2
    assert network_evaluations(config) == (whole.network_forward,) * 2
    assert calls_of_a_picture(config, SCHEDULE) == whole


def test_a_step_aware_reward_is_told_the_timestep():
    reward = FakeReward()
    built(*PRUNE, reward=reward).sample(REQUESTS[:1])
    assert torch.cat(reward.times).tolist() == [251] * 6 + [1] * 3 + [0] * 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("method.search.at=[0.5]", "shares of the steps that rise"),
        ("method.search.at=[0.75,0.5]", "shares of the steps that rise"),
        ("method.search.keep=[0.3,0.5]", "which fall"),
        ("method.search.drop=exponential", "read with method.search.drop=at only"),
        ("method.search.candidates=2", "method.search.schedule=all"),
        ("method.particles=1", "nothing to drop"),
        ("method.search.schedule=all", "sampler.eta=0 draws no noise"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_a_line(option, said):
    with pytest.raises(ConfigError, match=said):
        config_of(*PRUNE, option)
