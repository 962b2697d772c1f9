"""The loop: methods as choices of its parts."""

import math
from itertools import pairwise

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeReward, GaussianBackbone, passes, words_graph

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.sampling.guidance import Guidance
from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from align.sampling.noise import NoiseStream
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.recurrence import Recurrence
from align.sampling.sampler import Request, Sampler
from align.sampling.state import Pictures
from align.semantics.sources import PromptGraphs

PROMPTS = ["red cat blue dog", "a quiet morning", "blue dog"]
REQUESTS = [Request(prompt, seed=7) for prompt in PROMPTS]
STEPS = 8


def parts_of(backbone, reward, batch_size=4, steps=STEPS, eta=1.0, objective=None, strength=1.0, **keywords):
    objective = objective or Objective(preference=1, semantic=10)
    return Parts(
        *passes(backbone, 3.0, batch_size, objective, reward),
        ddim(SCHEDULE, steps, eta),
        Guidance(strength, (0.5, 0.5, 0.5)),
        **keywords,
    )


def plain_of(backbone, batch_size=4, eta=1.0):
    return Parts(*passes(backbone, 3.0, batch_size), ddim(SCHEDULE, STEPS, eta))


def sample(parts, requests=REQUESTS, watch=None, population=None):
    sampler = Sampler(parts, PromptGraphs(words_graph).pairs, CPU, population)
    sampler.on_evaluation = watch
    return sampler.sample(requests)


