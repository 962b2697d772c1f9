import pytest
import torch
from fakes import SCHEDULE

from align.processes.ddim import ddim
from align.released.objective import SignBlindObjective
from align.sampling.objective import Objective, Terms

NOW, BEFORE = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
MIDDLE = Terms(1, True, True)


def phases(objective, steps=50):
    return [objective.terms(step).phase for step in ddim(SCHEDULE, steps, 1).steps]


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
def test_phases_follow_the_number_of_steps(steps):
    found = phases(Objective(1, 1), steps)
    assert [found.count(k) / steps for k in range(3)] == pytest.approx([0.2, 0.3, 0.5], abs=0.04)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("preference", "semantic", "needs"),
    [
        (1, 1, [(True, False), (True, True), (False, True)]),
        (1, 0, [(False, False), (False, True), (False, True)]),
        (0, 1, [(True, False), (True, False), (False, False)]),
    ],
)
def test_a_loss_without_weight_is_not_needed(preference, semantic, needs):
    objective = Objective(preference, semantic)
    steps = ddim(SCHEDULE, 10, 1).steps
    found = [objective.terms(steps[k]) for k in (0, 3, 9)]
    assert [(terms.semantic, terms.preference) for terms in found] == needs


def test_the_middle_phase_shifts_weight_as_the_prediction_settles():
    objective = Objective(preference=2, semantic=10)
    change = objective.change_weight(NOW, BEFORE)
    semantic, preference = objective.weights(MIDDLE, NOW, BEFORE)
    torch.testing.assert_close(semantic, 10 * change)
    torch.testing.assert_close(preference, 2 * (1 - change))
    settled, _ = objective.weights(MIDDLE, NOW, NOW + 0.01 * BEFORE)
    assert (settled < semantic).all()


def test_outer_phases_have_constant_weights():
    objective = Objective(preference=2, semantic=10)
    assert [w.tolist() for w in objective.weights(Terms(0, True, False), NOW, BEFORE)] == [[10] * 3, [0] * 3]
    assert [w.tolist() for w in objective.weights(Terms(2, False, True), NOW, BEFORE)] == [[0] * 3, [2] * 3]
    constant = Objective(preference=2, semantic=10, dynamic=False)
    assert [w.tolist() for w in constant.weights(MIDDLE, NOW, BEFORE)] == [[10] * 3, [2] * 3]


def test_each_particle_has_its_own_change():
    together = Objective(1, 1).change_weight(NOW, BEFORE)
    alone = torch.cat([Objective(1, 1).change_weight(NOW[k : k + 1], BEFORE[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(together, alone)


def test_a_missing_predecessor_does_not_touch_the_others():
    gap = BEFORE.clone()
    gap[1] = torch.nan
    now = NOW.clone().requires_grad_()
    weight = Objective(1, 1).change_weight(now, gap)
    (gradient,) = torch.autograd.grad(weight.sum(), now)
    assert weight[1] == 1
    assert torch.isfinite(gradient).all()
    assert not gradient[1].any()
    torch.testing.assert_close(weight[[0, 2]], Objective(1, 1).change_weight(NOW, BEFORE)[[0, 2]])


@pytest.mark.parametrize("detached", [True, False])
def test_the_change_carries_gradient_unless_detached(detached):
    weight = Objective(1, 1, detach_weight=detached).change_weight(NOW.clone().requires_grad_(), BEFORE)
    assert weight.requires_grad is not detached


def loss_of(objective, scores):
    """L_R and its derivative by each of the scores (P, V)."""
    scores = scores.clone().requires_grad_()
    losses = objective.view_losses(scores).sum(dim=1)
    total, slope = objective.over_views(losses.detach(), scores.shape[1])
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    return total, slope[:, None] * gradient


def test_the_released_score_is_blind_to_the_sign():
    scores = torch.tensor([[2.0], [-3.0]])
    assert loss_of(Objective(1, 1), scores)[0].tolist() == [-2, 3]
    assert loss_of(SignBlindObjective(1, 1), scores)[0].tolist() == [-2, -3]


@pytest.mark.parametrize("kind", [Objective, SignBlindObjective])
def test_scores_of_several_views_become_one_loss_with_its_own_derivative(kind):
    objective = kind(1, 1, copies=3)
    scores = torch.tensor([[2.0, -1.0, 0.5, 3.0], [0.1, 0.2, -0.3, 0.4]], requires_grad=True)
    expected = -scores.norm(dim=1) if kind is SignBlindObjective else -scores.sum(dim=1) / 2
    total, gradient = loss_of(objective, scores.detach())
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), scores)[0])


def test_no_score_no_slope():
    total, gradient = loss_of(SignBlindObjective(1, 1), torch.zeros(2, 3))
    assert not total.any()
    assert not gradient.any()


def test_the_last_steps_can_be_left_alone():
    objective = Objective(1, 1, preference_until=0.07)
    guided = [objective.terms(step).preference for step in ddim(SCHEDULE, 50, 1).steps]
    assert guided == [False] * 10 + [True] * 36 + [False] * 4


def test_predictions_can_be_compared_as_they_are():
    raw = Objective(1, 1, change="raw").change_weight(NOW, BEFORE)
    change = (NOW - BEFORE).flatten(1).norm(dim=1) / BEFORE.flatten(1).norm(dim=1)
    torch.testing.assert_close(raw, 1 - torch.exp(-change))
