from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from align.sampling.selection import best, keep
from align.sampling.state import State

NAN, INF = torch.nan, torch.inf


def choose(pictures, values):
    number = len(pictures)
    z = torch.zeros(number, 1, 1, 1)
    state = State(z, torch.tensor(pictures), torch.arange(number) / 10, z)
    return best(state, SimpleNamespace(value=torch.tensor(values)), None)


def test_keep_keeps_everything():
    z = torch.zeros(3, 1, 1, 1)
    state = State(z, torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 3.0]), z)
    kept = keep(replace(state), None, None)
    assert kept.index.tolist() == [0, 1, 2]
    assert torch.equal(kept.log_weights, state.log_weights)


def test_best_chooses_in_each_picture_alone():
    assert choose([0, 0, 1, 1, 1, 4], [1.0, 2.0, 9.0, 7.0, 8.0, -5.0]).index.tolist() == [1, 2, 5]


def test_weights_go_with_the_chosen():
    assert choose([0, 0, 1], [1.0, 2.0, 3.0]).log_weights.tolist() == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_what_is_not_finite_is_never_chosen(broken):
    assert choose([0, 0, 0, 1, 1], [broken, -1e30, broken, broken, 0.0]).index.tolist() == [1, 4]


def test_a_picture_with_nothing_finite_still_goes_on():
    assert choose([0, 0, 1], [NAN, NAN, 1.0]).index.tolist() == [0, 2]
