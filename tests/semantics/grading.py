"""Precision and recall of graphs against graphs written by hand."""

import json
from collections import Counter
from pathlib import Path

DATA = Path(__file__).parent / "data"
PUBLISHED = Path(__file__).parents[1] / "golden" / "data" / "pairs.json"


def graded(split):
    """Graphs of ``dev``, ``held-out`` (our prompts) or ``foreign`` (of HPDv2 and GenEval), as JSON values."""
    lines = [line for path in sorted(DATA.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [value for value in map(json.loads, lines) if value["split"] == split]


def published():
    cases = json.loads(PUBLISHED.read_text())["cases"]
    return [case["graph"] for case in cases if case["source"] == "released example graph"]


def objects_and_pairs(value):
    """Object words and (object, attribute) pairs, with their number of times."""
    objects, pairs = Counter(), Counter()
    for entry in value["knowledge"]:
        for noun, attributes in entry.items():
            objects[noun.lower()] += 1
            pairs.update((noun.lower(), attribute.lower()) for attribute in attributes)
    return objects, pairs


def scores(gold, found):
    """(precision, recall, F1) of objects and of pairs over a set of graphs."""
    result = []
    for kind in (0, 1):
        right = asked = given = 0
        for one, two in zip(gold, found, strict=True):
            wanted, had = objects_and_pairs(one)[kind], objects_and_pairs(two)[kind]
            right += (wanted & had).total()
            asked += wanted.total()
            given += had.total()
        precision, recall = right / max(given, 1), right / max(asked, 1)
        result.append((precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)))
    return result
