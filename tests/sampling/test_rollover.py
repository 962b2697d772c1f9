"""Rollover budget forcing: where a particle's evaluations go, and what comes of them."""

from dataclasses import replace

import torch
from fakes import SCHEDULE, passes

from align.processes.ddim import ddim
from align.released.rollover import AnyLevel
from align.sampling.levels import rollover
from align.sampling.noise import NoiseStream
from align.sampling.parts import Parts
from align.sampling.rollover import Rollover
from align.sampling.sampler import Population, Request
from align.sampling.state import Estimate, State
from align.sampling.values import PosteriorMean
from sampling.test_loop import REQUESTS, STEPS, plain_of, sample

CLEAN = SCHEDULE | {"set_alpha_to_one": True, "steps_offset": 0}
MANY = [Request("a red cat", seed=seed) for seed in range(12)]


def rbf_of(backbone, reward, plan, batch_size=4):
    value = PosteriorMean(backbone.decode)
    return Parts(
        *passes(backbone, 3.0, batch_size, reward=reward, value=value), ddim(CLEAN, STEPS, 1.0), rollover=plan
    )


def play(backbone, plan, *scripts, levels=4):
    """Particles whose evaluations have given values: the levels they proposed from, and the state at the end.

    A state's clean latents are its value, so that those at the end tell what was chosen.
    """
    parts = Parts(*passes(backbone, 3.0, 4), ddim(CLEAN, levels, 1.0), rollover=plan)
    told = [[] for _ in scripts]
    queues = [list(script) for script in scripts]

    def evaluate(state, step, want, draws):
        values = torch.tensor([queues[k].pop(0) for k in state.picture.tolist()])
        x0 = values.view(-1, 1, 1, 1).expand_as(state.z)
        found = Estimate.of(torch.zeros_like(x0), x0, x0)
        return Estimate(**vars(found) | {"value": values})

    def tell(step, state, estimate, trace):
        if trace:
            for k in state.picture.tolist():
                told[k].append(step.index)

    picture = torch.arange(len(scripts))
    start = State.of(torch.zeros(len(scripts), 1, 1, 1), picture)
    end = rollover(parts, evaluate, start, lambda k, m: NoiseStream(0, str(k), 0, m), tell)
    assert not any(queues)
    return told, end


def test_a_better_candidate_goes_on_and_leaves_its_quota_to_the_next_level(backbone):
    """Four levels, so three that propose, with three candidates each."""
    told, end = play(
        backbone,
        Rollover(budget=10, first=1),
        [0, 1, -1, -2, -3, -4, -5, 2, 1, 3],
        [0, -3, -1, -2, -2, -3, 0, 1, 0, 0],
    )
    # The first goes on at once, so the second level has two more, and uses them up: five.
    assert told[0] == [0, 1, 1, 1, 1, 1, 2, 2, 2]
    # The other uses up the first level's three; its best, -1, is what the second level's have to beat.
    assert told[1] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert end.log_weights.tolist() == [3, 1]
    assert end.z.flatten().tolist() == [3, 1]


def test_the_best_of_the_first_states_begins(backbone):
    """It is what the first level's candidates have to beat."""
    told, _ = play(backbone, Rollover(budget=8, first=2), [5, 0, 4, 6, 1, 1, 1, 1])
    assert told[0] == [0, 0, 1, 1, 2, 2]


def test_as_released_the_bar_never_falls_and_levels_have_less_than_their_share(backbone):
    """Of thirteen candidates three for each of four levels, of which three propose, but one that is not drawn."""
    told, end = play(
        backbone, AnyLevel(budget=14, first=1), [0, *range(-12, 0)], [0, *[-1] * 3, 1, *[0] * 6, 3, 2]
    )
    assert told[0] == [0, 0, 0, 1, 1, 1, *[2] * 6]
    assert told[1] == [0, 0, 0, 1, *[2] * 8]
    assert end.log_weights.tolist() == [-1, 3]


def test_a_value_that_is_no_number_is_below_all_others(backbone):
    nan = float("nan")
    told, end = play(backbone, Rollover(budget=6, first=1), [nan, nan, 1, nan, nan, 0], levels=3)
    assert told[0] == [0, 0, 1, 1, 1]
    assert end.log_weights.tolist() == [0]


def test_it_raises_the_reward_at_its_known_cost(backbone, reward):
    parts = rbf_of(backbone, reward, Rollover(budget=4 * STEPS, first=4))
    found, plain = sample(parts, MANY), sample(plain_of(backbone), MANY)
    costs = {(one.cost.network_forward, one.cost.decoder_forward, one.cost.reward_forward) for one in found}
    assert costs == {(4 * STEPS, 4 * STEPS + 1, 4 * STEPS)}
    prompts = [request.prompt for request in MANY]
    scores = [reward.score(torch.stack([one.picture for one in some]), prompts) for some in (found, plain)]
    assert float((scores[0] - scores[1]).mean()) > 0.3


def test_of_some_particles_the_one_with_the_best_last_candidate_is_returned(backbone, reward):
    parts = rbf_of(backbone, reward, Rollover(budget=2 * STEPS, first=2))
    one = REQUESTS[:1]
    (found,) = sample(parts, one, population=Population(3, 1, "weight"))
    every = [replace(one[0], sample=k) for k in range(3)]
    group = sample(parts, every, population=Population(3, 3))
    scores = reward.score(torch.stack([one.picture for one in group]), [one[0].prompt] * 3)
    assert torch.equal(found.picture, group[int(scores.argmax())].picture)
    assert found.cost.network_forward == 6 * STEPS
