import pytest
from transformers import CLIPTokenizer

from align.semantics.graph import Entity, Graph
from align.semantics.tokens import token_pairs, tokens_of
from align.text import readable


def words(text, *pieces):
    """Offsets as a tokenizer gives them: start token, each piece where it next occurs, end token."""
    offsets, position = [(0, 0)], 0
    for piece in pieces:
        begin = text.index(piece, position)
        position = begin + len(piece)
        offsets.append((begin, position))
    return (*offsets, (0, 0), (0, 0)), len(pieces) + 1


def span(text, word, occurrence=0):
    begin = -1
    for _ in range(occurrence + 1):
        begin = text.index(word, begin + 1)
    return begin, begin + len(word)


def test_nouns_pair_with_their_attributes_and_against_each_other():
    text = "red cat blue dog"
    offsets, limit = words(text, *text.split())
    graph = Graph(
        (
            Entity(span(text, "cat"), (span(text, "red"),)),
            Entity(span(text, "dog"), (span(text, "blue"),)),
        )
    )
    pairs = token_pairs(graph, offsets, limit)
    assert pairs.positive == ((2, 1), (4, 3))
    assert pairs.negative == ((2, 4),)


def test_a_repeated_word_is_found_where_it_stands():
    text = "red cat and red dog and cat"
    offsets, limit = words(text, *text.split())
    graph = Graph(
        (
            Entity(span(text, "dog"), (span(text, "red", 1),)),
            Entity(span(text, "cat", 1)),
        )
    )
    pairs = token_pairs(graph, offsets, limit)
    assert pairs.positive == ((5, 4),)
    assert pairs.negative == ((5, 7),)


def test_a_word_of_several_pieces_counts_with_all_of_them():
    text = "a multicolored garden"
    offsets, limit = words(text, "a", "multi", "col", "ored", "garden")
    graph = Graph((Entity(span(text, "garden"), (span(text, "multicolored"),)),))
    assert token_pairs(graph, offsets, limit).positive == ((5, 2), (5, 3), (5, 4))


def test_a_token_that_only_overlaps_a_word_is_not_the_word():
    text = "two cats"
    offsets, limit = words(text, "two", "cats")
    assert tokens_of(span(text, "cat"), offsets, limit) == ()


def test_words_cut_off_are_dropped_before_counting():
    text = "red cat blue dog"
    offsets, _ = words(text, *text.split())
    graph = Graph(
        (
            Entity(span(text, "cat"), (span(text, "red"), span(text, "dog"))),
            Entity(span(text, "dog"), (span(text, "blue"),)),
        )
    )
    pairs = token_pairs(graph, offsets, limit=4)
    assert pairs.positive == ((2, 1),)
    assert pairs.negative == ()


def test_no_graph_no_pairs():
    assert not token_pairs(Graph(), ((0, 0),), 1)
    assert not token_pairs(Graph((Entity((0, 3)),)), ((0, 0), (0, 3)), 2)


@pytest.fixture(scope="module")
def clip_tokenizer(golden):
    if golden is None:
        pytest.skip("needs --golden DIR")
    return CLIPTokenizer.from_pretrained(golden / "tiny/tiny-sd/tokenizer")


@pytest.mark.parametrize(
    ("text", "word", "pieces"),
    [
        ("A  RED\tcat,  blue dog", "blue", ["blue"]),
        ("a multicolored garden", "multicolored", ["multic", "olo", "red"]),
        ("caf\u00e9 \u2615 with a red cat", "cat", ["cat"]),
        ("cafe\u0301 with a red cat", "cat", ["cat"]),
        ("bad \ud800 text and a dog", "dog", ["dog"]),
        ("it's a half-eaten cake", "half-eaten", ["half", "-", "eaten"]),
        ("\u0130stanbul cat", "cat", ["cat"]),
    ],
)
def test_clips_offsets_find_the_words(clip_tokenizer, text, word, pieces):
    read = clip_tokenizer(readable(text), return_offsets_mapping=True)
    tokens = clip_tokenizer.convert_ids_to_tokens(read["input_ids"])
    limit = len(tokens) - 1
    found = tokens_of(span(text, word), read["offset_mapping"], limit)
    assert [tokens[k].removesuffix("</w>") for k in found] == pieces
