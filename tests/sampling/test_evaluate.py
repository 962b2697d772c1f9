"""One evaluation: what is computed, and that staging the gradient does not change it."""

import itertools
from dataclasses import replace

import pytest
import torch
from fakes import CPU, SCHEDULE, TOKENS, FakeBackbone, FakeReward, words_graph

from align.backbones.base import Conditioning
from align.processes.ddim import ddim
from align.sampling.evaluate import Evaluator, Pictures
from align.sampling.guidance import CleanGuidance
from align.sampling.ledger import COUNTS, Ledger
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Objective, channel_normalised
from align.sampling.state import State
from align.sampling.views import ViewDraws, views
from align.semantics.attention_loss import pair_weights, semantic_loss
from align.semantics.tokens import token_pairs

STEPS = ddim(SCHEDULE, 10, 1).steps
PHASES = {0: STEPS[0], 1: STEPS[3], 2: STEPS[8]}
PROMPTS = ["red cat blue dog", "a quiet morning", "blue dog"]


def pictures_of(backbone, prompts=PROMPTS):
    read = [backbone.encode(prompt, "") for prompt in prompts]
    pairs = [token_pairs(words_graph(p), r.offsets, r.limit) for p, r in zip(prompts, read, strict=True)]
    return Pictures(
        prompts,
        Conditioning.of(read),
        pair_weights(pairs, TOKENS),
        torch.tensor([bool(pair) for pair in pairs]),
    )


def state_of(backbone, picture=(0, 1, 2), known=True):
    shape = (len(picture), *backbone.latent_shape())
    z, previous = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    if not known:
        previous = torch.full_like(previous, torch.nan)
    return replace(State.of(z, torch.tensor(picture)), previous_x0=previous)


def evaluate(backbone, objective, reward, step, batch_size=3, need="gradient", **keywords):
    ledger = Ledger(len(PROMPTS))
    evaluator = Evaluator(backbone, 3.0, batch_size, objective, reward)
    found = evaluator(state_of(backbone, **keywords), pictures_of(backbone), step, ledger, need)
    return found, ledger


def whole_loss(backbone, objective, reward, step, state):
    """The objective as one graph from latents to loss, written apart from the package's."""
    z = state.z.clone().requires_grad_()
    pictures = pictures_of(backbone)
    rows = state.picture
    found = backbone.predict(z, step, pictures.conditioning.take(rows), 3.0, objective.attention_half)
    phase = objective.terms(step).phase
    semantic = objective.semantic * semantic_loss(found.attention, pictures.pair_weights[rows])
    times = torch.full((len(z),), int(step.time)) if reward.takes_timestep else None
    scores = reward.score(backbone.decode(found.x0), [PROMPTS[k] for k in rows], times)
    preference = -objective.preference * (scores.abs() if objective.score == "released" else scores)
    weight = torch.ones(len(z))
    if objective.dynamic:
        old = channel_normalised(state.previous_x0).flatten(1)
        change = (channel_normalised(found.x0).flatten(1) - old).norm(dim=1) / old.norm(dim=1)
        weight = 1 - torch.exp(-objective.content_rate * change)
        if objective.detach_weight:
            weight = weight.detach()
    loss = {
        0: semantic,
        1: weight * semantic + ((1 - weight) if objective.dynamic else 1) * preference,
        2: preference,
    }[phase]
    return loss, torch.autograd.grad(loss.sum(), z)[0]


CASES = [
    (phase, dict(zip(("dynamic", "detach_weight", "attention_half", "score"), rest, strict=True)))
    for phase in PHASES
    for rest in itertools.product((True, False), (True, False), ("both", "prompt"), ("plain", "released"))
]


