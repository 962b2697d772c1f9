import logging

import pytest

from align.semantics.graph import GraphError, with_style
from align.semantics.inflection import same_stem
from align.semantics.knowledge import Knowledge, read_knowledge, words_of
from align.semantics.matching import match
from align.semantics.tokens import token_pairs


def graph_of(prompt, *objects, style=()):
    return match(Knowledge(tuple((noun, tuple(words)) for noun, words in objects), tuple(style)), prompt)


def placed(prompt, *objects):
    """Nouns and attributes with the character they begin at."""
    graph = graph_of(prompt, *objects)
    return [
        (f"{prompt[slice(*one.noun)]}@{one.noun[0]}", [f"{prompt[slice(*a)]}@{a[0]}" for a in one.attributes])
        for one in graph.entities
    ]


# The faults of the released code, one by one.


def test_fault_1_an_object_that_is_not_there_is_dropped_with_one_warning(caplog):
    caplog.set_level(logging.WARNING)
    found = placed("a red apple", ("pear", ["red"]), ("apple", ["red", "round"]))
    assert found == [("apple@6", ["red@2"])]
    assert [record.getMessage() for record in caplog.records] == [
        "words of the graph are not in the prompt 'a red apple': pear, round"
    ]


@pytest.mark.parametrize(
    ("prompt", "noun", "found"),
    [
        ("two cats on a sofa", "cat", "cats"),
        ("a cat on a sofa", "cats", "cat"),
        ("three women", "woman", "women"),
        ("a firefighter and two policemen", "policeman", "policemen"),
        ("ripe cherries", "cherry", "cherries"),
        ("two foxes", "fox", "foxes"),
        ("autumn leaves", "leaf", "leaves"),
        ("a polar bear on ice", "polar bear", "polar bear"),
        ("two polar bears on ice", "polar bear", "polar bears"),
        ("a bear on ice", "polar bear", "bear"),
        ("A Red Fox", "fox", "Fox"),
        ("a t-shirt", "t-shirt", "t-shirt"),
        ("a t-shirt", "T shirt", "t-shirt"),
    ],
)
def test_fault_1_plurals_and_phrases(prompt, noun, found):
    (entity,) = graph_of(prompt, (noun, [])).entities
    assert prompt[slice(*entity.noun)] == found


def test_fault_1_no_word_is_taken_for_another_one():
    assert placed("a grass field and a bus", ("gra", []), ("bu", []), ("gras", [])) == []


def test_fault_2_a_missing_attribute_loses_only_itself():
    found = placed("a red and shiny apple", ("apple", ["red", "golden", "shiny"]))
    assert found == [("apple@16", ["red@2", "shiny@10"])]


def test_fault_3_whole_words_before_all_else():
    assert placed("a cartoon art piece of a cat", ("cat", ["art"])) == [("cat@25", ["art@10"])]
    assert placed("a cartoon of a cat", ("cat", ["art"])) == [("cat@15", [])]
    assert placed("a ring bearer bears a ring", ("bear", []))[0][0] == "bears@14"
    assert placed("lights and a light lamp", ("lamp", ["light"])) == [("lamp@19", ["light@13"])]


def test_fault_3_inflected_attributes():
    assert placed("a frog holding a striped cup", ("frog", ["holds"]), ("cup", ["stripes"])) == [
        ("frog@2", ["holding@7"]),
        ("cup@25", ["striped@17"]),
    ]


def test_fault_4_repeated_objects_are_successive_occurrences():
    prompt = "a red car next to a blue car"
    assert placed(prompt, ("car", ["red"]), ("car", ["blue"])) == [
        ("car@6", ["red@2"]),
        ("car@25", ["blue@20"]),
    ]
    graph = graph_of(prompt, ("car", ["red"]), ("car", ["blue"]))
    offsets = [(0, 0), *((w[0], w[1]) for w in _spans(prompt)), (0, 0)]
    pairs = token_pairs(graph, offsets, len(offsets) - 1)
    assert pairs.negative == ((3, 8),)


def _spans(text):
    start = 0
    for word in text.split():
        start = text.index(word, start)
        yield start, start + len(word)
        start += len(word)


@pytest.mark.parametrize(
    ("first", "second", "places"),
    [
        (["blue"], ["red"], [25, 6]),
        ([], ["red"], [25, 6]),
        (["blue"], [], [25, 6]),
        ([], [], [6, 25]),
        (["small"], ["small"], [6, 25]),
    ],
)
def test_fault_4_attributes_tell_which_occurrence_is_meant(first, second, places):
    graph = graph_of("a red car next to a blue car", ("car", first), ("car", second))
    assert [entity.noun[0] for entity in graph.entities] == places


