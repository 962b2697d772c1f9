"""One evaluation, network and judge: what is computed, and that staging the gradient does not change it."""

import itertools
from dataclasses import replace

import pytest
import torch
from fakes import SCHEDULE, TOKENS, FakeBackbone, FakeReward, passes, words_graph

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.released.objective import SignBlindObjective
from align.sampling.guidance import CleanGuidance, Guidance
from align.sampling.ledger import COUNTS, Ledger
from align.sampling.loop import Loop
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Objective, channel_normalised
from align.sampling.parts import Parts, wants
from align.sampling.state import Pictures, State
from align.sampling.views import ViewDraws, views
from align.semantics.attention_loss import pair_weights, semantic_loss
from align.semantics.tokens import token_pairs

PROCESS = ddim(SCHEDULE, 10, 1)
PHASES = {0: PROCESS.steps[0], 1: PROCESS.steps[3], 2: PROCESS.steps[8]}
PROMPTS = ["red cat blue dog", "a quiet morning", "blue dog"]
BOTH = Objective(1, 1)
GUIDED = Guidance(1.0, (1.0, 1.0, 1.0))


def pictures_of(backbone):
    read = [backbone.encode(prompt, "") for prompt in PROMPTS]
    pairs = [token_pairs(words_graph(p), r.offsets, r.limit) for p, r in zip(PROMPTS, read, strict=True)]
    has_pairs = torch.tensor([bool(pair) for pair in pairs])
    return Pictures(PROMPTS, Conditioning.of(read), pair_weights(pairs, TOKENS), has_pairs)


def state_of(backbone, picture=(0, 1, 2), known=True):
    shape = (len(picture), *backbone.latent_shape())
    z, previous = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    if not known:
        previous = torch.full_like(previous, torch.nan)
    return replace(State.of(z, torch.tensor(picture)), previous_x0=previous)


def streams(picture, particle):
    return NoiseStream(0, PROMPTS[picture], 0, particle)


def evaluate(backbone, reward, step, objective=BOTH, size=3, state=None, guidance=GUIDED, **judging):
    """Some particles' evaluation at a step, and what it cost."""
    state = state_of(backbone) if state is None else state
    parts = Parts(*passes(backbone, 3.0, size, objective, reward, **judging), PROCESS, guidance)
    pictures, ledger = pictures_of(backbone), Ledger(len(PROMPTS))
    draws = Draws.of(streams, state, step.index, 0)
    want = wants(parts, step, state, pictures)
    return Loop(parts, pictures, streams, ledger).evaluate(state, step, want, draws), ledger


def whole_loss(backbone, objective, reward, step, state):
    """The objective as one graph from latents to loss, written apart from the package's."""
    z = state.z.clone().requires_grad_()
    pictures = pictures_of(backbone)
    rows = state.picture
    found = backbone.predict(z, step, pictures.conditioning.take(rows), Guider(3.0), objective.attention_half)
    phase = objective.terms(step).phase
    semantic = objective.semantic * semantic_loss(found.attention, pictures.pair_weights[rows])
    times = torch.full((len(z),), int(step.time)) if reward.takes_timestep else None
    scores = reward.score(backbone.decode(found.x0), [PROMPTS[k] for k in rows], times)
    preference = -objective.preference * (
        scores.abs() if isinstance(objective, SignBlindObjective) else scores
    )
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
    (phase, kind, dict(zip(("dynamic", "detach_weight", "attention_half"), rest, strict=True)))
    for phase in PHASES
    for kind in (Objective, SignBlindObjective)
    for rest in itertools.product((True, False), (True, False), ("both", "prompt"))
]


@pytest.mark.parametrize(("phase", "kind", "options"), CASES)
def test_the_staged_gradient_is_that_of_the_whole(backbone, reward, phase, kind, options):
    objective = kind(preference=0.7, semantic=5, content_rate=0.4, **options)
    found, _ = evaluate(backbone, reward, PHASES[phase], objective)
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
    gradients = [evaluate(backbone, reward, PHASES[1], one)[0].gradient for one in objectives]
    for one, two in itertools.combinations(gradients, 2):
        assert (one - two).norm() > 0.01 * one.norm()


