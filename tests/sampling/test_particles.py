"""Particle filters: weights, potentials, and who goes on."""

import math
from dataclasses import fields, replace

import pytest
import torch
from fakes import CPU, SCHEDULE, passes

from align.processes.ddim import ddim
from align.processes.lcm import lcm
from align.released.lcm import released_lcm
from align.released.particles import ForgetfulSteering, StaleTempered
from align.sampling.guidance import Guidance
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Objective
from align.sampling.particles import Steering, Tempered
from align.sampling.parts import Parts
from align.sampling.resampling import Resampling
from align.sampling.sampler import Population, Request
from align.sampling.state import Estimate, State
from align.sampling.tempering import Tempering
from align.sampling.values import PosteriorMean
from sampling.test_loop import PROMPTS, REQUESTS, STEPS, plain_of
from sampling.test_search import grouped

NEVER, ALWAYS = Resampling("systematic", 0.0), Resampling("systematic", None)
FULL = Tempering("full")
STEP = ddim(SCHEDULE, 10, 1.0).steps


def state_of(groups=1, particles=4):
    """Particles whose latents are their numbers."""
    number = groups * particles
    z = torch.arange(float(number)).view(-1, 1, 1, 1)
    return State.of(z, torch.arange(groups).repeat_interleave(particles))


def estimate_of(value):
    """An estimate in which everything of a particle is its number, but for the value."""
    value = torch.as_tensor(value)
    own = torch.arange(float(len(value)))
    figures = dict.fromkeys([field.name for field in fields(Estimate)], own)
    wide = {name: own.view(-1, 1, 1, 1) for name in ("eps", "x0", "correction", "gradient", "clean_shift")}
    return Estimate(**figures | wide | {"value": value})


def draws_of(state, step, seed=0):
    streams = [NoiseStream(seed, "p", row) for row in range(len(state.z))]
    return Draws(streams, step.index, 0, (1, 1, 1), CPU)


def select(rule, state, value, index=1, seed=0):
    return rule(state, estimate_of(value), STEP[index], draws_of(state, STEP[index], seed))


def tempered(resampling, alpha=0.5, tempering=FULL, kind=Tempered):
    return kind(tempering, alpha, resampling, 10)


def steering(potential, resampling, rate=2.0, at=(1, 2, 3)):
    return Steering(potential, rate, at, resampling)


# ---------------------------------------------------------------- weights


def test_a_weight_that_is_not_spent_is_carried():
    """Each new twist takes the last one's place."""
    rule, state = tempered(NEVER), state_of()
    for index, value in enumerate(([3.0, 1.0, 0.0, 2.0], [1.0, 2.0, 3.0, 4.0])):
        found = select(rule, state, value, index)
        assert found.index.tolist() == [0, 1, 2, 3]
        state = found.state
        expected = torch.tensor(value) / rule.alpha - math.log(4)
        torch.testing.assert_close(state.log_weights, expected.double())
    value = torch.tensor([0.5, 0.0, 0.0, 1.0])
    torch.testing.assert_close(
        rule.finish(state, value).log_weights, value.double() / rule.alpha - math.log(4)
    )


@pytest.mark.parametrize("rule", [tempered(ALWAYS), steering("max", ALWAYS)])
def test_resampling_sets_weights_to_their_mean(rule):
    """So that the log-sum-exp of a group remains the log evidence."""
    value = torch.tensor([3.0, 1.0, 0.0, 2.0])
    after = select(rule, state_of(), value).state.log_weights
    assert after.unique().numel() == 1
    evidence = torch.logsumexp(2 * value.double() - math.log(4), 0)
    torch.testing.assert_close(torch.logsumexp(after, 0), evidence)


