import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from align.released.matching import matched_words, released_pairs
from align.semantics.attention_loss import pair_weights, semantic_loss
from align.semantics.graph import GraphError
from align.semantics.knowledge import read_knowledge
from align.semantics.matching import match
from align.semantics.tokens import TokenPairs

DATA = Path(__file__).parents[1] / "golden" / "data"
CASES = json.loads((DATA / "pairs.json").read_text())["cases"]
SURVIVED = [case for case in CASES if "error" not in case]
CRASHED = [case for case in CASES if "error" in case]


@pytest.mark.parametrize("case", SURVIVED, ids=lambda case: case["label"])
def test_the_recorded_pairs_are_reproduced(case):
    knowledge, prompt = read_knowledge(case["graph"]), case["graph"]["prompt"]
    words = [[[noun], attributes] for noun, attributes in matched_words(knowledge, prompt)]
    assert words == case["matched_words"]
    pairs = released_pairs(knowledge, prompt, case["clip_tokens"])
    assert [list(pair) for pair in pairs.positive] == case["positive_pairs"]
    assert [list(pair) for pair in pairs.negative] == case["negative_pairs"]


def test_both_kinds_of_cases_are_there():
    assert (len(SURVIVED), len(CRASHED)) == (16, 2)


@pytest.mark.parametrize("case", CRASHED, ids=lambda case: case["label"])
def test_where_the_released_code_crashes_one_line_says_what_to_mend(case):
    noun = next(iter(case["graph"]["knowledge"][0]))
    with pytest.raises(GraphError, match=f"'{noun}' is no word of the prompt.*semantics.matching=ours"):
        matched_words(read_knowledge(case["graph"]), case["graph"]["prompt"])


@pytest.mark.parametrize("case", CRASHED, ids=lambda case: case["label"])
def test_our_matching_survives_those(case, caplog):
    caplog.set_level(logging.WARNING)
    prompt = case["graph"]["prompt"]
    graph = match(read_knowledge(case["graph"]), prompt)
    found = [prompt[slice(*entity.noun)] for entity in graph.entities]
    assert found in (["cats", "sofa"], ["polar bear"])
    assert not caplog.records


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_pieces_of_our_tokenizer_serve(case, golden):
    if golden is None or "error" in case:
        pytest.skip("needs --golden DIR and a recorded result")
    tokenizer = CLIPTokenizer.from_pretrained(golden / "tiny/tiny-sd/tokenizer")
    prompt = case["graph"]["prompt"]
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
    pairs = released_pairs(read_knowledge(case["graph"]), prompt, pieces)
    assert [list(pair) for pair in pairs.positive] == case["positive_pairs"]
    assert [list(pair) for pair in pairs.negative] == case["negative_pairs"]


def test_the_recorded_loss_with_pairs_beyond_the_maps():
    facts = json.loads((DATA / "attention_distance.json").read_text())
    recorded = load_file(DATA / "attention_distance.safetensors")
    pairs = TokenPairs(tuple(map(tuple, facts["positive_pairs"])), tuple(map(tuple, facts["negative_pairs"])))
    loss = semantic_loss(recorded["maps"][None], pair_weights([pairs], 6))
    assert float(loss) == pytest.approx(float(recorded["loss_semantic"]), abs=1e-6)
    beyond = TokenPairs(positive=((80, 81),), negative=((1, 90),))
    assert not torch.any(pair_weights([beyond], 77))


@pytest.mark.parametrize("name", ["sd_aug_off", "sd_full", "sd_no_graph", "sdxl_full"])
def test_recorded_runs_pair_the_same_tokens(name, golden):
    if golden is None:
        pytest.skip("needs --golden DIR")
    facts = json.loads((golden / f"dymo/trace_{name}.json").read_text())
    pairs = released_pairs(read_knowledge(facts["graph"]), facts["graph"]["prompt"], facts["prompt_tokens"])
    assert [list(pair) for pair in pairs.positive] == facts["positive_pairs"]
    assert [list(pair) for pair in pairs.negative] == facts["negative_pairs"]
