import itertools

import pytest

from align.semantics.graph import Graph
from align.shapes.grammar import captions
from align.shapes.semantics import graph


def words(prompt):
    return [
        (prompt[slice(*entity.noun)], [prompt[slice(*span)] for span in entity.attributes])
        for entity in graph(prompt).entities
    ]


def test_nouns_with_their_own_attributes():
    assert words("a small red circle above two blue crosses on a gray background") == [
        ("circle", ["small", "red"]),
        ("crosses", ["blue"]),
    ]
    assert [noun for noun, _ in words("a red ring and a blue ring and a pink star")] == [
        "ring",
        "ring",
        "star",
    ]


def test_spans_are_those_of_the_prompt_as_it_is_written():
    assert words("  A  Large RED   Circle.") == [("Circle", ["Large", "RED"])]


def test_a_repeated_word_has_each_its_own_place():
    red, blue = graph("a red circle and a blue circle").entities
    assert (red.noun, blue.noun) == ((6, 12), (24, 30))


@pytest.mark.parametrize("prompt", ["", "a dog", "a red circle near a dog", "a red circle and a red circle"])
def test_other_texts_have_no_graph(prompt):
    assert graph(prompt) == Graph()


def test_every_caption_has_a_graph():
    for caption in itertools.islice(captions("test", 0), 500):
        expected = [
            (phrase.shape, [word for word in (phrase.size, phrase.colour) if word])
            for phrase in caption.phrases
        ]
        found = words(caption.text())
        assert [
            (noun[: len(shape)], spans) for (noun, spans), (shape, _) in zip(found, expected, strict=True)
        ] == expected
