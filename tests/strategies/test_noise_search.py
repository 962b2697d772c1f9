"""Random, zero-order and evolutionary search over noise."""

import math
from collections import Counter

import pytest
import torch
from fakes import FakeBackbone, FakeReward, GaussianBackbone, seeded, watching

from align.config.errors import ConfigError
from align.processes.base import Step
from align.rewards.base import Reward
from align.runner.estimate import network_evaluations
from align.sampling.noise import NoiseStream
from align.sampling.sampler import keyed
from align.strategies.noise_search import Arrival, Mutated, neighbour

from .helpers import REQUESTS, built, config_of, values

RANDOM = ("method=noise_search", "method.noise_search.propose=random")
ZERO = ("method=noise_search", "method.noise_search.rounds=3", "method.noise_search.candidates=2")
START = (
    "method=evosearch",
    "method.noise_search.rounds=3",
    "method.noise_search.populations=[]",
    "method.noise_search.begin=[]",
    "method.noise_search.candidates=2",
    "method.noise_search.elites=2",
)
MIDDLE = (
    *START[:2],
    "method.noise_search.populations=[3,2,4]",
    "method.noise_search.begin=[0.25,0.75]",
    "method.noise_search.elites=2",
)
WAYS = {"random": RANDOM, "zero-order": ZERO, "evolution": START, "evolution on the way": MIDDLE}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


class Linear(Reward):
    """The mean of a picture's first channel along a direction."""

    name, takes_timestep, fingerprint = "linear", False, {}

    def __init__(self, direction):
        self.direction = direction

    def score(self, pictures, prompts, step=None):
        return (pictures[:, 0] * self.direction).mean(dim=(1, 2))


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.95, 0.999])
def test_a_neighbour_has_the_pivots_norm_and_the_given_cosine(cosine):
    pivot, direction = seeded("pivot", 4, 64, 64), seeded("direction", 4, 64, 64)
    moved = neighbour(pivot, direction, cosine).double().flatten()
    n = pivot.double().flatten()
    assert float(moved.norm() / n.norm()) == pytest.approx(1, abs=1e-7)
    assert float(moved @ n / n.norm() ** 2) == pytest.approx(cosine, abs=1e-7)
    assert float((moved - n).norm() / n.norm()) == pytest.approx(math.sqrt(2 - 2 * cosine), abs=1e-6)
    assert float(moved @ direction.double().flatten()) > cosine * float(n @ direction.double().flatten())


def test_mutated_draws_are_normal_and_have_the_parents_share():
    parent, own = NoiseStream(1, "a", 0), NoiseStream(1, "b", 0)
    old = parent.normal("step", 3, 0, (100_000,))
    new = Mutated(parent, own, 0.6).normal("step", 3, 0, (100_000,))
    assert float(new.std()) == pytest.approx(1, abs=0.01)
    assert float((old * new).mean()) == pytest.approx(0.8, abs=0.01)
    assert torch.equal(Mutated(parent, own, 1.0).normal("step", 3, 0, (9,)), own.normal("step", 3, 0, (9,)))


def test_mutation_on_the_way_keeps_the_signal_and_the_noise_level():
    step = Step(1, 500, 400, 0.6, 0.8, 0.7, 0.5, 0.0, 0.5, 500)
    x0, eps, noise = seeded("x0", 50_000), seeded("eps", 50_000), seeded("noise", 50_000)
    arrival = Arrival(step.a * x0 + step.s * eps, x0, eps)
    moved = arrival.mutated(step, noise, 0.6)
    expected = step.a * x0 + step.s * (0.8 * eps + 0.6 * noise)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    assert float((moved - step.a * x0).std()) == pytest.approx(step.s, abs=0.01)


def test_random_search_is_best_of_n_with_the_same_noise():
    more = ("method.noise_search.rounds=2", "method.noise_search.candidates=3")
    searched = built(*RANDOM, *more, eta=1).sample(REQUESTS)
    best = built("method=best_of_n", "method.particles=7", eta=1).sample(REQUESTS)
    for one, two in zip(searched, best, strict=True):
        assert torch.equal(one.picture, two.picture)
        assert one.info["candidate"] == two.info["particle"]
        assert one.cost == two.cost


def test_the_first_candidate_is_the_plain_picture(way):
    plain = built("method=none").sample(REQUESTS)
    backbone = FakeBackbone()
    made = built(*way, backbone=backbone).sample(REQUESTS)
    judge = FakeReward()
    for request, one, two in zip(REQUESTS, plain, made, strict=True):
        (value,) = judge.score(one.picture[None], [request.prompt]).tolist()
        assert values(two)[0] == pytest.approx(value, rel=1e-4)
        assert two.info["value"] >= value


def test_the_best_picture_ever_seen_is_returned(way):
    judge = FakeReward()
    for request, one in zip(REQUESTS, built(*way).sample(REQUESTS), strict=True):
        found = values(one)
        assert one.info["value"] == pytest.approx(max(found), rel=1e-4)
        assert found.index(max(found)) == one.info["candidate"]
        (value,) = judge.score(one.picture[None], [request.prompt]).tolist()
        assert value == pytest.approx(one.info["value"], abs=1e-6)


def test_no_candidate_is_made_twice(way):
    with watching() as log:
        (made,) = built(*way).sample(REQUESTS[:1])
    latents = [(step.index, z.numpy().tobytes()) for step, state, _ in log for z in state.z]
    assert max(Counter(latents).values()) == 1
    assert len(values(made)) == len([one for one in latents if one[0] == 3])


