import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from align.config.method import TemperingConfig
from align.released.tempering import PublishedLadder, adam_search
from align.sampling.resampling import ess
from align.sampling.tempering import (
    Temperatures,
    Tempering,
    find_temperature,
    freedom_ratio,
)

PUBLISHED = json.loads((Path(__file__).parent / "data" / "das_tempering.json").read_text())
ONE = torch.ones(1)
EVEN = torch.zeros(4).double()
REWARD = torch.tensor([0.0, 1.0, 2.0, 6.0]).double()


def at(tempering, index, steps=10, previous=0.0, base=EVEN, reward=REWARD, correction=ONE, gradient=ONE):
    return tempering.temperatures(
        index, steps, previous, base=base, reward=reward, correction=correction, gradient=gradient
    )


def ladder(tempering, steps, **given):
    """All temperatures of a run whose particles carry the same weights and rewards throughout."""
    found, previous = [], 0.0
    for index in range(steps):
        found.append(at(tempering, index, steps, previous, **given))
        previous = found[-1].now
    return found


def configured(run):
    """Tempering of a published run, as published."""
    schedule = run["tempering_schedule"]
    power = not isinstance(schedule, str | None)
    return PublishedLadder(
        rule={None: "full", "FreeDoM": "freedom"}.get(run["tempering"], run["tempering"]),
        schedule="polynomial" if power else schedule or "full",
        exponent=schedule if power else 1,
        gamma=run["tempering_gamma"],
        start=run["tempering_start"],
        ess=run["ess_threshold"],
    )


@pytest.mark.parametrize("run", PUBLISHED["traces"], ids=lambda run: run["name"])
def test_every_temperature_of_the_published_runs_is_reproduced(run):
    tempering, steps, previous = configured(run), run["num_inference_steps"], 0.0
    recorded = {step["index"]: step for step in run["steps"]}
    for index in range(steps):
        if index not in recorded:
            assert at(tempering, index, steps) == Temperatures(0, 0)
            continue
        step = recorded[index]
        found = at(
            tempering,
            index,
            steps,
            previous,
            base=torch.tensor(step["base"]).double(),
            reward=torch.tensor(step["reward"]).double(),
            correction=torch.tensor([step["correction_rms"]]),
            gradient=torch.tensor([step["gradient_rms"]]),
        )
        assert found.now == pytest.approx(step["now"], abs=1e-5)
        assert found.next == pytest.approx(step["next"], abs=1e-5)
        previous = found.now
    assert len(recorded) == steps - tempering.first(steps)


@pytest.mark.parametrize("case", PUBLISHED["searches"], ids=lambda case: f"{case['result']:.4f}")
def test_published_searches(case):
    """Both what the published one finds, and what it was after."""
    terms = {name: torch.tensor(value).double() for name, value in case.items() if isinstance(value, list)}
    base = terms["log_w"] + terms["log_prob_diffusion"] - terms["log_prob_proposal"] - terms["log_twist_prev"]
    lower, target = case["min_scale"], case["target_ess"]
    assert adam_search(base, terms["log_twist"], lower, target) == pytest.approx(case["result"], abs=1e-5)
    found = find_temperature(lambda scale: ess(base + scale * terms["log_twist"]).item(), lower, target)
    if case["exact_first_crossing"] is None:
        assert found == 1
        assert case["ess_at_one"] >= target
    else:
        assert found == pytest.approx(case["exact_first_crossing"], abs=1e-9)


def test_two_particles_have_a_temperature_in_closed_form():
    """Weights 1 and q have ESS (1 + q)^2 / (1 + q^2), which is 1.6 at q = 1/3."""
    reward = torch.tensor([0.0, -4.0], dtype=torch.float64)
    found = find_temperature(lambda scale: ess(scale * reward).item(), 0.0, 1.6)
    assert found == pytest.approx(math.log(3) / 4, abs=1e-10)