@pytest.mark.parametrize(("phase", "options"), CASES)
def test_the_staged_gradient_is_that_of_the_whole(backbone, reward, phase, options):
    objective = Objective(preference=0.7, semantic=5, content_rate=0.4, **options)
    found, _ = evaluate(backbone, objective, reward, PHASES[phase])
    loss, gradient = whole_loss(FakeBackbone(), objective, FakeReward(), PHASES[phase], state_of(backbone))
    if phase == 0:  # The prompt without pairs is not guided there.
        loss, gradient = loss[[0, 2]], gradient[[0, 2]]
        assert not found.gradient[1].any()
        assert torch.isnan(found.loss[1])
        found = found.take(torch.tensor([0, 2]))
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.gradient_norm, gradient.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-5, atol=1e-6)


def test_the_options_under_test_do_change_the_gradient(backbone, reward):
    objectives = [
        Objective(0.7, 5),
        Objective(0.7, 5, detach_weight=True),
        Objective(0.7, 5, dynamic=False),
        Objective(0.7, 5, attention_half="prompt"),
    ]
    gradients = [evaluate(backbone, one, reward, PHASES[1])[0].gradient for one in objectives]
    for one, two in itertools.combinations(gradients, 2):
        assert (one - two).norm() > 0.01 * one.norm()


@pytest.mark.parametrize(
    ("phase", "attention", "decoded", "rows"),
    [(0, {None, "both"}, 0, 3), (1, {"both"}, 3, 3), (2, {None}, 3, 3)],
)
def test_nothing_is_computed_that_no_weight_needs(backbone, reward, phase, attention, decoded, rows):
    evaluate(backbone, Objective(1, 1), reward, PHASES[phase], batch_size=1)
    assert set(backbone.attention_asked) == attention
    assert backbone.counts["decoder_forward"] == reward.counts["reward_forward"] == decoded
    assert backbone.counts["network_forward"] == rows


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("objective", [None, Objective(0, 0)])
def test_without_an_objective_there_is_one_network_call_and_no_graph(backbone, reward, phase, objective):
    found, _ = evaluate(backbone, objective, reward, PHASES[phase], batch_size=1)
    assert {**backbone.counts, **reward.counts} == {"network_forward": 3}
    assert set(backbone.attention_asked) == {None}
    assert torch.isnan(found.loss).all()


@pytest.mark.parametrize("phase", PHASES)
def test_a_loss_alone_needs_no_backward_pass(phase):
    asked = {}
    for need in ("loss", "gradient"):
        backbone, reward = FakeBackbone(), FakeReward()
        asked[need] = evaluate(backbone, Objective(1, 1), reward, PHASES[phase], 1, need)[0]
        backwards = [name for name in (backbone.counts | reward.counts) if name.endswith("backward")]
        assert bool(backwards) is (need == "gradient")
    assert not asked["loss"].gradient.any()
    torch.testing.assert_close(asked["loss"].loss, asked["gradient"].loss, equal_nan=True)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("need", ["prediction", "loss", "gradient"])
def test_the_ledger_is_what_a_spy_counts(backbone, reward, phase, need):
    _, ledger = evaluate(backbone, Objective(1, 1), reward, PHASES[phase], 1, need)
    spied = backbone.counts | reward.counts
    for what in COUNTS:
        assert sum(getattr(cost, what) for cost in ledger.costs) == spied[what], what


def test_padding_is_charged_to_nobody(backbone, reward):
    _, ledger = evaluate(backbone, Objective(1, 1), reward, PHASES[2], batch_size=8)
    assert backbone.counts["network_forward"] == 8
    assert [cost.network_forward for cost in ledger.costs] == [1, 1, 1]


def test_each_particle_is_charged_to_its_picture(backbone, reward):
    _, ledger = evaluate(backbone, Objective(1, 1), reward, PHASES[2], 2, picture=(0, 2, 2, 2))
    assert [cost.reward_backward for cost in ledger.costs] == [1, 0, 3]


