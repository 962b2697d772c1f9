"""Drafts in few steps, of which the best are made properly."""

import math

import pytest
import torch
from fakes import FakeBackbone, FakeReward

from align.config.errors import ConfigError
from align.processes.ddim import ddim
from align.runner.estimate import network_evaluations
from align.sampling.ledger import Ledger
from align.sampling.noise import NoiseStream
from align.sampling.state import State
from align.strategies.draft import handover

from .helpers import REQUESTS, built, config_of, values

DRAFTS = ("method=draft", "method.draft.candidates=4", "method.draft.steps=2")


def drafted(outcome):
    return [float(word) for word in outcome.info["drafts"].split()]


def test_a_rerun_is_the_picture_without_drafts_bit_for_bit():
    """Whichever candidate won: its noise is that of the particle of its number."""
    made = built(*DRAFTS).sample(REQUESTS)
    particles = built("method=best_of_n", "method.particles=4").sample(REQUESTS)
    assert len({one.info["candidate"] for one in made}) > 1
    for request, one, best in zip(REQUESTS, made, particles, strict=True):
        alone = built("method=none")
        alone.noise = lambda request, _, k=one.info["candidate"]: NoiseStream(
            request.seed, request.prompt, request.sample, k
        )
        (plain,) = alone.sample([request])
        assert torch.equal(one.picture, plain.picture)
        if best.info["particle"] == one.info["candidate"]:
            assert one.info["value"] == pytest.approx(best.info["value"], rel=1e-4)


def test_drafts_are_best_of_n_in_fewer_steps():
    few = built("method=best_of_n", "method.particles=4", steps=2).sample(REQUESTS)
    for one, draft, whole in zip(
        few,
        built(*DRAFTS, "method.draft.refine=none").sample(REQUESTS),
        built(*DRAFTS).sample(REQUESTS),
        strict=True,
    ):
        torch.testing.assert_close(one.picture, draft.picture)
        assert one.info["particle"] == draft.info["candidate"] == whole.info["candidate"]
        assert values(draft) == pytest.approx(drafted(whole), rel=1e-4)


def test_a_resumed_draft_goes_on_from_its_own_way_down():
    """Written apart: of timesteps 501 and 1 the first leads to 251, without noise, and of 751, 501, 251 and 1 the last two follow."""
    request = REQUESTS[0]
    resume = ["method.draft.refine=resume", "method.draft.begin=0.5"]
    (made,) = built(*DRAFTS, *resume, batch_size=1).sample([request])
    few, whole = built("method=none", steps=2), built("method=none", batch_size=1)
    first, step = few.parts.process.steps[0], whole.parts.process.steps[2]
    noise = NoiseStream(request.seed, request.prompt, request.sample, made.info["candidate"])
    start = State.of(noise.normal("initial", 0, 0, (3, 4, 4))[None], torch.tensor([0]))
    read = few.encode([request])
    found = few.parts.predict(start, read, first, Ledger(1), few.parts.predict.calls)
    z = step.a * found.x0 + step.s * found.eps
    end = whole.run([request], read, arrived=State.of(z, torch.tensor([0])), first=2).z
    torch.testing.assert_close(made.picture, whole.decode(end)[0])


def test_a_draft_hands_over_at_its_last_step_above_the_level():
    few, whole = (ddim(FakeBackbone().scheduler_config, number, 0.0).steps for number in (3, 12))
    assert [int(step.time) for step in few] == [667, 334, 1]
    for step in whole:
        assert handover(few, step) == (None if step.time >= 667 else 0 if step.time >= 334 else 1)


@pytest.mark.parametrize(
    ("options", "calls", "verdicts"),
    [
        (["method.draft.keep=2"], 4 * 2 + 2 * 4, 6),
        (["method.draft.refine=resume", "method.draft.keep=3"], 4 * 2 + 3 * 1, 7),
        (["method.draft.refine=none"], 4 * 2, 4),
        (["method.draft.steps=null", "method.draft.candidates=2"], 2 * 2 + 4, 3),
    ],
)
def test_it_costs_what_the_plan_says(options, calls, verdicts):
    reward, backbone = FakeReward(), FakeBackbone()
    made = built(*DRAFTS, *options, backbone=backbone, reward=reward, batch_size=1).sample(REQUESTS)
    assert network_evaluations(config_of(*DRAFTS, *options)) == (calls, calls)
    for one in made:
        assert one.cost.network_forward == calls
        assert one.cost.decoder_forward == one.cost.reward_forward == verdicts
    assert backbone.counts["network_forward"] == calls * len(made)
    assert reward.counts["reward_forward"] == verdicts * len(made)


def test_a_request_without_a_finite_draft_fails_alone_and_costs_its_drafts():
    broken = REQUESTS[0].prompt
    made = built(*DRAFTS, reward=FakeReward(broken=[broken])).sample(REQUESTS)
    assert made[0].picture is None
    assert made[0].cost.network_forward == 8
    for one, two in zip(made[1:], built(*DRAFTS).sample(REQUESTS)[1:], strict=True):
        assert torch.equal(one.picture, two.picture)
        assert math.isfinite(one.info["value"])


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["method.draft.steps=4"], "drafts of 4 steps and sampler.steps=4 is not more"),
        (["method.draft.keep=5"], "more than method.draft.candidates=4"),
        (["method.draft.refine=none", "method.draft.keep=2"], "is not read with method.draft.refine=none"),
        (["method.draft.begin=0.5"], "is not read with method.draft.refine=rerun"),
        (["method.draft.refine=resume", "method.draft.begin=0.95"], "drafts go on at step 1 to 3"),
        (["method.noise_search.rounds=1"], "two strategies"),
    ],
)
def test_what_it_cannot_do_is_one_line(options, mend):
    with pytest.raises(ConfigError, match=mend) as said:
        config_of(*DRAFTS, *options)
    assert "\n" not in str(said.value)


def test_a_draft_that_begins_too_low_to_go_on_is_one_line():
    with pytest.raises(ConfigError, match="drafts of 1 steps do not begin above step 1"):
        built(*DRAFTS, "method.draft.steps=1", "method.draft.refine=resume", "method.draft.begin=0.25")
