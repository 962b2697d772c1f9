"""What reward a noisy state can expect: several estimates, what each says and what each costs."""

from dataclasses import replace

import pytest
import torch
from fakes import CHANNELS, CPU, SIDE, WIDTH, FakeReward, passes

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.errors import MissingWeights, WrongWeights
from align.processes.ddim import ddim
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.sampler import Population
from align.sampling.schedules import ahead, populations
from align.sampling.search import Prune, Search
from align.sampling.selection import Keep
from align.sampling.value_network import (
    ValueNetwork,
    ValueShape,
    load_value_network,
    read_shape,
    save_value_network,
)
from align.sampling.values import Asked, Lookahead, Looks, PosteriorMean, Regressed
from sampling.test_loop import PROMPTS, REQUESTS, SCHEDULE, STEPS, parts_of, sample
from sampling.test_search import grouped

STEP = ddim(SCHEDULE, STEPS, 1.0).steps[3]
SHAPE = ValueShape(
    (CHANNELS, SIDE, SIDE), WIDTH, ("one", "two"), (3.0, -1.0), (2.0, 0.5), width=16, layers=1, heads=2
)


def scorer(prompts):
    """The fake reward of a particle's picture at the step."""
    return lambda pictures, time: FakeReward().score(pictures, prompts, torch.full((len(prompts),), time))


def texts(number):
    return [PROMPTS[k % len(PROMPTS)] for k in range(number)]


def states(backbone, number=3):
    """Particles of some prompts."""
    prompts = texts(number)
    z = torch.randn(number, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    conditioning = Conditioning.of([backbone.encode(prompt, "") for prompt in prompts])
    found = backbone.predict(z, STEP, conditioning, Guider(3.0))
    own = [NoiseStream(5, prompt, 0, k) for k, prompt in enumerate(prompts)]
    draws = Draws(own, STEP.index, 0, backbone.latent_shape(), CPU)
    return Asked(z, found.x0, found.eps, conditioning, STEP, draws, scorer(prompts))


def taken(given, rows):
    prompts = texts(len(given.z))
    some, rows = scorer([prompts[k] for k in rows]), torch.tensor(rows)
    conditioning, draws = given.conditioning.take(rows), given.draws.take(rows)
    return Asked(given.z[rows], given.x0[rows], given.eps[rows], conditioning, STEP, draws, some)


def network(seed=0):
    torch.manual_seed(seed)
    return ValueNetwork(SHAPE).eval()


def searching(backbone, reward, value, candidates=4, batch_size=4):
    return Parts(
        *passes(backbone, 3.0, batch_size, reward=reward, value=value),
        ddim(SCHEDULE, STEPS, 1.0),
        search=Search(candidates, probabilities=(1.0,) * (STEPS - 1)),
    )


def paid(outcomes):
    names = ("network_forward", "decoder_forward", "reward_forward", "value_forward", "network_backward")
    return {tuple(getattr(one.cost, name) for name in names) for one in outcomes}


# ---------------------------------------------------------------- a completion


def test_a_completion_in_one_step_is_the_posterior_mean(backbone, reward):
    given = states(backbone)
    whole = Lookahead(backbone, Guider(3.0), ddim(SCHEDULE, STEPS, 1.0), 1)
    assert torch.equal(whole(given), PosteriorMean(backbone.decode)(given))


def test_without_noise_a_completion_in_all_steps_is_the_reward_of_the_finished_picture(backbone, reward):
    """Bit for bit, from wherever it looks; along the way it draws what plain sampling with eta 0 does."""
    process = ddim(SCHEDULE, STEPS, 0.0)
    whole = Lookahead(backbone, Guider(3.0), process, STEPS)
    watches = type("Watches", (Keep,), {"reads": lambda self, step: True})()
    parts = Parts(*passes(backbone, 3.0, 1, reward=reward, value=whole), process, select=watches)
    seen = []
    (outcome,) = sample(parts, REQUESTS[:1], watch=seen.append, population=Population(choose="best"))
    assert [float(one.estimate.value) for one in seen] == [outcome.info["value"]] * STEPS


@pytest.mark.parametrize(
    ("index", "steps", "most", "at"),
    [(0, 8, 2, [0, 4]), (5, 8, 3, [5, 6, 7]), (6, 8, 3, [6, 7]), (7, 8, 2, [7]), (1, 8, 3, [1, 3, 5])],
)
def test_it_looks_ahead_in_equal_parts_of_what_is_left(index, steps, most, at):
    assert ahead(index, steps, most) == at


def test_a_completion_costs_its_further_evaluations(backbone, reward):
    """Each candidate: its own prediction and two more, one and none near the end; one decoding and one score."""
    process = ddim(SCHEDULE, STEPS, 1.0)
    found = sample(searching(backbone, reward, Lookahead(backbone, Guider(3.0), process, 3)))
    arrivals = range(1, STEPS)
    calls = sum(4 * (1 + min(2, STEPS - 1 - arrival)) for arrival in arrivals)
    assert paid(found) == {(1 + calls, 4 * (STEPS - 1) + 1, 4 * (STEPS - 1), 0, 0)}


# ---------------------------------------------------------------- several looks


def test_one_look_is_the_posterior_mean(backbone, reward):
    given = states(backbone)
    looked = Looks(backbone, Guider(3.0), 1)(given)
    assert torch.equal(looked, PosteriorMean(backbone.decode)(given))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_looks_are_the_mean_over_predictions_after_noising_again(backbone, reward, rescale):
    """Written apart: the first prediction, and each of two more from z' = sqrt(abar) x0 + sqrt(1 - abar) noise."""
    given = states(backbone)
    x0, step = given.x0, given.step
    times = torch.full((3,), int(step.time))
    scores = [reward.score(backbone.decode(x0).clamp(0, 1), texts(3), times)]
    for name in ("look 1", "look 2"):
        noise = torch.stack([one.normal(name, step.index, 0, x0.shape[1:]) for one in given.draws.own])
        seen = step.a * x0 + step.s * noise
        again = backbone.predict(seen, step, given.conditioning, Guider(3.0, rescale)).x0
        scores.append(reward.score(backbone.decode(again).clamp(0, 1), texts(3), times))
    looked = Looks(backbone, Guider(3.0, rescale), 3)(given)
    torch.testing.assert_close(looked, torch.stack(scores).mean(dim=0))
    assert float(torch.stack(scores).std(dim=0).min()) > 1e-3  # The looks differ.


def test_a_look_depends_on_its_own_particle_alone(backbone, reward):
    looks, given = Looks(backbone, Guider(3.0), 4), states(backbone, 5)
    whole = looks(given)
    for rows in ([3], [4, 1], [2, 0, 3]):
        torch.testing.assert_close(looks(taken(given, rows)), whole[rows])


def test_looks_cost_what_the_ledger_says(backbone, reward):
    """Each candidate: M predictions, the first of which is its own, M decodings and M scores."""
    found = sample(searching(backbone, reward, Looks(backbone, Guider(3.0), 3)))
    valued = 4 * (STEPS - 1)
    assert paid(found) == {(1 + 3 * valued, 3 * valued + 1, 3 * valued, 0, 0)}
    # Calls are padded to four rows, and there are as many candidates.
    assert backbone.counts["decoder_forward"] >= sum(one.cost.decoder_forward for one in found)


def test_the_batch_plan_does_not_change_what_looks_choose(backbone, reward):
    one, two = (
        sample(searching(backbone, reward, Looks(backbone, Guider(3.0), 2), 3, size)) for size in (2, 64)
    )
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.picture, b.picture)