@pytest.mark.parametrize("phase", PHASES)
def test_a_particle_does_not_see_its_company(backbone, reward, phase):
    together, _ = evaluate(backbone, Objective(1, 1), reward, PHASES[phase], batch_size=4)
    pictures, state = pictures_of(backbone), state_of(backbone)
    for k in range(3):
        evaluator = Evaluator(backbone, 3.0, 4, Objective(1, 1), reward)
        alone = evaluator(state.take(torch.tensor([k])), pictures, PHASES[phase], Ledger(3))
        for name in ("eps", "x0", "gradient", "gradient_norm", "correction"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[k]), name


def test_rows_come_back_in_the_order_they_went_in(backbone, reward):
    """In the first phase guided and unguided particles are computed apart."""
    found, _ = evaluate(
        backbone, Objective(1, 1), reward, PHASES[0], picture=(0, 0, 1, 1, 2, 2), batch_size=4
    )
    state = state_of(backbone, picture=(0, 0, 1, 1, 2, 2))
    plain = backbone.predict(state.z, PHASES[0], pictures_of(backbone).conditioning.take(state.picture), 3.0)
    torch.testing.assert_close(found.eps, plain.eps)
    assert found.gradient.flatten(1).any(dim=1).tolist() == [True, True, False, False, True, True]


def test_the_reward_is_told_the_timestep_only_if_it_takes_it(backbone):
    told, untold = FakeReward(True), FakeReward(False)
    for reward in (told, untold):
        evaluate(backbone, Objective(1, 1), reward, PHASES[2])
    assert told.times[0].tolist() == [PHASES[2].time] * 3
    assert untold.times == [None]


@pytest.mark.parametrize("phase", [1, 2])
def test_a_broken_reward_leaves_its_picture_unguided_and_the_others_alone(backbone, phase):
    sound, _ = evaluate(backbone, Objective(1, 1), FakeReward(), PHASES[phase])
    found, _ = evaluate(backbone, Objective(1, 1), FakeReward(broken=PROMPTS[:1]), PHASES[phase])
    assert found.finite.tolist() == [False, True, True]
    assert not found.gradient[0].any()
    assert found.gradient_norm[0] == 0
    assert torch.isnan(found.loss[0])
    assert torch.equal(found.gradient[1:], sound.gradient[1:])


def test_the_first_evaluation_has_no_predecessor(backbone, reward):
    found, _ = evaluate(backbone, Objective(1, 1), reward, PHASES[1], known=False)
    assert torch.isfinite(found.gradient).all()
    assert found.gradient[0].any()
    assert not found.gradient[1].any()  # Everything has changed, so the semantic loss counts alone.


def test_nothing_that_is_returned_holds_a_graph(backbone, reward):
    found, _ = evaluate(backbone, Objective(1, 1), reward, PHASES[1])
    assert not any(getattr(found, name).requires_grad for name in found.__dataclass_fields__)
    assert found.eps.device == CPU


DRAWS = Draws([NoiseStream(0, prompt, 0) for prompt in PROMPTS], 3, 0, (3, 4, 4), CPU)


@pytest.mark.parametrize("together", [None, 1, 2, 3])
@pytest.mark.parametrize("score", ["plain", "released"])
def test_views_in_any_parts_give_the_gradient_of_all_of_them(backbone, reward, score, together):
    objective = Objective(preference=0.7, semantic=0, copies=3, score=score)
    state, pictures, step = state_of(backbone), pictures_of(backbone), PHASES[2]
    evaluator = Evaluator(backbone, 3.0, 3, objective, reward, views_together=together)
    found = evaluator(state, pictures, step, ledger := Ledger(3), "gradient", DRAWS)
    assert [cost.reward_backward for cost in ledger.costs] == [4, 4, 4]
    assert [cost.decoder_backward for cost in ledger.costs] == [1, 1, 1]
    assert reward.counts["reward_forward"] == reward.counts["reward_backward"] == 12

    z = state.z.clone().requires_grad_()
    shown = backbone.decode(backbone.predict(z, step, pictures.conditioning, 3.0).x0)
    shown = torch.cat([shown[:, None], views(shown, ViewDraws.of(DRAWS.uniform, 3))], dim=1)
    times = torch.full((3,), int(step.time))
    scores = torch.stack([FakeReward().score(shown[:, k], PROMPTS, times) for k in range(4)], dim=1)
    loss = -0.7 * (scores.norm(dim=1) if score == "released" else scores.sum(dim=1) / 2)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-5, atol=1e-6)


