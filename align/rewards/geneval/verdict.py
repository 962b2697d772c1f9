"""GenEval's verdict on detected objects (Ghosh et al., arXiv 2310.11513): counts, colours, positions.  Imports no torch.

Boxes are (x0, y0, x1, y1) with y growing downwards.  ``strict_score`` is the graded reward that Flow-GRPO's server makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
NEAR = 1e-3
"""Two objects whose offset, less what their sizes allow, is below this stand in no relation."""


@dataclass(frozen=True)
class Found:
    """A detected object; ``place`` is its number among what the detector gave."""

    box: Box
    score: float
    place: int = 0


@dataclass(frozen=True)
class Rules:
    """Thresholds of the published program."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what was asked for, and what it lacks."""

    correct: bool
    reasons: tuple[str, ...] = field(default=())


Colours = Callable[[str, Sequence[Found]], Sequence[str]]
"""The colour of each of some objects of a class."""


def kept(
    detections: Mapping[str, Sequence[Found]], rules: Rules, *, counting: bool
) -> dict[str, list[Found]]:
    """Of each class the objects that count, best first; a class without any is absent.  Scores are compared as float32."""
    least = np.float32(rules.counting_threshold if counting else rules.threshold)
    best = {
        name: [
            one
            for one in sorted(objects, key=lambda one: one.score, reverse=True)
            if np.float32(one.score) > least
        ]
        for name, objects in detections.items()
    }
    return {name: objects[: rules.max_objects] for name, objects in best.items() if objects}


def relations(a: Box, b: Box, threshold: float) -> set[str]:
    """How box ``a`` stands to box ``b``; two relations can hold at once."""
    offset = [(a[k] + a[k + 2]) / 2 - (b[k] + b[k + 2]) / 2 for k in (0, 1)]
    sizes = [(a[k + 2] - a[k]) + (b[k + 2] - b[k]) for k in (0, 1)]
    reduced = [
        math.copysign(max(abs(one) - threshold * size, 0.0), one)
        for one, size in zip(offset, sizes, strict=True)
    ]
    if all(abs(one) < NEAR for one in reduced):
        return set()
    length = math.hypot(*offset)
    dx, dy = reduced[0] / length, reduced[1] / length
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holding in holds.items() if holding}


def verdict(
    metadata: Mapping[str, Any], objects: Mapping[str, Sequence[Found]], colours: Colours, rules: Rules
) -> Verdict:
    """Whether all ``include`` clauses hold and no ``exclude`` clause does, of objects that were ``kept``."""
    reasons: list[str] = []
    groups: list[Sequence[Found] | None] = []
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        some = list(objects.get(name, ()))[:count]
        wrong: list[str] = []
        if len(some) < count:
            wrong.append(f"expected {name}>={count}, found {len(some)}")
        else:
            if "color" in clause:
                seen = list(colours(name, some))
                if (right := seen.count(clause["color"])) < count:
                    wrong.append(
                        f"expected {clause['color']} {name}>={count}, found {right} ({', '.join(seen)})"
                    )
            if "position" in clause and not wrong:
                wrong += _misplaced(name, some, clause["position"], groups, metadata["include"], rules)
        reasons += wrong
        groups.append(None if wrong else some)
    for clause in metadata.get("exclude", ()):
        name, count = clause["class"], clause["count"]
        if (number := len(objects.get(name, ()))) >= count:
            reasons.append(f"expected {name}<{count}, found {number}")
    return Verdict(not reasons, tuple(reasons))


def _misplaced(
    name: str,
    some: Sequence[Found],
    position: Sequence[Any],
    groups: Sequence[Sequence[Found] | None],
    include: Sequence[Mapping[str, Any]],
    rules: Rules,
) -> list[str]:
    relation, target = position
    others = groups[target]
    if others is None:
        return [f"no {include[target]['class']} for {name} to be {relation}"]
    for one in some:
        for other in others:
            held = relations(one.box, other.box, rules.position_threshold)
            if relation not in held:
                told = " and ".join(sorted(held)) or "beside none"
                return [f"expected {name} {relation} target, found {told} target"]
    return []


def strict_score(
    metadata: Mapping[str, Any], objects: Mapping[str, Sequence[Found]], colours: Colours, rules: Rules
) -> tuple[bool, float]:
    """Whether everything is as asked with equal counts, and the mean of parts, which can be negative; no ``exclude`` clause is read."""
    parts: list[float] = []
    right = True
    groups: list[Sequence[Found] | None] = []
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        some = list(objects.get(name, ()))
        holds = len(some) == count
        parts.append(1 - abs(count - len(some)) / count)
        asked = ("color" in clause) + ("position" in clause)
        if not holds:
            parts += [0.0] if asked else []
        else:
            if "color" in clause:
                number = list(colours(name, some)).count(clause["color"])
                parts.append(1 - abs(count - number) / count)
                holds = number == count
            if "position" in clause and holds:
                wrong = _misplaced(name, some, clause["position"], groups, metadata["include"], rules)
                parts += (
                    [0.0, 1.0]
                    if wrong and groups[clause["position"][1]] is not None
                    else [0.0]
                    if wrong
                    else [1.0]
                )
                holds = not wrong
        right = right and holds
        groups.append(some if holds else None)
    return right, sum(parts) / len(parts) if parts else 0.0


def overall(by_task: Mapping[str, float]) -> float:
    """The benchmark's number: the mean over tasks, not over pictures."""
    return sum(by_task.values()) / len(by_task)
