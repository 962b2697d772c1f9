import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.sampling.objective import Objective, channel_normalised
from align.semantics.attention_loss import COUNT_EPSILON, pair_weights, semantic_loss
from align.semantics.tokens import TokenPairs

DATA = Path(__file__).parents[1] / "golden" / "data"
FACTS = json.loads((DATA / "attention_distance.json").read_text())
RECORDED = load_file(DATA / "attention_distance.safetensors")
MAPS = RECORDED["maps"][None]


def test_distances_are_the_recorded_ones():
    for one in range(6):
        for two in range(6):
            # A single positive pair is averaged over one pair.
            weights = pair_weights([TokenPairs(positive=((one, two),))], 6)
            distance = float(semantic_loss(MAPS, weights)) * (1 + COUNT_EPSILON)
            assert distance == pytest.approx(float(RECORDED["cos_dist"][one, two]), abs=1e-6)


def test_the_loss_is_the_recorded_one_but_for_the_count_of_pairs_out_of_range():
    """The released code counts pairs beyond the maps in its mean; here they are dropped before."""
    known = [tuple(pair) for pair in FACTS["positive_pairs"] if max(pair) < 77]
    counted = len(FACTS["positive_pairs"])
    assert counted > len(known)
    negative = tuple(map(tuple, FACTS["negative_pairs"]))
    positive_part = semantic_loss(MAPS, pair_weights([TokenPairs(tuple(known), ())], 6))
    negative_part = semantic_loss(MAPS, pair_weights([TokenPairs((), negative)], 6))
    diluted = positive_part * (len(known) + COUNT_EPSILON) / (counted + COUNT_EPSILON)
    assert float(diluted + negative_part) == pytest.approx(float(RECORDED["loss_semantic"]), abs=1e-6)
    both = semantic_loss(MAPS, pair_weights([TokenPairs(tuple(known), negative)], 6))
    assert float(both) == pytest.approx(float(positive_part + negative_part), abs=1e-6)


def test_agreeing_attributes_and_parted_objects_have_the_least_loss():
    here, there = torch.eye(4)[:2]
    maps = torch.stack([here, here, there], dim=-1).view(1, 2, 2, 3)
    pairs = TokenPairs(positive=((0, 1),), negative=((0, 2),))
    assert float(semantic_loss(maps, pair_weights([pairs], 3))) == pytest.approx(-1, abs=1e-5)
    swapped = TokenPairs(positive=((0, 2),), negative=((0, 1),))
    assert float(semantic_loss(maps, pair_weights([swapped], 3))) == pytest.approx(1, abs=1e-5)


def test_no_pairs_no_loss():
    assert float(semantic_loss(MAPS, pair_weights([TokenPairs()], 6))) == 0


def test_each_picture_has_its_own_pairs():
    pairs = [TokenPairs(((0, 1),), ()), TokenPairs((), ((2, 3),)), TokenPairs()]
    together = semantic_loss(MAPS.expand(3, -1, -1, -1), pair_weights(pairs, 6))
    for row, pair in enumerate(pairs):
        assert together[row] == pytest.approx(float(semantic_loss(MAPS, pair_weights([pair], 6))), abs=1e-7)


def test_maps_all_zero_have_a_finite_gradient():
    maps = torch.zeros(1, 2, 2, 3, requires_grad=True)
    semantic_loss(maps, pair_weights([TokenPairs(((0, 1),), ())], 3)).sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_content_change_is_the_recorded_one():
    now, before = RECORDED["x0_now"], RECORDED["x0_before"]
    torch.testing.assert_close(channel_normalised(now), RECORDED["normal_now"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(channel_normalised(before), RECORDED["normal_before"], rtol=1e-5, atol=1e-5)
    weight = Objective(1, 1).change_weight(now, before)
    assert float(weight) == pytest.approx(float(RECORDED["w"]), rel=1e-5)
    delta = -torch.log(1 - weight)
    assert float(delta) == pytest.approx(float(RECORDED["delta"]), rel=1e-4)
    faster = Objective(1, 1, content_rate=2).change_weight(now, before)
    assert float(faster) == pytest.approx(1 - (1 - float(RECORDED["w"])) ** 2, rel=1e-5)


def test_without_a_previous_prediction_everything_has_changed():
    now = RECORDED["x0_now"]
    assert float(Objective(1, 1).change_weight(now, torch.full_like(now, torch.nan))) == 1


def test_an_unchanged_prediction_has_weight_zero_and_a_finite_gradient():
    now = RECORDED["x0_now"].clone().requires_grad_()
    weight = Objective(1, 1).change_weight(now, now.detach())
    (gradient,) = torch.autograd.grad(weight.sum(), now)
    assert float(weight.detach()) == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(gradient).all()