@pytest.mark.parametrize(
    ("phase", "attention", "decoded"), [(0, {None, "both"}, 0), (1, {"both"}, 3), (2, {None}, 3)]
)
def test_nothing_is_computed_that_no_weight_needs(backbone, reward, phase, attention, decoded):
    _, ledger = evaluate(backbone, reward, PHASES[phase], Objective(1, 1, copies=3), size=1)
    assert set(backbone.attention_asked) == attention
    assert backbone.counts["decoder_forward"] == backbone.counts["decoder_backward"] == decoded
    assert reward.counts["reward_forward"] == reward.counts["reward_backward"] == 4 * decoded
    assert backbone.counts["network_forward"] == 3
    assert backbone.counts["network_backward"] == (2 if phase == 0 else 3)
    spied = backbone.counts | reward.counts
    for what in COUNTS:
        assert sum(getattr(cost, what) for cost in ledger.costs) == spied[what], what


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("objective", "guidance"),
    [(None, GUIDED), (Objective(0, 0), GUIDED), (BOTH, None), (BOTH, replace(GUIDED, strength=0))],
)
def test_what_is_not_guided_is_one_network_call_and_no_graph(backbone, reward, phase, objective, guidance):
    found, _ = evaluate(backbone, reward, PHASES[phase], objective, size=1, guidance=guidance)
    assert {**backbone.counts, **reward.counts} == {"network_forward": 3}
    assert set(backbone.attention_asked) == {None}
    assert torch.isnan(found.loss).all()


def test_padding_is_charged_to_nobody_and_seen_by_no_reward_that_does_not_want_it(backbone):
    for padded in (False, True):
        reward = FakeReward()
        reward.padded = padded
        _, ledger = evaluate(backbone, reward, PHASES[2], size=8)
        assert reward.counts["reward_forward"] == (8 if padded else 3)
        assert [cost.reward_backward for cost in ledger.costs] == [1, 1, 1]
    assert backbone.batches == [8, 8]


@pytest.mark.parametrize("batch", [1, 2, None])
def test_a_reward_takes_no_more_pictures_than_it_says(backbone, batch):
    wanted, _ = evaluate(backbone, FakeReward(), PHASES[2])
    reward = FakeReward()
    reward.batch = batch
    found, _ = evaluate(backbone, reward, PHASES[2])
    assert max(map(len, reward.times)) == (batch or 3)
    torch.testing.assert_close(found.gradient, wanted.gradient)


def test_each_particle_is_charged_to_its_picture(backbone, reward):
    _, ledger = evaluate(backbone, reward, PHASES[2], size=2, state=state_of(backbone, (0, 2, 2, 2)))
    assert [cost.reward_backward for cost in ledger.costs] == [1, 0, 3]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("judged", [4, 2])
def test_a_particle_does_not_see_its_company(backbone, reward, phase, judged):
    """Nor does the decoder's size change anything but rounding."""
    whole, _ = evaluate(backbone, reward, PHASES[phase], size=4)
    together, _ = evaluate(backbone, reward, PHASES[phase], size=4, judged=judged)
    torch.testing.assert_close(together.gradient, whole.gradient)
    for k in range(3):
        alone, _ = evaluate(
            backbone,
            reward,
            PHASES[phase],
            size=4,
            judged=judged,
            state=state_of(backbone).take(torch.tensor([k])),
        )
        for name in ("eps", "x0", "gradient", "gradient_norm", "correction"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[k]), name


def test_rows_come_back_in_the_order_they_went_in(backbone, reward):
    """In the first phase guided and unguided particles are computed apart."""
    state = state_of(backbone, picture=(0, 0, 1, 1, 2, 2))
    found, _ = evaluate(backbone, reward, PHASES[0], state=state, size=4)
    plain = backbone.predict(
        state.z, PHASES[0], pictures_of(backbone).conditioning.take(state.picture), Guider(3.0)
    )
    torch.testing.assert_close(found.eps, plain.eps)
    assert found.gradient.flatten(1).any(dim=1).tolist() == [True, True, False, False, True, True]