def same(one, two):
    return all(torch.equal(a.picture, b.picture) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_plain_sampling_is_the_textbook_loop(backbone, eta):
    prompt = PROMPTS[0]
    (outcome,) = sample(plain_of(backbone, batch_size=1, eta=eta), [Request(prompt, seed=7)])
    stream = NoiseStream(7, prompt, 0)
    process = ddim(SCHEDULE, STEPS, eta)
    shape = backbone.latent_shape()
    read = backbone.encode(prompt, "")
    z = stream.normal("initial", 0, 0, shape)[None]
    for step in process.steps:
        found = backbone.predict(z, step, Conditioning.of([read]), Guider(3.0))
        z = step.a_next * found.x0 + (step.s_next**2 - step.std**2) ** 0.5 * found.eps
        z = z + step.std * stream.normal("step", step.index, 0, shape)[None]
    torch.testing.assert_close(outcome.picture, backbone.decode(z)[0].clamp(0, 1))


@pytest.mark.parametrize(
    "recurrence", [Recurrence(), Recurrence("fixed", rounds=(2, 2, 2)), Recurrence("gradient_norm")]
)
def test_with_zero_strength_a_method_is_plain_sampling_bit_for_bit(backbone, reward, recurrence):
    zero = sample(parts_of(backbone, reward, strength=0.0, recurrence=recurrence))
    assert same(zero, sample(plain_of(backbone)))
    assert not reward.counts
    assert all(outcome.cost.network_backward == 0 for outcome in zero)
    assert not same(sample(parts_of(backbone, reward)), zero)


def test_pictures_do_not_influence_each_other(backbone, reward):
    parts = parts_of(backbone, reward, recurrence=Recurrence("gradient_norm"))
    together = sample(parts)
    assert len({outcome.info["rounds"] for outcome in together}) > 1  # They travel differently often.
    for request, outcome in zip(REQUESTS, together, strict=True):
        (alone,) = sample(parts, [request])
        assert torch.equal(alone.picture, outcome.picture)
        assert (alone.cost, alone.info) == (outcome.cost, outcome.info)


def test_recurrence_evaluates_once_and_once_more_a_round(backbone, reward):
    parts = parts_of(backbone, reward, recurrence=Recurrence("fixed", rounds=(2, 2, 2)))
    seen = []
    outcomes = sample(parts, watch=seen.append)
    guided = [outcome.cost.network_backward for outcome in outcomes]
    # Eight steps; the only one of the first phase leaves the prompt without pairs unguided.
    assert [outcome.cost.network_forward for outcome in outcomes] == [24, 1 + 7 * 3, 24]
    assert guided == [24, 21, 24]
    assert [outcome.info["rounds"] for outcome in outcomes] == [16, 14, 16]
    assert max(info.round for info in seen) == 2


def test_rounds_are_decided_by_the_first_evaluation_of_a_step(backbone, reward):
    parts = parts_of(backbone, reward, recurrence=Recurrence("gradient_norm", rate=(1, 1, 3), cap=5))
    seen = []
    sample(parts, REQUESTS[:1], watch=seen.append)
    for index in range(STEPS):
        infos = [info for info in seen if info.step.index == index]
        rate = (1, 1, 3)[parts.judge.objective.terms(infos[0].step).phase]
        assert len(infos) == 1 + min(5, int(rate * float(infos[0].estimate.gradient_norm)))


def test_time_travel_returns_to_the_level_it_came_from(backbone, reward):
    parts = parts_of(backbone, reward, recurrence=Recurrence("fixed", rounds=(1, 1, 1)), strength=1e-6)
    seen = []
    sample(parts, REQUESTS[:1], watch=seen.append)
    step = parts.process.steps[4]
    first, second = (info.state.z for info in seen if info.step == step)
    stream = NoiseStream(7, PROMPTS[0], 0)
    shape = backbone.latent_shape()
    read = backbone.encode(PROMPTS[0], "")
    found = backbone.predict(first, step, Conditioning.of([read]), Guider(3.0))
    child = parts.process.kernel(found.x0, found.eps, step).sample(stream.normal("step", 4, 0, shape))
    ratio = (step.a / step.a_next) ** 2
    expected = ratio**0.5 * child + (1 - ratio) ** 0.5 * stream.normal("renoise", 4, 0, shape)
    torch.testing.assert_close(second, expected, atol=1e-4, rtol=1e-4)


def test_the_previous_prediction_is_that_of_the_previous_evaluation(backbone, reward):
    seen = []
    sample(
        parts_of(backbone, reward, recurrence=Recurrence("fixed", rounds=(1, 1, 1))),
        REQUESTS[:1],
        seen.append,
    )
    assert torch.isnan(seen[0].state.previous_x0).all()
    for before, after in pairwise(seen):
        assert torch.equal(before.estimate.x0, after.state.previous_x0)


@pytest.mark.parametrize("broken", [{"broken": PROMPTS[:1]}, {"flat": PROMPTS[:1]}])
def test_a_broken_or_vanishing_gradient_leaves_the_step_unguided(backbone, broken):
    objective = Objective(preference=1, semantic=0)
    reward = FakeReward(**broken)
    parts = parts_of(backbone, reward, objective=objective, recurrence=Recurrence("fixed", rounds=(1, 1, 1)))
    first, *others = sample(parts)
    plain = sample(plain_of(backbone))
    assert torch.equal(first.picture, plain[0].picture)
    assert first.info["rounds"] == 0
    judged = sum(objective.terms(step).preference for step in parts.process.steps)
    assert first.info["nonfinite_gradients"] == (judged if "broken" in broken else 0)
    assert all(outcome.info["nonfinite_gradients"] == 0 for outcome in others)
    assert not same(others, plain[1:])


def test_guidance_pursues_its_reward(backbone, reward):
    objective = Objective(preference=1, semantic=0)
    requests = [Request(prompt, seed=seed) for prompt in PROMPTS for seed in range(4)]
    prompts = [request.prompt for request in requests]

    def score(outcomes):
        return reward.score(torch.stack([one.picture for one in outcomes]), prompts)

    guided = score(sample(parts_of(backbone, reward, objective=objective), requests))
    plain = score(sample(plain_of(backbone), requests))
    assert (guided > plain).float().mean() > 0.9


# ---------------------------------------------------------------- importance weights

NUMBER = 4000


def weighted_run(strength, weigh=True, eta=1.0, schedule=SCHEDULE):
    """Particles of one picture, pushed towards brighter latents, on exactly known Gaussian latents."""

    class Bright(FakeReward):
        def score(self, pictures, prompts, step=None):
            return pictures.mean(dim=(1, 2, 3))

    backbone = GaussianBackbone(0.3, 1.0, (1, 2, 2))
    objective = Objective(preference=1, semantic=0, dynamic=False)
    parts = Parts(
        *passes(backbone, 1.0, NUMBER, objective, Bright()),
        ddim(schedule, 10, eta),
        # The last steps' kernels are so narrow that any shift would leave them: the third phase is unguided.
        Guidance(strength, (0.0, 0.08, 0.0)),
        weigh=weigh,
    )
    streams = lambda _, slot: NoiseStream(0, "p", 0, slot)  # noqa: E731
    pictures = Pictures(
        ["p"], Conditioning(*torch.zeros(2, 1, 2, 2)), torch.zeros(1, 2, 2), torch.tensor([False])
    )
    with torch.no_grad():
        state = start(streams, 1, NUMBER, backbone.latent_shape(), CPU)
        return run(parts, state, pictures, streams, Ledger(1))


def moved_weights(state):
    """Whether any particle's weight is not the equal share that it started with."""
    return bool((state.log_weights + math.log(NUMBER)).any())


def test_importance_weights_undo_the_guidance():
    plain = weighted_run(0.0, weigh=False)
    guided = weighted_run(1.0)
    target, pushed = (state.z.mean(dim=(1, 2, 3)) for state in (plain, guided))
    error = float(target.std()) / NUMBER**0.5
    weights = torch.softmax(guided.log_weights, 0)
    effective = 1 / float(weights.square().sum())
    assert effective > 200
    weighted = float((weights * pushed).sum())
    # The push is far outside the error of the weighted mean, so a wrong sign or a missing term fails.
    spread = float(((weights * (pushed - weighted)) ** 2).sum().sqrt())
    assert float(pushed.mean() - target.mean()) > 8 * (spread + error)
    assert abs(weighted - float(target.mean())) < 4 * (spread + error)
    # E[w] = 1: the weights are a ratio of normalised densities.
    ratio = (guided.log_weights + math.log(NUMBER)).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / NUMBER**0.5


def test_unshifted_particles_keep_weight_one():
    assert not moved_weights(weighted_run(0.0))
    assert not moved_weights(weighted_run(1.0, weigh=False))


def test_a_deterministic_step_is_not_shifted_under_weights():
    """It has no density, so a shifted particle could have no weight."""
    assert not moved_weights(weighted_run(1.0, eta=0.0))
    ends_clean = {**SCHEDULE, "set_alpha_to_one": True, "steps_offset": 0}
    assert torch.isfinite(weighted_run(1.0, schedule=ends_clean).log_weights).all()