@pytest.mark.parametrize(
    ("sizes", "lower", "expected"),
    [
        ([(0, 4), (1, 2)], 0.0, 1.0),
        ([(0, 4), (1, 3)], 0.2, 1.0),
        ([(0, 1.5), (1, 1)], 0.3, 0.3),
        ([(0, 4), (0.5, 2), (1, 1)], 0.0, 0.5),
        ([(0, 4), (0.25, 2), (0.5, 1), (0.75, 3), (1, 1)], 0.1, 0.25),
        ([(0, 1), (0.25, 2.5), (1, 1)], 0.25, 0.5),
        ([(0, 4), (0.2, 1), (0.4, 3.5), (0.7, 3), (1, 1)], 0.0, 2 / 15),
        ([(0, 4), (0.3, 1), (1, 2.5)], 0.0, 1.0),
    ],
    ids=[
        "falls to it at 1",
        "stays above",
        "is below",
        "passes",
        "passes thrice",
        "starts at its peak",
        "passes early and late",
        "recovers",
    ],
)
def test_the_first_fall_to_the_target_is_found(sizes, lower, expected):
    """For ESS that runs straight from point to point, and target 2."""

    def ess_of(scale):
        for (left, high), (right, low) in pairwise(sizes):
            if scale <= right:
                return high + (low - high) * (scale - left) / (right - left)
        raise AssertionError

    found = find_temperature(ess_of, lower, 2.0)
    assert found == pytest.approx(expected, abs=1e-9)
    assert ess_of(found) <= 2 + 1e-9 or found == 1


def test_the_exponential_schedule():
    rungs = ladder(Tempering(gamma=0.1), 10)
    assert [rung.now for rung in rungs] == pytest.approx([min(1.1**k - 1, 1) for k in range(10)])
    assert rungs[7].now == pytest.approx(0.9487, abs=1e-4)
    assert rungs[8].now == 1


def test_the_shipped_schedule_reaches_one_at_step_87():
    rungs = ladder(Tempering(gamma=0.008), 100)
    assert [rung.now == 1 for rung in rungs].index(True) == 87


@pytest.mark.parametrize("schedule", ["exp", "polynomial"])
@pytest.mark.parametrize(("start", "full_at"), [(0.0, 0.87), (0.2, 0.6), (0.0, 1.0), (0.5, 0.500001)])
def test_a_ladder_of_any_number_of_steps_reaches_one_where_it_should(schedule, start, full_at):
    config = TemperingConfig(schedule=schedule, gamma=None, full_at=full_at, start=start)
    for steps in (8, 10, 25, 50, 87, 100, 999):
        tempering = Tempering(schedule=schedule, gamma=config.growth(steps), start=start)
        rungs = [rung.now for rung in ladder(tempering, steps)] + [1.0]
        count = max((full_at - start) * steps, 1)
        full = tempering.first(steps) + math.ceil(count)
        assert rungs[min(full, steps)] == pytest.approx(1, abs=1e-4)
        assert count <= 1 or rungs[full - 1] < 1


def test_the_polynomial_schedule():
    rungs = ladder(Tempering(schedule="polynomial", gamma=0.25, exponent=2), 6)
    assert [rung.now for rung in rungs] == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1, 1])


def test_the_published_polynomial_forgets_the_exponent_of_the_proposal():
    rungs = ladder(PublishedLadder(schedule="polynomial", gamma=0.25, exponent=2), 6)
    assert [rung.now for rung in rungs] == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1, 1])
    assert [rung.next for rung in rungs] == pytest.approx([1 / 4, 1 / 2, 3 / 4, 1, 1, 1])


@pytest.mark.parametrize(
    "tempering",
    [
        Tempering(gamma=0.01),
        Tempering(gamma=0.3, start=0.3),
        Tempering(schedule="polynomial", gamma=0.07, exponent=0.5),
        Tempering(schedule="full"),
        Tempering("full", gamma=0.01),
        Tempering("full", start=0.5),
    ],
    ids=repr,
)
def test_proposals_follow_the_temperature_of_the_state_they_make(tempering):
    """From the first tempered step on; that of the final state is 1 however far the schedule came."""
    rungs = ladder(tempering, 20)[tempering.first(20) :]
    assert [rung.next for rung in rungs] == [rung.now for rung in rungs[1:]] + [1]


def test_steps_before_the_start_are_plain():
    rungs = ladder(Tempering(gamma=0.25, start=0.3), 10)
    assert rungs[:3] == [Temperatures(0, 0)] * 3
    assert [rung.now for rung in rungs[3:6]] == pytest.approx([0, 0.25, 0.5625])


@pytest.mark.parametrize(
    ("start", "steps", "first"), [(0.29, 100, 29), (0.57, 100, 57), (0.25, 10, 2), (0, 8, 0)]
)
def test_the_first_tempered_step(start, steps, first):
    assert Tempering(start=start).first(steps) == first


