"""Search around the best finished picture."""

import pytest
import torch
from fakes import FakeBackbone, FakeReward

from align.config.errors import ConfigError
from align.runner.estimate import network_evaluations
from align.sampling.ledger import Ledger
from align.sampling.noise import NoiseStream
from align.sampling.state import State

from .helpers import REQUESTS, built, config_of, values

LOCAL = (
    "method=local_search",
    "method.local_search.drafts=3",
    "method.local_search.children=[2,4]",
    "method.local_search.begin=[0.5,0.75]",
)


def test_drafts_are_those_of_best_of_n():
    """Picture for picture; so that what children add is what they add to it."""
    drafts = built("method=best_of_n", "method.particles=3").sample(REQUESTS)
    for one, two in zip(drafts, built(*LOCAL).sample(REQUESTS), strict=True):
        found = values(two)
        assert max(found[:3]) == pytest.approx(one.info["value"], rel=1e-4)
        assert found.index(max(found[:3])) == one.info["particle"]


def test_a_child_is_the_best_so_far_with_new_noise_of_a_level_made_to_the_end():
    """Written apart, for the first round of one request and for all that follows from it."""
    request = REQUESTS[0]
    sampler = built(*LOCAL, batch_size=1)
    (made,) = sampler.sample([request])
    inner, judge = built("method=none", batch_size=1), FakeReward()
    read, steps = inner.encode([request]), inner.parts.process.steps
    best, seen = None, []

    def tried(state, first):
        nonlocal best
        z = inner.run([request], read, Ledger(1), arrived=state, first=first).z
        picture = inner.decode(z)
        seen.append(judge.score(picture, [request.prompt]).item())
        return seen[-1], z, picture

    def noise(number, *key):
        shape = inner.parts.predict.backbone.latent_shape()
        return NoiseStream(request.seed, request.prompt, request.sample, number).normal(*key, 0, shape)[None]

    number = 0
    for first, count in ((0, 3), (2, 2), (3, 4)):
        new = []
        for _ in range(count):
            step = steps[first]
            z = noise(number, "initial", 0)
            if first:
                z = step.a * best[1] + step.s * noise(number, "again", first)
            new.append(tried(State.of(z, torch.tensor([0])), first))
            number += 1
        for one in new:
            if best is None or one[0] > best[0]:
                best = one
    assert values(made) == pytest.approx(seen, rel=1e-4)
    torch.testing.assert_close(made.picture, best[2][0])


def test_the_best_picture_ever_seen_is_returned():
    for one in built(*LOCAL).sample(REQUESTS):
        found = values(one)
        assert len(found) == 3 + 2 + 4
        assert one.info["value"] == pytest.approx(max(found), rel=1e-4)
        assert found.index(max(found)) == one.info["candidate"]


def test_it_costs_what_the_plan_says():
    reward, backbone = FakeReward(), FakeBackbone()
    made = built(*LOCAL, backbone=backbone, reward=reward, batch_size=1).sample(REQUESTS)
    assert network_evaluations(config_of(*LOCAL)) == (3 * 4 + 2 * 2 + 4 * 1,) * 2
    for one in made:
        assert one.cost.network_forward == 20
        assert one.cost.decoder_forward == one.cost.reward_forward == 9
    assert backbone.counts["network_forward"] == 20 * len(made)
    assert reward.counts["reward_forward"] == 9 * len(made)


def test_a_request_without_a_finite_draft_fails_alone_and_costs_its_drafts():
    broken = REQUESTS[0].prompt
    made = built(*LOCAL, reward=FakeReward(broken=[broken])).sample(REQUESTS)
    sound = built(*LOCAL).sample(REQUESTS)
    assert made[0].picture is None
    assert made[0].cost.network_forward == 12
    for one, two in zip(made[1:], sound[1:], strict=True):
        assert torch.equal(one.picture, two.picture)


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("method.local_search.children=[2]", "one number of each for each round"),
        ("method.local_search.begin=[0,0.5]", "children begin at step 1 to 3"),
        ("method.local_search.begin=[0.5,0.9]", "children begin at step 1 to 3"),
        ("method.noise_search.rounds=1", "two strategies"),
    ],
)
def test_what_it_cannot_do_is_one_line(option, mend):
    with pytest.raises(ConfigError, match=mend) as said:
        config_of(*LOCAL, option)
    assert "\n" not in str(said.value)