def test_a_group_is_resampled_where_its_effective_size_is_low():
    even, uneven = [1.0, 1.0, 1.1, 1.0], [9.0, 0.0, 0.0, 0.0]
    found = select(tempered(Resampling("ssp", 0.5)), state_of(2), even + uneven)
    assert [found.trace[k]["resampled"] for k in (0, 1)] == [0, 1]
    assert found.index.tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert found.trace[0]["ess"] > 3.9
    assert found.trace[1]["ess"] < 1.1
    assert found.state.log_weights[:4].unique().numel() > 1
    assert found.state.log_weights[4:].unique().numel() == 1


def test_all_that_belongs_to_a_particle_follows_it():
    value = [0.0, 9.0, 0.0, 9.0]
    found = select(tempered(ALWAYS), state_of(), value)
    ancestors = [1.0, 1.0, 3.0, 3.0]
    assert found.index.tolist() == ancestors
    assert found.state.z.flatten().tolist() == ancestors
    for name in ("eps", "x0", "gradient", "gradient_norm", "loss"):
        assert getattr(found.estimate, name).flatten().tolist() == ancestors
    assert found.state.twist.tolist() == [18.0] * 4
    steered = select(steering("max", ALWAYS), state_of(), value)
    assert steered.index.tolist() == ancestors
    assert steered.state.statistic.tolist() == [9.0] * 4
    assert steered.state.twist.tolist() == [18.0] * 4


def test_as_released_gradients_and_twists_stay_behind():
    found = select(tempered(ALWAYS, kind=StaleTempered), state_of(), [0.0, 9.0, 0.0, 9.0])
    assert found.state.z.flatten().tolist() == [1.0, 1.0, 3.0, 3.0]
    assert found.estimate.gradient.flatten().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert found.state.twist.tolist() == [0.0, 18.0, 0.0, 18.0]


def test_the_next_proposal_follows_the_next_temperature():
    rule = tempered(NEVER, 0.5, Tempering("schedule", gamma=0.1))
    found = select(rule, state_of(), [1.0, 2.0, 3.0, 4.0], index=2)
    assert found.trace[0]["temperature"] == pytest.approx(1.1**2 - 1)
    assert found.state.tilt.tolist() == [pytest.approx((1.1**3 - 1) / 0.5)] * 4


# ---------------------------------------------------------------- potentials


@pytest.mark.parametrize("resampling", [NEVER, Resampling("systematic", 0.5), ALWAYS])
@pytest.mark.parametrize("potential", ["max", "diff", "add", "rt"])
def test_the_end_makes_every_potential_the_same_target(potential, resampling):
    """The product of a path's potentials and the last one is exp(rate r) of the finished picture."""
    rule = steering(potential, resampling, at=(1, 2, 4))
    values = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)).double()
    reward = torch.tensor([0.4, -1.0, 2.0, 0.1])
    state, product = state_of(), torch.zeros(4, dtype=torch.float64)
    for index, value in enumerate(values):
        before = state
        found = select(rule, state, value, index)
        state = found.state
        gained = state.log_weights - before.log_weights
        if index in rule.at and found.trace[0]["resampled"]:
            gained = state.twist - before.twist[found.index]
        product = product[found.index] + gained
    torch.testing.assert_close(state.twist, product)
    finished = rule.finish(state, reward)
    torch.testing.assert_close(finished.log_weights - state.log_weights + product, 2.0 * reward.double())


def test_potentials_are_the_published_ones():
    first, second = torch.tensor([1.0, 2.0, 0.0, -1.0]), torch.tensor([0.5, 3.0, 1.0, -2.0])
    gains = {
        "max": (first, torch.maximum(first, second)),
        "diff": (first, second - first),
        "add": (first, first + second),
        "rt": (first, second),
    }
    for potential, (one, two) in gains.items():
        rule = steering(potential, NEVER)
        state = select(rule, state_of(), first, 1).state
        torch.testing.assert_close(state.log_weights, 2.0 * one.double() - math.log(4))
        state = select(rule, state, second, 2).state
        torch.testing.assert_close(state.log_weights, 2.0 * (one + two).double() - math.log(4))


