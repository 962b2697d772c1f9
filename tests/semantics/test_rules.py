import random

import pytest

from align.semantics.knowledge import words_of
from align.semantics.rules import lexicon
from align.semantics.rules.chunker import graph
from align.shapes.grammar import distinct_captions
from align.shapes.semantics import graph as parsed

from .grading import graded, published, scores


def read(prompt):
    """Objects with their attributes, and style words."""
    knowledge = words_of(graph(prompt), prompt)
    return [(noun, list(words)) for noun, words in knowledge.objects], list(knowledge.style)


def objects(prompt):
    return dict(read(prompt)[0])


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a red apple", {"apple": ["red"]}),
        ("a very old, rusty car", {"car": ["old", "rusty"]}),
        ("a pink and yellow umbrella", {"umbrella": ["pink", "yellow"]}),
        ("a coffee cup and a teddy bear", {"cup": ["coffee"], "bear": ["teddy"]}),
        ("a girl with a green hat", {"girl": [], "hat": ["green"]}),
        ("a table made of wood", {"table": ["wood"]}),
        ("a table made of dark wood", {"table": ["wood"], "wood": ["dark"]}),
        ("the cat's blue collar", {"cat": [], "collar": ["blue"]}),
        ("a dog sitting on a rug", {"dog": ["sitting"], "rug": []}),
        ("a sleeping dog", {"dog": ["sleeping"]}),
        ("a wall covered in ivy", {"wall": ["covered"], "ivy": []}),
        ("a cup to the left of a plate", {"cup": [], "plate": []}),
        ("a cup on top of a book in front of a window", {"cup": [], "book": [], "window": []}),
        ("a pile of wet leaves", {"leaves": ["pile", "wet"]}),
        ("the car is red and shiny", {"car": ["red", "shiny"]}),
        ("three dogs", {"dogs": ["three"]}),
        ("an orange and an orange cup", {"orange": [], "cup": ["orange"]}),
        ("a man in a grey coat holding a torch", {"man": ["holding"], "coat": ["grey"], "torch": []}),
        ("a moss-covered stone", {"stone": ["moss-covered"]}),
        ("a knight attacks the wolf", {"knight": [], "wolf": []}),
        ("a lake at sunset in winter", {"lake": []}),
        ('a sign that says "big red dog"', {"sign": []}),
        ("a house without windows, with no people", {"house": []}),
        ("a big, fluffy, orange cat", {"cat": ["big", "fluffy", "orange"]}),
        ("the dog chased the cat", {"dog": [], "cat": []}),
        ("a shelf full of books, very detailed", {"shelf": ["full"], "books": []}),
        ("a circle left of a star", {"circle": [], "star": []}),
        ("A RED HOUSE", {"HOUSE": ["RED"]}),
        ("a dog under a tree. The dog is brown", {"dog": ["brown"], "tree": []}),
    ],
)
def test_small_constructions(prompt, found):
    assert objects(prompt) == found


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("a photo of a dog", ["photo"]),
        ("an oil painting of a dog, digital art", ["oil", "painting", "digital", "art"]),
        ("a dog in the style of Van Gogh", ["style", "Van", "Gogh"]),
        ("a dog, by Greg Rutkowski, 8k", ["Greg", "Rutkowski", "8k"]),
    ],
)
def test_words_about_the_picture_are_style(prompt, style):
    found = read(prompt)
    assert found == ([("dog", [])], style)


def test_a_painting_that_hangs_there_is_an_object():
    assert objects("a red sofa under a large painting") == {"sofa": ["red"], "painting": ["large"]}


@pytest.mark.parametrize(
    "prompt", ["", " ", "...", "very", "of the", "''''", "\ud800", "\u4e00\u8349 \u2615", "'s"]
)
def test_what_has_no_nouns_is_no_error(prompt):
    graph(prompt)


def test_any_order_of_words_is_read():
    """Not well, but without an error, and with spans that are words of the prompt."""
    lists = [value for name, value in vars(lexicon).items() if isinstance(value, frozenset)]
    words = [*sorted({word for one in lists for word in one}), ",", ".", "'s", "cat", "attacks", "&", '"']
    draw = random.Random(0)
    for _ in range(3000):
        prompt = " ".join(draw.choices(words, k=draw.randrange(1, 12)))
        found = graph(prompt)
        spans = [*found.style, *(s for one in found.entities for s in (one.noun, *one.attributes))]
        assert all(prompt[a:b].strip() == prompt[a:b] != "" for a, b in spans)
        assert all(one.noun not in one.attributes for one in found.entities)


def test_captions_of_the_shapes_grammar_are_read_as_their_parser_does():
    captions = [caption.text() for caption in distinct_captions("val", 60, 0, 2, counts=False)]
    texts = [caption.partition(" on a ")[0] for caption in captions]  # a background is an object to the rules
    assert [graph(text).entities for text in texts] == [parsed(text).entities for text in texts]


def _scores(gold):
    found = [words_of(graph(one["prompt"]), one["prompt"]).to_json(one["prompt"]) for one in gold]
    return [score[2] for score in scores(gold, found)]


@pytest.mark.parametrize(
    ("gold", "nouns", "pairs"),
    [
        (graded("dev"), 0.97, 0.97),
        (graded("held-out"), 0.93, 0.91),
        (graded("foreign"), 0.93, 0.89),
        (published(), 0.7, 0.39),
    ],
    ids=["dev", "held-out", "foreign", "published"],
)
def test_the_measured_level_is_held(gold, nouns, pairs):
    assert len(gold) in (25, 40, 6)
    f1 = _scores(gold)
    assert f1[0] >= nouns
    assert f1[1] >= pairs