# ---------------------------------------------------------------- a small decoder


def test_a_small_decoder_stands_in_for_the_full_one(backbone, reward):
    def small(z0):
        return backbone.decode(0.5 * z0)

    given = states(backbone)
    found = PosteriorMean(small, own_decoder=False)(given)
    expected = reward.score(small(given.x0).clamp(0, 1), texts(3), torch.full((3,), int(STEP.time)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("own", [True, False])
def test_a_loss_stands_in_for_a_value_only_if_it_scores_the_same_picture(backbone, reward, own):
    """Guidance scores the full decoder's picture, clamped; a value through a small one is another number."""
    objective = Objective(preference=1, semantic=0, semantic_until=1, both_until=1, clamp=True)
    parts = parts_of(backbone, reward, objective=objective)

    def small(z0):
        return backbone.decode(0.5 * z0)

    value = PosteriorMean(backbone.decode if own else small, own_decoder=own)
    parts = replace(parts, judge=replace(parts.judge, value=value), select=Prune((1,) * (STEPS - 1)))
    outcomes = grouped(parts, reward, Population(2, 1))
    # Once, at the second step, the two particles of a picture are compared.
    scored = 2 * 2 + (STEPS - 2)
    assert {one.cost.reward_forward for one in outcomes} == {scored + (0 if own else 2)}


# ---------------------------------------------------------------- a value network


def test_a_networks_values_are_rewards_again(backbone):
    """It answers in deviations from each reward's mean; the value of a sum is the sum of the values."""
    given, model = states(backbone), network()
    raw = model(given.z, torch.full((3,), given.step.fraction), given.conditioning.prompt)
    expected = 0.5 * (3 + 2 * raw[:, 0]) - 4 * (-1 + 0.5 * raw[:, 1])
    torch.testing.assert_close(Regressed(model, {"two": -4.0, "one": 0.5})(given), expected)
    torch.testing.assert_close(Regressed(model, {"two": 1.0})(given), -1 + 0.5 * raw[:, 1])


def test_a_network_reads_latents_time_and_prompt_of_its_own_row(backbone):
    value, given = Regressed(network(), {"one": 1.0}), states(backbone, 5)
    whole = value(given)
    torch.testing.assert_close(value(taken(given, [4, 1])), whole[[4, 1]])
    assert torch.equal(value(replace(given, x0=torch.full_like(given.x0, torch.nan))), whole)
    later = replace(given, step=replace(given.step, fraction=0.9))
    assert not torch.allclose(value(later), whole)
    turned = given.conditioning.take(torch.tensor([1, 2, 0, 1, 2]))
    assert not torch.allclose(value(replace(given, conditioning=turned)), whole)


def test_a_network_answers_only_for_what_it_was_trained_for():
    with pytest.raises(ValueError, match="trained for one, two, not three"):
        Regressed(network(), {"one": 1.0, "three": 2.0})


def test_candidates_of_a_network_cost_no_evaluation(backbone, reward):
    """SVDD-MC: one prediction a step, whatever M; nothing is decoded but the end, nothing is scored."""
    found = sample(searching(backbone, reward, Regressed(network(), {"one": 1.0}), 6))
    assert paid(found) == {(STEPS, 1, 0, 6 * (STEPS - 1), 0)}
    assert not reward.counts


def test_the_candidate_of_the_largest_value_goes_on(backbone):
    """Written apart, for one picture and all steps."""
    value = Regressed(network(), {"one": 1.0})
    (outcome,) = sample(searching(backbone, None, value, 3), REQUESTS[:1])
    process, stream = ddim(SCHEDULE, STEPS, 1.0), NoiseStream(7, PROMPTS[0], 0)
    shape = backbone.latent_shape()
    conditioning = Conditioning.of([backbone.encode(PROMPTS[0], "")])
    z, three = (
        stream.normal("initial", 0, 0, shape)[None],
        conditioning.take(torch.zeros(3, dtype=torch.long)),
    )
    for step in process.steps:
        found = backbone.predict(z, step, conditioning, Guider(3.0))
        kernel = process.kernel(found.x0, found.eps, step)
        names = ["step", "step, candidate 1", "step, candidate 2"] if step.index < STEPS - 1 else ["step"]
        tried = torch.cat([kernel.sample(stream.normal(name, step.index, 0, shape)[None]) for name in names])
        if len(tried) == 1:
            z = tried
            continue
        scores = value(Asked(tried, tried, tried, three, process.steps[step.index + 1], None, None))
        z = tried[int(scores.argmax())][None]
    torch.testing.assert_close(outcome.picture, backbone.decode(z)[0].clamp(0, 1), atol=1e-5, rtol=1e-4)


def test_dsearch_drops_by_a_network_too(backbone, reward):
    numbers = populations("linear", STEPS, 4, 1)
    parts = replace(searching(backbone, reward, Regressed(network(), {"two": 1.0}), 3), select=Prune(numbers))
    outcomes = grouped(parts, reward, Population(4, 1))
    enters = [4, *numbers]
    # Particles that are dropped at a step are evaluated there first, as they are with any value.
    evaluated = 4 + sum(enters[k] for k in range(STEPS - 1))
    assert {one.cost.network_forward for one in outcomes} == {evaluated}
    assert {one.cost.decoder_forward for one in outcomes} == {1}
    assert {one.cost.reward_forward for one in outcomes} == {0}


def test_a_network_that_says_nothing_changes_nothing(backbone):
    model = network()
    torch.nn.init.zeros_(model.out[1].weight)
    silent = sample(searching(backbone, None, Regressed(model, {"one": 1.0})))
    plain = sample(searching(backbone, FakeReward(flat=PROMPTS), PosteriorMean(backbone.decode)))
    for one, two in zip(silent, plain, strict=True):
        torch.testing.assert_close(one.picture, two.picture)


# ---------------------------------------------------------------- its files


def test_a_network_is_read_as_it_was_written(tmp_path):
    model = network()
    save_value_network(model, tmp_path, {"pictures": 7})
    assert read_shape(tmp_path) == SHAPE
    again = load_value_network(tmp_path, CPU)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    z, text = torch.randn(2, CHANNELS, SIDE, SIDE), torch.randn(2, 5, WIDTH)
    fraction = torch.tensor([0.1, 0.7])
    torch.testing.assert_close(again(z, fraction, text), model(z, fraction, text), atol=5e-3, rtol=5e-3)


def test_damaged_networks_are_told(tmp_path):
    with pytest.raises(MissingWeights, match=r"config\.json"):
        load_value_network(tmp_path, CPU)
    save_value_network(network(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WrongWeights, match="safetensors"):
        load_value_network(tmp_path, CPU)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"one",', ""))
    with pytest.raises(WrongWeights, match="not of a value network"):
        load_value_network(tmp_path, CPU)
    config.write_text("{}")
    with pytest.raises(WrongWeights, match="not of a value network"):
        load_value_network(tmp_path, CPU)
