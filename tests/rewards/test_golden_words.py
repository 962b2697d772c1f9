"""What HPSv2 and PickScore make of a prompt."""

import json

import pytest
import torch
from open_clip.tokenizer import get_clean_fn

from align.rewards.clip import load_tokenizer, token_ids
from align.rewards.open_clip import tokenise

from .recorded import split

CURLY = {
    "“Café” — naïve 东京": [257, 15304, 257, 2005, 1097, 35689, 563, 19759, 250, 21078, 361],
    "don't can't I've we'll he'd": [847, 713, 753, 713, 328, 1200, 649, 1342, 797, 1896],
    "  spaces   and\ttabs ": [9006, 537, 29163],
    "sale <b>bold</b> &amp;amp; more": [1690, 283, 321, 285, 8911, 34308, 321, 285, 261, 750],
    "½ ℃ Ⅷ ﬁ ﬂ": [33613, 8604, 481, 158, 227, 371, 3589, 2685],
}
"""Recorded ids of prompts (or their parts) that open_clip cleans, of the fourth with one more entity."""


@pytest.mark.parametrize("prompt", CURLY)
def test_hpsv2_words_are_cleaned_as_open_clip_does(prompt):
    ids = tokenise(None, 77)(prompt)[0].tolist()
    expected = [49406, *CURLY[prompt], 49407]
    assert ids == expected + [0] * (77 - len(expected))


def test_hpsv2_cuts_at_77_words():
    ids = tokenise(None, 77)("highly detailed, " * 60)[0]
    assert ids.shape == (77,)
    assert ids[-1] == 49407


def test_clip_words(reference):
    recorded = json.loads((reference / "pickscore/clip_tokens.json").read_text())
    own, theirs = load_tokenizer(reference.parent / "tiny/tiny-sd/tokenizer"), tokenise(None, 77)
    for prompt, fast, cleaned in zip(
        *(recorded[key] for key in ("prompts", "hf_fast", "open_clip")), strict=True
    ):
        assert token_ids(own, prompt, 77)[0, : len(fast)].tolist() == fast
        assert theirs(prompt)[0].tolist() == cleaned + [0] * (77 - len(cleaned))
        assert token_ids(own, get_clean_fn("lower")(prompt), 77, pad=0)[0].tolist() == cleaned + [0] * (
            77 - len(cleaned)
        )
    tiny = json.loads((reference / "pickscore/pickscore_tiny.json").read_text())
    _, io = split(reference / "pickscore/pickscore_tiny.safetensors")
    for prompt, ids, mask in zip(tiny["prompts"], io["input_ids"], io["attention_mask"], strict=True):
        assert torch.equal(token_ids(own, prompt, 77)[0][mask.bool()], ids[mask.bool()])