def test_the_reward_is_told_the_timestep_only_if_it_takes_it(backbone):
    told, untold = FakeReward(True), FakeReward(False)
    for reward in (told, untold):
        evaluate(backbone, reward, PHASES[2])
    assert told.times[0].tolist() == [PHASES[2].time] * 3
    assert untold.times == [None]


@pytest.mark.parametrize("phase", [1, 2])
def test_a_broken_reward_leaves_its_picture_unguided_and_the_others_alone(backbone, phase):
    sound, _ = evaluate(backbone, FakeReward(), PHASES[phase])
    found, _ = evaluate(backbone, FakeReward(broken=PROMPTS[:1]), PHASES[phase])
    assert found.finite.tolist() == [False, True, True]
    assert not found.gradient[0].any()
    assert found.gradient_norm[0] == 0
    assert torch.isnan(found.loss[0])
    assert torch.equal(found.gradient[1:], sound.gradient[1:])


def test_the_first_evaluation_has_no_predecessor(backbone, reward):
    found, _ = evaluate(backbone, reward, PHASES[1], state=state_of(backbone, known=False))
    assert torch.isfinite(found.gradient).all()
    assert found.gradient[0].any()
    assert not found.gradient[1].any()  # Everything has changed, so the semantic loss counts alone.


@torch.no_grad()
def test_nothing_that_is_returned_holds_a_graph(backbone, reward):
    found, _ = evaluate(backbone, reward, PHASES[1])
    assert found.gradient.any()
    assert not any(getattr(found, name).requires_grad for name in found.__dataclass_fields__)


@pytest.mark.parametrize("together", [None, 1, 2, 3])
@pytest.mark.parametrize("kind", [Objective, SignBlindObjective])
def test_views_in_any_parts_give_the_gradient_of_all_of_them(backbone, reward, kind, together):
    objective = kind(preference=0.7, semantic=0, copies=3)
    state, pictures, step = state_of(backbone), pictures_of(backbone), PHASES[2]
    found, ledger = evaluate(backbone, reward, step, objective, views_together=together)
    assert [cost.reward_backward for cost in ledger.costs] == [4, 4, 4]
    assert [cost.decoder_backward for cost in ledger.costs] == [1, 1, 1]

    z = state.z.clone().requires_grad_()
    shown = backbone.decode(backbone.predict(z, step, pictures.conditioning, Guider(3.0)).x0)
    draws = Draws.of(streams, state, step.index, 0)
    shown = torch.cat([shown[:, None], views(shown, ViewDraws.of(draws.uniform, 3))], dim=1)
    times = torch.full((3,), int(step.time))
    scores = torch.stack([FakeReward().score(shown[:, k], PROMPTS, times) for k in range(4)], dim=1)
    loss = -0.7 * (scores.norm(dim=1) if kind is SignBlindObjective else scores.sum(dim=1) / 2)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("iterations", [1, 3])
def test_clean_guidance_walks_down_the_loss_and_leaves_the_network_alone(backbone, reward, iterations):
    clean, step = CleanGuidance(iterations, 0.3, "constant"), PHASES[2]
    found, ledger = evaluate(backbone, reward, step, Objective(1, 0), guidance=None, clean=clean)
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
    found, _ = evaluate(backbone, reward, PHASES[2], Objective(1, 0), clean=CleanGuidance(2, 0.3))
    assert found.gradient.flatten(1).any(dim=1).all()
    assert found.clean_shift.flatten(1).any(dim=1).all()
    assert backbone.counts["network_backward"] == 3
    assert backbone.counts["decoder_backward"] == 6


def test_a_broken_reward_does_not_move_the_prediction(backbone):
    broken = FakeReward(broken=PROMPTS[:1])
    found, _ = evaluate(
        backbone, broken, PHASES[2], Objective(1, 0), guidance=None, clean=CleanGuidance(2, 0.3)
    )
    assert found.finite.tolist() == [False, True, True]
    assert not found.clean_shift[0].any()
    assert found.clean_shift[1].any()
