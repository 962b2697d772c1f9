"""The shapes world's trained LoRAs, as they come along."""

import json

import pytest
import torch

from align.analysis.break_even import PASSES
from align.checkpoints.reference import EMBEDDED, TRAINED, TRAINING_COST
from align.sampling.sampler import Request
from scripts.shapes_quality import sampler

SHIPPED = [name for name, path in TRAINED.items() if path.parent.is_dir()]
REQUEST = Request("a red circle above a blue square on a gray background", seed=0)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_draws_another_picture_for_the_same_cost(name):
    (own,) = sampler(name, EMBEDDED["shapes"], 1).sample([REQUEST])
    (base,) = sampler("shapes", EMBEDDED["shapes"], 1).sample([REQUEST])
    assert own.cost == base.cost
    assert not torch.allclose(own.picture, base.picture, atol=0.02)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_has_a_card(name):
    path = TRAINED[name]
    assert path.stat().st_size < 2_000_000
    assert f"backbone={name}" in path.with_name("README.md").read_text()
    cost = json.loads(path.with_name(TRAINING_COST).read_text())
    assert all(cost[what] > 0 for what in PASSES)
