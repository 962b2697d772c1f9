"""Trees of samplings that share their beginnings."""

import math
from collections import Counter

import pytest
import torch
from fakes import FakeBackbone, FakeReward

from align.config.errors import ConfigError
from align.runner.build import build_sampler
from align.runner.estimate import network_evaluations
from align.sampling.batching import Calls
from align.sampling.ledger import Ledger
from align.sampling.noise import NoiseStream
from align.sampling.sampler import Request
from align.sampling.state import State
from align.strategies.tree_search import Node, Rules, soft_mean

from .helpers import REQUESTS, built, config_of, values

TREE = ("method=tree_search", "method.tree_search.budget=22")


def grown(tree, *values):
    """A node with a finished picture of each value below it."""
    for number, value in enumerate(values):
        leaf = Node(9, tree, candidate=number, value=value)
        tree.children.append(leaf)
        Rules(rate=2.0).back_up(leaf)
    return tree


def test_a_node_is_worth_the_soft_mean_of_its_children():
    root = Node(-1)
    one, two = Node(0, root), Node(0, root)
    root.children += [one, two]
    grown(one, 1.0, 3.0)
    grown(two, -math.inf)
    by_hand = math.log((math.exp(2.0) + math.exp(6.0)) / 2) / 2
    assert one.value == pytest.approx(by_hand)
    assert two.value == -math.inf
    assert root.value == pytest.approx(by_hand - math.log(2) / 2)
    assert (root.visits, one.visits, two.visits) == (3, 2, 1)
    assert soft_mean([0.0, 1000.0], 5.0) == pytest.approx(1000 - math.log(2) / 5)


def test_children_come_one_by_one_as_a_node_is_visited():
    rules, node = Rules(widen=2.0, exponent=0.5), Node(-1)
    assert [rules.may_have(Node(-1, visits=n)) for n in (0, 1, 2, 4, 5)] == [0, 2, 3, 4, 5]
    assert Rules(exponent=0.5).may_have(grown(node, *[0.0] * 9)) == 3


def test_search_goes_where_value_or_doubt_is_largest():
    node = grown(Node(-1), 0.0, 1.0, 0.9)
    node.children[1].visits = 30
    node.visits = 32
    assert Rules(explore=0.0).next(node, float) is node.children[1]
    assert Rules(explore=1.0).next(node, float) is node.children[2]


def test_sampling_goes_in_proportion_to_the_exponential_of_values():
    node, rules = grown(Node(-1), 0.0, 1.0, -math.inf), Rules("sample", rate=2.0)
    points = iter([(k + 0.5) / 1000 for k in range(1000)])
    share = Counter(node.children.index(rules.next(node, lambda: next(points))) for _ in range(1000))
    assert share[0] / 1000 == pytest.approx(1 / (1 + math.exp(2.0)), abs=2e-3)
    assert share[2] == 0
    lost = grown(Node(-1), -math.inf, -math.inf)
    assert rules.next(lost, lambda: 0.7) is lost.children[1]


def test_a_child_is_a_draw_of_its_parents_kernel_sampled_to_the_end():
    """The first tree of two: the plain picture, and a child of the state before its last steps with noise of its own."""
    request = REQUESTS[0]
    sampler = built(
        *TREE[:1], "method.tree_search.budget=5", "method.tree_search.branch=[0.5]", batch_size=1, eta=1
    )
    (made,) = sampler.sample([request])
    inner, judge, infos = built("method=none", batch_size=1, eta=1), FakeReward(), []
    read = inner.encode([request])
    plain = inner.run([request], read, Ledger(1), infos.append).z
    step, shape = inner.parts.process.steps[2], inner.parts.predict.backbone.latent_shape()
    own = NoiseStream(request.seed, request.prompt, request.sample, 1)
    noise = own.normal("step", 2, 0, shape)
    z = inner.parts.process.kernel(infos[2].estimate.x0, infos[2].estimate.eps, step).sample(noise)
    child = inner.run(
        [request],
        read,
        Ledger(1),
        streams=lambda *_: own,
        arrived=State.of(z, torch.tensor([0])),
        first=3,
    ).z
    pictures = [inner.decode(one) for one in (plain, child)]
    found = [float(judge.score(one, [request.prompt])) for one in pictures]
    assert values(made) == pytest.approx(found, rel=1e-4)
    torch.testing.assert_close(made.picture, pictures[found.index(max(found))][0])


@pytest.mark.parametrize(
    "more", [(), ("method.tree_search.branch=[0.25]",), ("method.tree_search.descend=sample",)]
)
def test_it_spends_its_budget_as_far_as_a_child_fits(more):
    backbone, reward = FakeBackbone(), FakeReward()
    made = built(*TREE, *more, backbone=backbone, reward=reward, batch_size=1, eta=1).sample(REQUESTS)
    least, most = network_evaluations(config_of(*TREE, *more, eta=1))
    assert (least, most) == ((21, 22) if "[0.25]" in str(more) else (22, 22))
    assert all(least <= one.cost.network_forward <= most for one in made)
    assert backbone.counts["network_forward"] == sum(one.cost.network_forward for one in made)
    for one in made:
        assert len(values(one)) == one.cost.reward_forward > 22 // 4
        assert values(one)[one.info["candidate"]] == pytest.approx(one.info["value"], rel=1e-4)
        if "sample" not in str(more):
            assert one.info["value"] == pytest.approx(max(values(one)), rel=1e-4)


@pytest.mark.parametrize(("descend", "least", "most"), [("search", -1.0, -0.5), ("sample", -3.2, -1.3)])
def test_it_finds_the_best_of_eight_modes(descend, least, most):
    """At (0, 4) with a reward of -0.9, where the best of as many plain samples has -1.2; the more a tree has grown the more are samples
    those of the tilted density, whose mean reward is -1.34, and not of the density's own, -9.23.
    """
    options = ("budget=150", "branch=[0.2,0.4,0.6]", f"descend={descend}")
    config = config_of(
        "experiment=toy_gmm2",
        "method=tree_search",
        *(f"method.tree_search.{one}" for one in options),
        steps=10,
        eta=1,
    )
    made = build_sampler(config, Calls(24)).sample([Request("sample", seed=k) for k in range(12)])
    mean = sum(one.info["value"] for one in made) / len(made)
    assert least < mean < most
    assert all(one.cost.network_forward <= 150 for one in made)


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("sampler.eta=0.0", "sampler.eta=1"),
        ("method.tree_search.budget=3", "at least 4"),
        ("method.tree_search.branch=[0.75]", "at most 0.5"),
        ("method.guidance.rule=value", "method.guidance.rule=none"),
        ("method.local_search.drafts=2", "two strategies"),
    ],
)
def test_what_it_cannot_do_is_one_line(option, mend):
    with pytest.raises(ConfigError, match=mend) as said:
        config_of(*TREE, option, *(["method.objective.preference=1"] if "guidance" in option else []), eta=1)
    assert "\n" not in str(said.value)