def test_the_rate_rises_to_its_full_height():
    """By (1 + gamma)^k - 1 the k-th time, at most 1; the target is that of the whole rate."""
    rule = Steering("max", 2.0, (1, 3, 4), NEVER, growth=0.5)
    assert [rule.rate_at(STEP[k]) for k in rule.at] == [1.0, 2.0, 2.0]
    value = torch.tensor([1.0, 2.0, 0.0, -1.0]).double()
    found = select(rule, state_of(), value).state
    torch.testing.assert_close(found.log_weights, 1.0 * value - math.log(4))
    later = select(rule, found, value, 3).state
    torch.testing.assert_close(later.log_weights, 3.0 * value - math.log(4))
    torch.testing.assert_close(rule.finish(later, value).log_weights, 2.0 * value - math.log(4))


def test_steps_that_are_not_listed_do_nothing():
    rule = steering("max", ALWAYS)
    assert [rule.reads(step) for step in STEP[:5]] == [False, True, True, True, False]
    found = select(rule, state_of(), [1.0, 2.0, 3.0, 4.0], index=4)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert not found.trace


def evidence(rule, groups=500, rate=0.7, steps=4):
    """Estimates of E[exp(rate x)], one a group, of a chain x' = 0.8 x + 0.6 noise whose x is N(0, 1) at every step."""
    generator = torch.Generator().manual_seed(5)
    state = state_of(groups)
    number = len(state.z)
    state = replace(state, z=torch.randn(number, 1, 1, 1, generator=generator))
    for index in range(steps):
        found = rule(
            state, estimate_of(state.z.flatten()), STEP[index], draws_of(state, STEP[index], index)
        ).state
        state = replace(found, z=0.8 * found.z + 0.6 * torch.randn(number, 1, 1, 1, generator=generator))
    weights = rule.finish(state, state.z.flatten()).log_weights.view(groups, -1)
    return torch.logsumexp(weights, 1).exp() / math.exp(rate**2 / 2)


def rules(rate=0.7):
    potentials = {
        name: Steering(name, rate, (0, 1, 3), Resampling("systematic", 0.9))
        for name in ("max", "diff", "add", "rt")
    }
    potentials["rising"] = replace(potentials["max"], growth=0.4)
    filters = {
        scheme: Tempered(Tempering("schedule", gamma=0.3), 1 / rate, Resampling(scheme, 0.9), 4)
        for scheme in ("ssp", "multinomial")
    }
    return potentials | filters


@pytest.mark.parametrize("name", rules())
def test_the_evidence_is_estimated_without_bias(name):
    found = evidence(rules()[name])
    assert abs(float(found.mean()) - 1) < 4 * float(found.std()) / len(found) ** 0.5


@pytest.mark.slow
def test_twists_that_stay_behind_bias_the_evidence():
    rule = rules(2.0)["ssp"]
    stale = StaleTempered(*(getattr(rule, field.name) for field in fields(rule)))
    found, sound = (evidence(one, rate=2.0).log() for one in (stale, rule))
    assert float(found.mean() - sound.mean()) > 10 * float(found.std()) / len(found) ** 0.5


def test_as_released_weights_are_forgotten():
    """Where nothing is resampled, also in the product; values below the floor are alike; the end does not count."""
    rule, value = ForgetfulSteering("max", 2.0, (1, 2, 3), NEVER), [1.0, 2.0, -1.0, -3.0]
    found = select(rule, state_of(), value)
    assert not found.trace[0]["resampled"]
    assert found.state.log_weights.tolist() == [-math.log(4)] * 4
    assert found.state.twist.tolist() == [0.0] * 4
    assert found.state.statistic.tolist() == [1.0, 2.0, 0.0, 0.0]
    assert not rule.reads_end()
    assert rule.finish(found.state, torch.ones(4)) is found.state


