"""GenEval's metadata, which follows from its prompts and their tags.  Imports nothing heavy.

The benchmark's prompts are made by rule from what they ask for, so the rule is read backwards: ``a photo of four buses`` of the
tag ``counting`` includes four of the class ``bus`` and excludes five.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_IN_S = ("bus", "skis", "wine glass", "scissors")
"""Classes whose plural ends in -es; all others take -s, whatever English says ("two benchs")."""
_ONE = r"an? ([\w -]+?)"
_PATTERNS = {
    "single_object": _ONE,
    "two_object": rf"{_ONE} and {_ONE}",
    "counting": rf"({'|'.join(NUMBERS)}) ([\w -]+)s",
    "colors": r"an? (\w+) ([\w -]+)",
    "position": rf"{_ONE} (left of|right of|above|below) {_ONE}",
    "color_attr": r"an? (\w+) ([\w -]+?) and an? (\w+) ([\w -]+)",
}


def metadata_of(prompt: str, tag: str) -> dict[str, Any] | None:
    """``include``, and ``exclude`` where it counts, of one of the benchmark's prompts; None for another text."""
    pattern = _PATTERNS.get(tag)
    found = re.fullmatch(f"a photo of {pattern}", prompt) if pattern is not None else None
    if found is None:
        return None
    words = found.groups()
    if tag == "counting":
        count = NUMBERS.index(words[0])
        name = next((one for one in _IN_S if f"{one}e" == words[1]), words[1])
        return {"include": [_one(name, count)], "exclude": [_one(name, count + 1)]}
    if tag == "position":
        return {"include": [_one(words[2]), {**_one(words[0]), "position": [words[1], 0]}]}
    if tag in ("colors", "color_attr"):
        pairs = zip(words[::2], words[1::2], strict=True)
        return {"include": [{**_one(name), "color": colour} for colour, name in pairs]}
    return {"include": [_one(name) for name in words]}


def tags_of(prompt: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a row with what its prompt asks for, as JSON; as they are where they say it or nothing is known of it."""
    found = None if "include" in tags else metadata_of(prompt, tags.get("tag", ""))
    more = (
        {}
        if found is None
        else {name: json.dumps(value, separators=(",", ":")) for name, value in found.items()}
    )
    return {**tags, **more}


def fault(metadata: Mapping[str, Any], classes: Sequence[str], colours: Sequence[str]) -> str | None:
    """What is wrong with a prompt's metadata, and the mend; None if nothing is."""
    include = metadata.get("include")
    if not isinstance(include, list) or not include:
        return (
            "it does not say which objects it asks for: give prompts=geneval, or prompts whose rows have the key include "
            'as in GenEval\'s evaluation_metadata.jsonl, such as [{"class": "dog", "count": 1}]'
        )
    exclude = metadata.get("exclude", [])
    for name, clauses in {"include": include, "exclude": exclude}.items():
        for place, clause in enumerate(clauses if isinstance(clauses, list) else [None]):
            if wrong := _clause_fault(clause, place, classes, colours):
                return f"its {name}, entry {place}: {wrong}"
    return None


def _clause_fault(clause: Any, place: int, classes: Sequence[str], colours: Sequence[str]) -> str | None:
    if not isinstance(clause, Mapping):
        return 'it is no object such as {"class": "dog", "count": 1}'
    if clause.get("class") not in classes:
        return f"the detector knows no class {str(clause.get('class'))!r:.40}: give one of judges.geneval.classes"
    count = clause.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return '"count" is a whole number from 1'
    if "color" in clause and clause["color"] not in colours:
        return f"there is no colour {str(clause['color'])!r:.40}: give one of judges.geneval.colours"
    if "position" in clause:
        position = clause["position"]
        good = isinstance(position, list) and len(position) == 2 and isinstance(position[1], int)
        if (
            not good
            or position[0] not in ("left of", "right of", "above", "below")
            or not 0 <= position[1] < place
        ):
            return '"position" is a relation and the number of an earlier entry, such as ["left of", 0]'
    return None


def _one(name: str, count: int = 1) -> dict[str, Any]:
    return {"class": name, "count": count}
