from types import SimpleNamespace

import pytest
import torch

from align.sampling.objective import Terms
from align.sampling.recurrence import Recurrence


def extra(recurrence, *norms, phase=0):
    return recurrence.extra(
        SimpleNamespace(gradient_norm=torch.tensor(norms)), Terms(phase, True, True)
    ).tolist()


def test_none_never_repeats():
    assert extra(Recurrence(), 0.0, 50.0) == [0, 0]


def test_fixed_repeats_guided_particles_alone():
    assert extra(Recurrence("fixed", rounds=(3, 3, 3)), 0.0, 0.1, 50.0) == [0, 3, 3]


def test_gradient_norm_truncates_rate_times_norm():
    assert extra(Recurrence("gradient_norm"), 0.0, 0.99, 1.0, 2.99) == [0, 0, 1, 2]


@pytest.mark.parametrize(("phase", "rounds"), [(0, 1), (1, 2), (2, 6)])
def test_each_phase_has_its_rate(phase, rounds):
    assert extra(Recurrence("gradient_norm", rate=(0.5, 1.0, 3.0)), 2.1, phase=phase) == [rounds]


@pytest.mark.parametrize(
    "recurrence", [Recurrence("fixed", rounds=(99, 99, 99), cap=4), Recurrence("gradient_norm", cap=4)]
)
def test_no_step_repeats_more_often_than_the_cap(recurrence):
    assert extra(recurrence, 1e30) == [4]