def test_as_released_the_last_time_takes_out_what_was_won():
    rule = ForgetfulSteering("max", 2.0, (1, 3), ALWAYS)
    first = select(rule, state_of(), [20.0, 0.0, 20.0, 0.0])
    assert first.index.tolist() == [0, 0, 2, 2]
    assert first.state.twist.tolist() == [math.log(1e10)] * 4  # not 40
    last = select(rule, first.state, [20.0] * 4, index=3)
    assert not last.trace[0]["resampled"]  # all are equal, whatever the threshold


# ---------------------------------------------------------------- what is not finite

BROKEN = [torch.nan, torch.inf, -torch.inf]
FILTERS = [
    tempered,
    *(lambda resampling, name=name: steering(name, resampling) for name in ("max", "diff", "add", "rt")),
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("make", FILTERS)
def test_a_particle_without_a_finite_value_has_no_children(make, broken):
    found = select(make(ALWAYS), state_of(), [1.0, broken, 1.0, 1.0])
    assert 1 not in found.index.tolist()
    assert torch.isfinite(found.state.log_weights).all()


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("make", FILTERS)
def test_it_stays_without_weight_until_the_end(make, broken):
    rule = make(NEVER)
    state = select(rule, state_of(), [1.0, broken, 1.0, 1.0], 1).state
    state = select(rule, state, [1.0, 1.0, 1.0, 2.0], 2).state
    weights = rule.finish(state, torch.tensor([1.0, 1.0, broken, 1.0])).log_weights
    assert torch.isneginf(weights).tolist() == [False, True, True, False]
    assert not torch.isnan(state.log_weights).any()
    assert not torch.isnan(state.twist).any()


@pytest.mark.parametrize("make", [*FILTERS, lambda rule: tempered(rule, tempering=Tempering("adaptive"))])
def test_a_step_that_values_none_of_a_group_does_not_weigh_it(make):
    rule = make(Resampling("ssp", 0.5))
    state = select(rule, state_of(2), [torch.nan] * 4 + [1.0] * 4, 1).state
    torch.testing.assert_close(state.log_weights[:4], torch.full((4,), -math.log(4)).double())
    state = select(rule, state, [5.0, 0.0, 0.0, 0.0] * 2, 2).state
    assert torch.isfinite(state.log_weights).all()
    assert torch.isfinite(rule.finish(state, torch.ones(8)).log_weights).all()


@pytest.mark.parametrize("make", [*FILTERS, lambda rule: tempered(rule, tempering=Tempering("adaptive"))])
def test_a_group_of_the_dead_is_left_alone(make):
    state = replace(state_of(), log_weights=torch.full((4,), -torch.inf, dtype=torch.float64))
    found = select(make(Resampling("ssp", 0.5)), state, [1.0, 2.0, 3.0, 4.0])
    assert found.index.tolist() == [0, 1, 2, 3]
    assert torch.isneginf(found.state.log_weights).all()
    assert found.trace[0]["ess"] == 0.0


# ---------------------------------------------------------------- in the loop


def das_of(backbone, reward, tempering=None, resampling=None, process=None, alpha=0.3):
    objective = Objective(1, 0, semantic_until=2, both_until=2, dynamic=False, clamp=True)
    process = process or ddim(SCHEDULE, STEPS, 1.0)
    rule = Tempered(
        tempering or Tempering("schedule", gamma=0.1),
        alpha,
        resampling or Resampling("ssp", 0.5),
        STEPS,
        3.0,
    )
    return Parts(
        *passes(backbone, 3.0, 4, objective, reward, value=PosteriorMean(backbone.decode)),
        process,
        Guidance(1.0, (1.0, 1.0, 1.0), "variance"),
        select=rule,
        weigh=True,
    )


ASKED = [Request(prompt, seed=7, sample=k) for prompt in PROMPTS for k in range(3)]
ALL = Population(3, 3)


def pictures(outcomes):
    return torch.stack([one.picture for one in outcomes])


def test_before_the_first_tempered_step_sampling_is_plain(backbone, reward):
    """Neither guided nor valued: a filter that never starts only weighs the finished pictures."""
    never = grouped(das_of(backbone, reward, Tempering("schedule", start=1.0)), reward, ALL, ASKED)
    scored = sum(one.cost.reward_forward for one in never)
    plain = grouped(plain_of(backbone), reward, ALL, ASKED)
    assert torch.equal(pictures(never), pictures(plain))
    assert scored == len(ASKED)
    late = grouped(das_of(backbone, reward, Tempering("schedule", start=0.75)), reward, ALL, ASKED)
    assert {one.cost.network_backward for one in late} == {STEPS // 4}
    assert not torch.equal(pictures(late), pictures(plain))


def test_groups_never_mix(backbone, reward):
    parts = das_of(backbone, reward)
    together = grouped(parts, reward, Population(3, 1, "draw"), REQUESTS)
    for request, outcome in zip(REQUESTS, together, strict=True):
        (alone,) = grouped(parts, reward, Population(3, 1, "draw"), [request])
        assert torch.equal(alone.picture, outcome.picture)
        assert alone.info == outcome.info


@pytest.mark.parametrize("children", [False, True])
@pytest.mark.parametrize("kind", [Steering, ForgetfulSteering])
def test_the_way_of_every_group_is_recorded(backbone, reward, kind, children):
    value = PosteriorMean(backbone.decode)
    rule = kind("max", 1.0, (2, 4, 6), ALWAYS)
    parts = Parts(
        *passes(backbone, 3.0, 4, reward=reward, value=value),
        ddim(SCHEDULE, STEPS, 1.0),
        select=rule,
        select_children=children,
    )
    for outcome in grouped(parts, reward, Population(3, 1, "best")):
        sizes, drawn = (outcome.info[name].split() for name in ("ess", "resampled"))
        assert [k for k, size in enumerate(sizes) if size != "nan"] == [2, 4, 6]
        # As released the last time counts only if weights differ enough.
        assert [drawn[2], drawn[4]] == ["1", "1"]


# ---------------------------------------------------------------- consistency models


def test_the_step_without_noise_is_weighed_and_not_guided(backbone, reward):
    parts = das_of(backbone, reward, process=lcm(dict(SCHEDULE), STEPS))
    (outcome,) = grouped(parts, reward, Population(3, 1, "draw"), REQUESTS[:1])
    assert outcome.cost.network_forward == 3 * STEPS
    assert outcome.cost.network_backward == outcome.cost.decoder_backward == 3 * (STEPS - 1)
    assert outcome.cost.decoder_forward == outcome.cost.reward_forward == 3 * (STEPS + 1)
    assert len(outcome.info["ess"].split()) == STEPS


def test_as_released_a_consistency_models_guidance_and_noise_disagree():
    schedule = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
    schedule |= {"beta_schedule": "scaled_linear"}
    plain, released = lcm(schedule, 4), released_lcm(schedule, 4, 0.5)
    x0 = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    shift = 0.1 * x0.flip(0)
    ratios = []
    for one, step in zip(plain.steps, released.steps, strict=True):
        right, wrong = plain.kernel(x0, x0, one), released.kernel(x0, x0, step)
        torch.testing.assert_close(right.sample(noise), wrong.sample(noise))
        ratios.append(wrong.log_ratio(wrong.shifted(shift), noise))
        if step.index < 3:
            expected = 4 * right.log_ratio(right.shifted(shift), noise)  # 1 / eta^2
            matches = torch.allclose(ratios[-1].double(), expected)
            assert matches is (step.index < 2)
    assert torch.equal(ratios[2], ratios[1])
    assert [step.std for step in released.steps] == [
        pytest.approx(0.5 * plain.steps[0].std),
        pytest.approx(0.5 * plain.steps[1].std),
        0.0,
        pytest.approx(0.5 * plain.steps[3].s),
    ]