def test_fault_4_an_object_within_another_is_that_one():
    assert placed("a polar bear", ("polar bear", []), ("bear", ["white"])) == [("polar bear@2", [])]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("hold", "holding", True),
        ("run", "running", True),
        ("stripe", "striped", True),
        ("stripes", "striped", True),
        ("dress", "dressing", True),
        ("gentle", "gently", True),
        ("happy", "happily", True),
        ("color", "colored", True),
        ("snow", "snowing", True),
        ("wear", "wears", True),
        ("star", "staring", False),
        ("car", "caring", False),
        ("red", "ring", False),
        ("king", "ring", False),
        ("gold", "golden", False),
    ],
)
def test_forms_of_one_word(one, two, same):
    assert same_stem(one, two) == same_stem(two, one) == same


def test_fault_4_an_object_listed_more_often_than_it_occurs_is_joined():
    found = placed("a red and round ball", ("ball", ["red"]), ("ball", ["round", "red"]))
    assert found == [("ball@16", ["red@2", "round@10"])]


def test_fault_5_the_attribute_next_to_its_object():
    prompt = "an ocean of coffee engulfs a coffee cup"
    assert placed(prompt, ("ocean", ["coffee"]), ("cup", ["coffee"])) == [
        ("ocean@3", ["coffee@12"]),
        ("cup@36", ["coffee@29"]),
    ]
    prompt = "beautiful fox, beautiful face and beautiful eyes"
    assert placed(prompt, *((noun, ["beautiful"]) for noun in ("fox", "face", "eyes"))) == [
        ("fox@10", ["beautiful@0"]),
        ("face@25", ["beautiful@15"]),
        ("eyes@44", ["beautiful@34"]),
    ]


def test_fault_5_an_object_in_between_is_a_detour():
    prompt = "a red cat, dog with a big red collar"
    assert placed(prompt, ("cat", ["red"]), ("dog", []), ("collar", ["red"]))[2] == ("collar@30", ["red@26"])


def test_fault_6_words_beyond_the_model_are_dropped_before_counting():
    graph = graph_of("red cat blue dog", ("cat", ["red", "dog"]), ("dog", ["blue"]))
    offsets = [(0, 0), (0, 3), (4, 7), (8, 12), (13, 16)]
    pairs = token_pairs(graph, offsets, limit=4)
    assert (pairs.positive, pairs.negative) == (((2, 1),), ())


def test_fault_7_no_pairs_is_no_error():
    assert not token_pairs(graph_of("a lighthouse at dawn", ("lighthouse", [])), [(0, 0)], 1)
    assert graph_of("", ("cat", ["red"])).entities == ()
    assert graph_of("...", ("...", [])).entities == ()


def test_fault_8_style_words_go_with_every_object_if_wanted():
    prompt = "watercolor of a red fox and a watercolor owl"
    graph = graph_of(prompt, ("fox", ["red"]), ("owl", ["watercolor"]), style=["watercolor", "absent"])
    assert [prompt[slice(*span)] for span in graph.style] == ["watercolor"]
    wide = with_style(graph)
    assert [len(entity.attributes) for entity in graph.entities] == [1, 1]
    assert [len(entity.attributes) for entity in wide.entities] == [2, 2]
    assert with_style(wide) == wide


def test_an_objects_own_word_does_not_describe_it():
    assert placed("a polar bear on ice", ("polar bear", ["polar", "ice"])) == [("polar bear@2", ["ice@16"])]


def test_both_words_of_a_repeated_attribute_are_used():
    assert placed("a very very old man", ("man", ["very", "very", "old"])) == [
        ("man@16", ["very@2", "very@7", "old@12"])
    ]


def test_upper_case_and_unusual_characters():
    assert placed("A RED fox \u2615 caf\u00e9", ("Fox", ["red"]), ("CAF\u00c9", []))[1][0].startswith("caf")
    prompt = "\u0130stanbul red cat"
    assert placed(prompt, ("cat", ["red"])) == [("cat@13", ["red@9"])]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"prompt": "a"},
        {"knowledge": {}},
        {"knowledge": ["cat"]},
        {"knowledge": [{"cat": {"red": 1}}]},
        {"knowledge": [{"cat": [None]}]},
        {"knowledge": [], "global": "x"},
        {"knowledge": [], "global": ["x"]},
    ],
)
def test_what_is_no_graph_is_refused(value):
    with pytest.raises(GraphError):
        read_knowledge(value)


def test_the_published_format():
    value = {
        "prompt": "a red cat",
        "knowledge": [{"cat": ["red"], "dog": []}, {"hat": "big"}],
        "global": [{"style": ["art", ""]}],
    }
    knowledge = read_knowledge(value)
    assert knowledge == Knowledge((("cat", ("red",)), ("dog", ()), ("hat", ("big",))), ("art",))
    assert read_knowledge(knowledge.to_json("a red cat")) == knowledge
    assert read_knowledge({"knowledge": [], "global": []}) == Knowledge()
    assert words_of(match(knowledge, "a red cat"), "a red cat").objects == (("cat", ("red",)),)
