import torch

from align.sampling.selection import Keep, by_value
from align.sampling.state import State


def test_keep_keeps_everything():
    state = State.of(torch.zeros(3, 1, 1, 1), torch.tensor([0, 0, 1]))
    kept = Keep()(state, "estimate", None, None)
    assert kept.index.tolist() == [0, 1, 2]
    assert kept.state is state
    assert kept.estimate == "estimate"


def test_what_is_not_finite_ranks_below_all_others():
    value = by_value(torch.tensor([torch.nan, -1e30, torch.inf, 3.0, -torch.inf]))
    assert value.argsort(descending=True, stable=True).tolist() == [3, 1, 0, 2, 4]
