"""When a search looks, how wide, how far ahead, and how its particles get fewer; functions of the step alone (arXiv 2503.02039)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

SearchName = Literal["all", "uniform", "linear", "exponential"]
DropName = Literal["none", "exponential", "quadratic", "linear", "sigmoid"]


def search_probabilities(name: SearchName, steps: int) -> list[float]:
    """How likely each of the selecting steps 0 .. S - 1 is searched, S = ``steps`` - 1."""
    last = max(steps - 1, 1)
    rules: dict[SearchName, Callable[[int], float]] = {
        "all": lambda i: 1.0,
        "uniform": lambda i: 0.7,
        "linear": lambda i: min((i + 10) / last, 1.0),
        "exponential": lambda i: 1 - math.exp(-3 * i / last),
    }
    return [rules[name](i) for i in range(steps - 1)]


def populations(name: DropName, steps: int, start: int, end: int) -> list[int]:
    """How many of a group's ``start`` particles B go on after each of the selecting steps 0 .. S - 1, S = ``steps`` - 1.

    There are ``end`` in the end, also where a formula would leave more.
    """
    last = steps - 1
    if name == "none" or last < 1:
        return [start] * last
    rules: dict[DropName, Callable[[int], float]] = {
        "exponential": lambda i: start * (end / start) ** (i / last),
        "quadratic": lambda i: end + (start - end) * (1 - i / last) ** 2,
        "linear": lambda i: start - i * (start - end) / last,
        "sigmoid": lambda i: start / (1 + math.exp(-10 * ((last - 1 - i) / last - 0.5))),
    }
    # A product that should be whole can come out a hair below: exponential at i = 0, for one.
    return [max(end, math.floor(rules[name](i) + 1e-9)) for i in range(last - 1)] + [end]


def searched_width(candidates: int, widen: float, budget: int, number: int) -> int:
    """Candidates of each of n = ``number`` particles at a searched step, floor(w M B / n), at least 1.

    As the population narrows the search widens, so a searched step always costs about w M B.  The ``budget`` B is the
    population at the start; with fewer than n (or 0) the width is w M.
    """
    share = budget / number if budget > number else 1.0
    return max(1, math.floor(widen * candidates * share + 1e-9))


def ahead(index: int, steps: int, most: int) -> list[int]:
    """Steps at which a completion from step ``index`` on is evaluated, itself the first.

    The steps that are left, of ``steps`` in all, are cut into ``most`` equal parts, or as many as there are, and each part is one
    step from where it begins.
    """
    left = steps - index
    parts = min(most, left)
    return [index + part * left // parts for part in range(parts)]
