import itertools

import numpy as np
import pytest

from align.shapes.grammar import (
    COLOURS,
    MAX_OBJECTS,
    RELATIONS,
    SHAPES,
    Caption,
    Phrase,
    arrangement_split,
    canonical_arrangement,
    caption_split,
    captions,
    distinct_captions,
    pair_split,
    parse,
    random_caption,
)

SPLITS = ("train", "val", "test")
HELD_OUT = {
    "val": {"blue ring", "cyan circle", "green star", "orange square", "purple triangle", "red cross"},
    "test": {"blue square", "cyan cross", "orange ring", "pink star", "red circle", "yellow triangle"},
}
ARRANGEMENTS = [
    "t.vt.v",
    "......",
    ".vt.vt",
    "......",
    "vt.vt.",
    "......",
    "......",
    "vt.vt.",
    "......",
    "t.vt.v",
    "......",
    ".vt.vt",
]


def stream(split, number, seed=0, **options):
    return list(itertools.islice(captions(split, seed, **options), number))


def test_a_caption_is_what_its_text_says():
    rng = np.random.default_rng(0)
    for k in range(5000):
        caption = random_caption(rng, 1 + k % 3)
        assert parse(caption.text()) == caption


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a red circle", Caption((Phrase("red", "circle"),))),
        ("An orange star", Caption((Phrase("orange", "star"),))),
        ("  two  small CYAN crosses. ", Caption((Phrase("cyan", "cross", 2, "small"),))),
        (
            "a red circle left of a blue ring and a pink star on a black background",
            Caption(
                (Phrase("red", "circle"), Phrase("blue", "ring"), Phrase("pink", "star")), "left of", "black"
            ),
        ),
    ],
)
def test_reading(text, caption):
    assert parse(text) == caption


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "circle",
        "a red circles",
        "two red circle",
        "a circle",
        "a red circle above",
        "a red circle above a blue square below a pink star",
        "a red circle and a red circle",
        "two red circles and two blue squares",
        "three red circles and a blue square",
        "a red circle on a red background",
        "a red circle on a gray background on a gray background",
        "a red circle and a blue star and a pink ring and a cyan cross",
        "a red circlet",
        "x a red circle",
        "a red circle, a blue square",
    ],
)
def test_other_texts_are_not_captions(text):
    assert parse(text) is None


def test_captions_keep_to_their_limits():
    rng = np.random.default_rng(1)
    for k in range(3000):
        caption = random_caption(rng, 1 + k % 3)
        assert len(caption.phrases) == 1 + k % 3
        assert caption.n_objects <= MAX_OBJECTS
        assert (caption.relation is None) is (len(caption.phrases) == 1)


def test_pairs_are_split_36_6_6_and_no_word_is_held_out():
    split = {(c, s): pair_split(c, s) for c in COLOURS for s in SHAPES}
    assert [list(split.values()).count(name) for name in SPLITS] == [36, 6, 6]
    assert {c for (c, _), name in split.items() if name == "train"} == set(COLOURS)
    assert {s for (_, s), name in split.items() if name == "train"} == set(SHAPES)
    for name in ("val", "test"):  # Each shape is held out once, so no test is about one shape alone.
        assert {s for (_, s), found in split.items() if found == name} == set(SHAPES)


def test_arrangements_are_split_48_12_12():
    split = [arrangement_split(a, axis, b) for a in SHAPES for b in SHAPES for axis in ("left", "above")]
    assert [split.count(name) for name in SPLITS] == [48, 12, 12]


def test_what_is_held_out_never_changes():
    """The shipped weights were trained by it."""
    for split, pairs in HELD_OUT.items():
        assert {f"{c} {s}" for c in COLOURS for s in SHAPES if pair_split(c, s) == split} == pairs
    table = [
        "".join({"train": ".", "val": "v", "test": "t"}[arrangement_split(a, axis, b)] for b in SHAPES)
        for axis in ("left", "above")
        for a in SHAPES
    ]
    assert table == ARRANGEMENTS


@pytest.mark.parametrize(("relation", "mirror"), [("left of", "right of"), ("above", "below")])
def test_turning_a_relation_round_keeps_its_arrangement(relation, mirror):
    for a, b in itertools.product(SHAPES, SHAPES):
        assert canonical_arrangement(a, relation, b) == canonical_arrangement(b, mirror, a)
    assert canonical_arrangement("circle", "and", "ring") is None


def parts(caption):
    """Pairs and arrangement of a caption, each with its split."""
    found = [pair_split(phrase.colour, phrase.shape) for phrase in caption.phrases]
    arrangement = None
    if caption.relation not in (None, "and"):
        first, second = caption.phrases[:2]
        arrangement = arrangement_split(*canonical_arrangement(first.shape, caption.relation, second.shape))
    return found, arrangement


def test_train_captions_have_nothing_held_out():
    for caption in stream("train", 3000):
        pairs, arrangement = parts(caption)
        assert set(pairs) == {"train"}
        assert arrangement in (None, "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_captions_have_a_held_out_pair_and_arrangement(split):
    for caption in stream(split, 500):
        pairs, arrangement = parts(caption)
        assert split in pairs
        assert set(pairs) <= {"train", split}
        assert arrangement in (None, split)


def test_splits_are_disjoint():
    texts = {split: {caption.text() for caption in stream(split, 500)} for split in SPLITS}
    for one, two in itertools.combinations(SPLITS, 2):
        assert not texts[one] & texts[two]
    assert all(caption_split(caption) == "test" for caption in stream("test", 300))


def test_a_seed_is_a_stream():
    assert stream("train", 50, seed=3) == stream("train", 50, seed=3)
    assert stream("train", 50, seed=3) != stream("train", 50, seed=4)


def test_every_word_occurs():
    text = " ".join(caption.text() for caption in stream("test", 700))
    for word in (*COLOURS, *SHAPES, *RELATIONS, "two", "three", "small", "large", "white", "gray", "black"):
        assert word in text


def test_distinct_captions_are_distinct_and_as_many_as_there_are():
    assert len({caption.text() for caption in distinct_captions("test", 200, 0, 2)}) == 200
    # Six pairs, with either size or none, on any of three backgrounds or none.
    assert len({caption.text() for caption in distinct_captions("test", 72, 0, 1, counts=False)}) == 72
