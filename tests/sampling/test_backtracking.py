"""Depth-first search: where particles go back, what it costs, and what comes of it."""

import math

import pytest
import torch
from fakes import SCHEDULE, FakeReward, passes

from align.processes.ddim import ddim
from align.sampling.backtracking import Backtracking, moved
from align.sampling.levels import backtrack
from align.sampling.noise import Draws, NoiseStream
from align.sampling.parts import Parts
from align.sampling.state import Estimate, Kept, State
from align.sampling.values import PosteriorMean
from sampling.test_loop import STEPS, plain_of, same, sample

CLEAN = SCHEDULE | {"set_alpha_to_one": True, "steps_offset": 0}


def dfs_of(backbone, reward, plan, eta=1.0):
    value = PosteriorMean(backbone.decode)
    return Parts(
        *passes(backbone, 3.0, 4, reward=reward, value=value), ddim(SCHEDULE, STEPS, eta), backtracking=plan
    )


def play(backbone, plan, *scripts):
    """Particles of four steps whose evaluations have given values: the levels that they come to, each with what they come from.

    A state's clean latents are its value.
    """
    parts = Parts(*passes(backbone, 3.0, 4), ddim(CLEAN, 4, 1.0), backtracking=plan)
    told = [[] for _ in scripts]
    queues = [list(script) for script in scripts]

    def evaluate(state, step, want, draws):
        assert want.valued.tolist() == [step.index in plan.thresholds] * len(state.z)
        values = torch.tensor([float(queues[k].pop(0)) for k in state.picture.tolist()])
        x0 = values.view(-1, 1, 1, 1).expand_as(state.z)
        return Estimate(**vars(Estimate.of(torch.zeros_like(x0), x0, x0)) | {"value": values})

    def tell(step, state, estimate, trace):
        for k, before in zip(state.picture.tolist(), state.previous_x0.flatten().tolist(), strict=True):
            told[k].append((step.index, before))

    start = State.of(torch.zeros(len(scripts), 1, 1, 1), torch.arange(len(scripts)))
    end = backtrack(parts, evaluate, start, lambda k, m: NoiseStream(0, str(k), 0, m), tell)
    assert not any(queues)
    return told, end


def test_who_fails_goes_back_until_the_budget_is_gone_and_then_the_best_goes_on(backbone):
    told, end = play(
        backbone, Backtracking(8, {2: 0.0}, 1), [7, 7, -3, 7, -1, 7, -2, 5], [7, 7, -3, 7, 1, 6], [7, 7, 2, 4]
    )
    assert [level for level, _ in told[0]] == [0, 1, 2, 1, 2, 1, 2, 3]
    assert told[0][-1] == (3, -1)
    assert [level for level, _ in told[1]] == [0, 1, 2, 1, 2, 3]
    assert told[1][-1] == (3, 1)
    assert [level for level, _ in told[2]] == [0, 1, 2, 3]
    assert end.z.flatten().tolist() == [5, 6, 4]


def test_the_way_back_is_as_long_as_the_budget_allows(backbone):
    """Depth 3 of a budget of 6: from the third step, two back at most; then it is over."""
    told, _ = play(backbone, Backtracking(6, {2: 0.0, 3: 0.0}, 3), [7, 7, -1, 7, 3, 1])
    assert [level for level, _ in told[0]] == [0, 1, 2, 1, 2, 3]


def test_a_value_that_is_no_number_fails_and_never_goes_on_for_another(backbone):
    nan = math.nan
    told, _ = play(backbone, Backtracking(6, {2: 0.0}, 1), [7, 7, -3, 7, nan, 5], [7, 7, nan, 7, nan, 5])
    assert told[0][-1] == (3, -3)
    assert math.isnan(told[1][-1][1])


def test_back_is_the_forward_process_over_several_steps(backbone):
    """Its mean and deviation, from the third step to the first."""
    process = ddim(SCHEDULE, 4, 1.0)
    z, (first, _, third, _) = torch.full((2000, 1, 1, 1), 1.5), process.steps
    state = State.of(z, torch.zeros(len(z), dtype=torch.long))
    kept = Kept(state, Estimate.of(z, z, z), torch.zeros(len(z)))
    draws = Draws([NoiseStream(0, "p", 0, k) for k in range(len(z))], 2, 0, (1, 1, 1), z.device)
    found = moved(process, kept, third, 0, draws).z
    ratio = first.a / third.a
    assert float(found.mean()) == pytest.approx(1.5 * ratio, abs=0.1)
    assert float(found.var()) == pytest.approx(first.s**2 - (ratio * third.s) ** 2, rel=0.15)


def test_where_all_pass_it_is_plain_sampling(backbone, reward):
    found = sample(dfs_of(backbone, reward, Backtracking(3 * STEPS, {2: -1e9, 4: -1e9}, 2)))
    plain = sample(plain_of(backbone))
    assert same(found, plain)
    assert {one.cost.network_forward for one in found} == {STEPS}
    assert {one.cost.reward_forward for one in found} == {2}


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_it_spends_its_budget_and_no_more(backbone, eta):
    """Also where steps draw no noise: the way back does."""
    parts = dfs_of(backbone, FakeReward(), Backtracking(4 * STEPS, {STEPS // 2: 1e9}, STEPS // 2), eta)
    found = sample(parts)
    assert all(3 * STEPS < one.cost.network_forward <= 4 * STEPS for one in found)
    times = [one.info["visits"].split() for one in found]
    assert all(int(one[STEPS // 2]) > 3 and one[-1] == "1" for one in times)