def test_no_copy_is_made_where_the_reward_has_no_weight(backbone, reward):
    evaluator = Evaluator(backbone, 3.0, 3, Objective(1, 1, copies=3), reward)
    evaluator(state_of(backbone), pictures_of(backbone), PHASES[0], Ledger(3), "gradient", None)
    assert not reward.counts


@pytest.mark.parametrize("iterations", [1, 3])
def test_clean_guidance_walks_down_the_loss_and_leaves_the_network_alone(backbone, reward, iterations):
    clean = CleanGuidance(iterations, 0.3, "constant")
    evaluator = Evaluator(backbone, 3.0, 3, Objective(1, 0), reward, clean)
    state, pictures, step = state_of(backbone), pictures_of(backbone), PHASES[2]
    found = evaluator(state, pictures, step, ledger := Ledger(3), "clean_gradient")
    spied = backbone.counts | reward.counts
    for what in COUNTS:
        assert sum(getattr(cost, what) for cost in ledger.costs) == spied[what], what
    assert spied["network_backward"] == 0
    assert spied["decoder_forward"] == spied["decoder_backward"] == 3 * iterations

    moved = found.x0.clone()
    for _ in range(iterations):
        leaf = moved.requires_grad_()
        score = FakeReward().score(FakeBackbone().decode(leaf), PROMPTS, torch.full((3,), int(step.time)))
        moved = (leaf + 0.3 * torch.autograd.grad(score.sum(), leaf)[0]).detach()
    torch.testing.assert_close(found.x0 + found.clean_shift, moved, rtol=1e-5, atol=1e-6)
    assert not found.gradient.any()


def test_both_kinds_of_guidance_share_the_first_gradient(backbone, reward):
    evaluator = Evaluator(backbone, 3.0, 3, Objective(1, 0), reward, CleanGuidance(2, 0.3))
    found = evaluator(state_of(backbone), pictures_of(backbone), PHASES[2], Ledger(3), "gradient")
    assert found.gradient.flatten(1).any(dim=1).all()
    assert found.clean_shift.flatten(1).any(dim=1).all()
    assert backbone.counts["network_backward"] == 3
    assert backbone.counts["decoder_backward"] == 6


def test_a_broken_reward_does_not_move_the_prediction(backbone):
    evaluator = Evaluator(
        backbone, 3.0, 3, Objective(1, 0), FakeReward(broken=PROMPTS[:1]), CleanGuidance(2, 0.3)
    )
    found = evaluator(state_of(backbone), pictures_of(backbone), PHASES[2], Ledger(3), "clean_gradient")
    assert found.finite.tolist() == [False, True, True]
    assert not found.clean_shift[0].any()
    assert found.clean_shift[1].any()


def test_prompts_with_many_paired_tokens_are_computed_apart(backbone, reward, monkeypatch):
    """All maps for those, the paired columns for the others: neither changes the other's bytes or the values."""
    whole, _ = evaluate(backbone, Objective(1, 1), reward, PHASES[1])
    monkeypatch.setattr("align.semantics.attention_loss.COLUMNS", 3)  # The first prompt pairs four tokens.
    backbone.batches.clear()
    apart, _ = evaluate(backbone, Objective(1, 1), reward, PHASES[1])
    assert backbone.batches == [3, 3]
    torch.testing.assert_close(apart.gradient, whole.gradient, rtol=1e-4, atol=1e-6)