def test_none_is_one_throughout():
    assert ladder(Tempering("full", gamma=0.01), 3) == [Temperatures(1, 1)] * 3


def test_a_long_or_steep_schedule_does_not_overflow():
    for schedule in ("exp", "polynomial"):
        tempering = Tempering(schedule=schedule, gamma=1000.0, exponent=300)
        assert tempering.bounds(999, 1000) == Temperatures(1, 1)


def adaptive(kind=Tempering, **options):
    return kind("adaptive", **{"schedule": "previous", "ess": 0.6} | options)


def test_the_adaptive_rule_lets_ess_fall_to_its_share():
    found = at(adaptive(), 3, previous=0.1)
    assert ess(found.now * REWARD).item() == pytest.approx(0.6 * 4, abs=1e-6)
    assert found.now > 0.1


def test_the_adaptive_rule_begins_at_the_schedule_and_leaves_zero_at_once():
    rungs = ladder(adaptive(start=0.2), 10)
    assert [rung.now for rung in rungs[:3]] == [0, 0, 0]
    assert rungs[3].now > 0.1
    published = ladder(adaptive(PublishedLadder), 10)
    assert [rung.now for rung in published] == [0] * 10


def test_the_adaptive_rule_never_falls_and_proposals_never_lag_behind():
    tempering = adaptive(schedule="exp", gamma=0.05)
    rungs = ladder(tempering, 10)
    assert all(later.now >= rung.now for rung, later in pairwise(rungs))
    assert all(rung.next >= rung.now for rung in rungs)
    assert at(tempering, 3, previous=0.8).now == 0.8
    assert at(tempering, 3, previous=0.8, reward=100 * REWARD) == Temperatures(0.8, 0.8)
    assert at(tempering, 9, previous=0.8, reward=100 * REWARD).next == 1


def test_the_published_adaptive_rule_does_fall():
    found = at(adaptive(PublishedLadder, schedule="exp", gamma=0.05), 3, previous=0.8, reward=100 * REWARD)
    assert found.now == found.next < 0.8


def test_the_schedule_bounds_the_adaptive_rule_from_below():
    tempering = adaptive(schedule="exp", gamma=0.1)
    assert at(tempering, 5, reward=100 * REWARD) == Temperatures(
        pytest.approx(1.1**5 - 1), pytest.approx(1.1**6 - 1)
    )


def test_where_rewards_hardly_differ_the_adaptive_rule_goes_to_one():
    assert at(adaptive(), 1, reward=0.01 * REWARD) == Temperatures(1, 1)
    assert at(adaptive(), 1, base=torch.zeros(1), reward=torch.tensor([50.0])) == Temperatures(1, 1)


def test_weights_carried_count_in_the_adaptive_search():
    """A particle favoured by its weight and not by its reward leaves room for a higher temperature."""
    carried = -0.3 * REWARD
    found = at(adaptive(), 1, previous=0.3, base=carried)
    assert found.now == pytest.approx(at(adaptive(), 1).now + 0.3, abs=1e-6)


def test_a_broken_reward_is_refused_where_temperatures_are_sought():
    with pytest.raises(ValueError, match="log-weights"):
        at(adaptive(), 1, reward=torch.tensor([0.0, 1.0, 2.0, math.nan]))


def test_freedom_is_the_ratio_of_root_mean_squares_over_the_group():
    correction, gradient = torch.tensor([[1.0, -1.0], [1.0, 7.0]]), torch.full((2, 2), -10.0)
    found = at(Tempering("freedom"), 0, correction=correction.norm(dim=1), gradient=gradient.norm(dim=1))
    assert found == Temperatures(pytest.approx(13**0.5 / 10), pytest.approx(13**0.5 / 10))


@pytest.mark.parametrize(
    ("correction", "gradient", "capped", "published"),
    [(3.0, 2.0, 1.0, 1.5), (3.0, 0.0, 1.0, math.inf), (0.0, 2.0, 0.0, 0.0), (0.0, 0.0, 0.0, math.nan)],
)
def test_freedom_is_capped_and_guarded_unless_as_published(correction, gradient, capped, published):
    sizes = {"correction": torch.tensor([correction]), "gradient": torch.tensor([gradient])}
    assert freedom_ratio(**sizes) == pytest.approx(capped)
    found = at(PublishedLadder("freedom"), 0, **sizes)
    assert found.now == found.next or math.isnan(published)
    assert found.now == pytest.approx(published, nan_ok=True)
