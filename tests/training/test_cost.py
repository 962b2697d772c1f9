"""What a training cost, counted by what its kind does with each example."""

import json

import pytest

from scripts.shapes_training.cost import cost, passes, seconds

SHAPES = {"sampler.steps": 15, "prompts.number": 100, "prompts.limit": None, "training.pairs.each": 4}


def test_drawn_pairs_and_unguided_looks_at_them():
    # 400 pictures of 15 passes; a pair is 4 unguided evaluations and 2 of them back, which count half.
    assert passes({**SHAPES, "training.kind": "dpo"}, 10, 1) == (6000 + 20, 10)
    assert passes({**SHAPES, "training.kind": "kto", "prompts.limit": 10}, 10, 1) == (600 + 15, 5)


def test_sampling_that_is_walked_back():
    options = {"training.alignprop.least": 1, "training.alignprop.most": None}
    assert passes({**SHAPES, **options, "training.kind": "alignprop"}, 10, 1) == (10 * (15 + 8), 80)


def test_spo_walks_all_candidates():
    options = {"training.spo.first": 4, "training.spo.inner": 0, "training.spo.candidates": 4}
    config = {**SHAPES, **options, "training.kind": "spo", "training.each": 8, "sampler.steps": 20}
    assert passes(config, 100, 2) == (2 * 8 * 65 + 200, 100)


def test_clocks_of_all_sessions_count(tmp_path):
    assert seconds([10, 20, 5, 9, 3]) == pytest.approx(20 + 9 + 3)
    (tmp_path / "training.json").write_text(json.dumps({"config": {**SHAPES, "training.kind": "dpo"}}))
    rounds = [
        {"what": "round", "examples": 8, "seconds": 4.0},
        {"what": "round", "examples": 8, "seconds": 9.4},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rounds))
    assert cost(tmp_path) == {"network_forward": 6032, "network_backward": 16, "seconds": 9}