def test_a_search_costs_what_the_plan_says(way):
    reward, backbone = FakeReward(), FakeBackbone()
    made = built(*way, backbone=backbone, reward=reward, batch_size=1).sample(REQUESTS)
    least, most = network_evaluations(config_of(*way))
    assert least == most
    for one in made:
        assert one.cost.network_forward == pytest.approx(least)
        assert one.cost.decoder_forward == one.cost.reward_forward == len(values(one))
    assert backbone.counts["network_forward"] == sum(one.cost.network_forward for one in made)
    assert reward.counts["reward_forward"] == sum(one.cost.reward_forward for one in made)


def test_children_on_the_way_cost_the_steps_that_are_left():
    least, _ = network_evaluations(config_of(*MIDDLE))
    assert least == (1 + 3) * 4 + 2 * 3 + 4 * 1


def test_neither_company_nor_order_changes_a_byte(way):
    together = built(*way, eta=1).sample(REQUESTS)
    alone = [built(*way, eta=1).sample([request])[0] for request in REQUESTS]
    backwards = built(*way, eta=1).sample(REQUESTS[::-1])[::-1]
    for one, two, three in zip(together, alone, backwards, strict=True):
        assert torch.equal(one.picture, two.picture)
        assert torch.equal(one.picture, three.picture)
        assert one.info == two.info == three.info


class Broken(FakeReward):
    """Without a value for pictures that are bright."""

    def score(self, pictures, prompts, step=None):
        found = super().score(pictures, prompts, step)
        return torch.where(pictures.mean(dim=(1, 2, 3)) > 0.5, torch.nan, found)


def test_a_candidate_without_a_finite_value_never_wins(way):
    made = built(*way, reward=Broken(), eta=1).sample(REQUESTS)
    assert any(math.isnan(value) for one in made for value in values(one))
    for one in made:
        if finite := [value for value in values(one) if not math.isnan(value)]:
            assert one.info["value"] == pytest.approx(max(finite), rel=1e-4)
            assert float(one.picture.mean()) <= 0.5
        else:
            assert one.picture is None
            assert "finite" in one.error


def pivots_of(request, cosine, rounds, number, reward):
    """Zero-order search written down once more, in the plainest way: the noise and the worth of all candidates, in order."""
    pivot = keyed(request, 0).normal("initial", 0, 0, (1, 8, 8))
    best = reward(pivot)
    found = [best]
    for round in range(rounds):
        around = pivot
        for k in range(1 + round * number, 1 + (round + 1) * number):
            direction = keyed(request, k).normal("direction", 0, 0, (1, 8, 8))
            moved = neighbour(around, direction, cosine)
            found.append(reward(moved))
            if found[-1] > best:
                best, pivot = found[-1], moved
    return found


def test_zero_order_search_climbs_a_known_slope():
    """Of a Gaussian the deterministic sampling is linear, so that a picture is worth what its noise has of the slope."""
    slope = seeded("slope", 8, 8)
    slope = slope - slope.mean()  # no constant part: the mean of the latents is worth nothing
    backbone = GaussianBackbone(0.5, 0.05, (1, 8, 8))  # no picture is clipped
    options = ("method=noise_search", "method.noise_search.rounds=25", "method.noise_search.cosine=0.95")
    request = REQUESTS[0]
    (made,) = built(*options, backbone=backbone, reward=Linear(slope), steps=10).sample([request])
    found = torch.tensor(values(made))
    share = torch.tensor(pivots_of(request, 0.95, 25, 5, lambda z: float((z[0] * slope).mean())))
    factor = (found @ share) / (share @ share)
    torch.testing.assert_close(found, factor * share, atol=float(found.max()) / 1000, rtol=1e-3)
    # Of the most that noise of this norm can be worth it has over half, where one in 64 directions has an eighth.
    norm = keyed(request, 0).normal("initial", 0, 0, (1, 8, 8)).norm()
    assert float(share.max()) > 0.5 * float(norm * slope.norm() / 64)


def test_evolution_goes_on_from_what_a_parent_was():
    """Its child differs from where the parent was by what the mutation says, and begins at that step."""
    with watching() as log:
        built(*MIDDLE, "method.noise_search.rate=0.000001").sample(REQUESTS[:1])
    at = [state.z for step, state, _ in log if step.index == 1]
    parents, children = at
    assert len(parents) == 4
    assert len(children) == 2
    far = (children[:, None] - parents).flatten(2).abs().amax(dim=2)
    assert far.amin(dim=1).max() < 1e-4
    assert far.argmin(dim=1).unique().numel() == 2  # both elites have a child


def test_wraps_guidance_of_one_particle():
    plain = built("method=dymo").sample(REQUESTS)
    made = built("method=dymo", *ZERO[1:], "method.noise_search.propose=neighbours").sample(REQUESTS)
    for one, two in zip(plain, made, strict=True):
        assert two.info["value"] >= max(values(two)) - 1e-3
        assert two.cost.network_backward > one.cost.network_backward
        assert len(values(two)) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("method.noise_search.populations=[1,2]",), "rounds=3: give 3"),
        (("method.noise_search.begin=[0.5,0.6]",), "begin is for propose=evolution"),
        (("method.noise_search.propose=evolution", "method.noise_search.populations=[1,2]"), "rounds=3: give 3"),
        (("method.noise_search.propose=evolution", "method.noise_search.begin=[0.5]"), "rounds=3: give 2"),
        (("method.noise_search.propose=evolution", "method.noise_search.begin=[0.5,0.2]"), "goes back"),
        (("method.noise_search.propose=evolution", "method.noise_search.begin=[0.5,0.9]"), "leaves no step"),
        (("method.particles=2", "method.choose=best"), "one particle"),
        (("method.search.candidates=2", "sampler.eta=1"), "without a search"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_line(options, words):
    with pytest.raises(ConfigError, match=words) as told:
        config_of(*ZERO, *options)
    assert "\n" not in str(told.value)
