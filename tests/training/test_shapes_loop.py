"""The optimisers of the embedded world's trainings."""

import pytest
import torch
from torch import nn

from scripts.shapes_training.loop import Budget, Recipe, _optimisers


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_a_kernel_alike_in_all_directions_whatever_its_layout(layout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2)).to(memory_format=layout)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    recipe = Recipe(learning_rate=1e-2, budget=Budget(steps=1), weight_decay=0.0, muon=("0.",))
    muon, adamw = _optimisers(model, recipe)
    assert [len(optimiser.param_groups[0]["params"]) for optimiser in (muon, adamw)] == [1, 3]
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    muon.step()
    after = [parameter.detach() for parameter in model.parameters()]
    strengths = torch.linalg.svdvals((after[0] - before[0]).flatten(1))
    assert strengths.max() < 2 * strengths.min()
    assert all(torch.equal(*two) for two in zip(after[1:], before[1:], strict=True))
    assert model[0].weight.grad is None
    adamw.step()
    assert not torch.equal(model[2].weight, before[2])


def test_without_names_everything_is_adamws():
    (only,) = _optimisers(nn.Linear(3, 2), Recipe(learning_rate=1e-2, budget=Budget(steps=1)))
    assert isinstance(only, torch.optim.AdamW)
