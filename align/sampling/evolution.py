"""Evolution of genomes: which word of each position, as numbers; 0 is none.

The evolutionary solver of DPO-Diff ("On Discrete Prompt Optimization for Diffusion Models", arXiv 2407.01606) with the faults
of its release mended: everything that was evaluated is a parent's rival, the budget is met exactly, and the genome of zeros is
the first.  Knows nothing of words, pictures or rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

Genome = tuple[int, ...]
Kind = Literal["fresh", "mutant", "child"]
Draw = Callable[[Kind, int, int, int], Sequence[float]]
"""So many uniform numbers of [0, 1) for a proposal of a kind, by its generation and its number there."""


@dataclass(frozen=True)
class Sizes:
    """How many genomes of each kind a generation has.

    Attributes:
        budget: genomes that are evaluated in all.
        population: of a generation; what mutants and children leave of it is fresh.
        parents: the best ever seen, of which mutants and children are made.
        mutants, children: of a generation but the first.
        rate: probability with which a mutant's gene is drawn anew, in which it may come out as it was.
    """

    budget: int
    population: int
    parents: int
    mutants: int
    children: int
    rate: float


def fresh(u: Sequence[float], choices: Sequence[int]) -> Genome:
    """Every gene drawn uniformly; a number for each."""
    return tuple(int(x * n) for x, n in zip(u, choices, strict=True))


def mutant(u: Sequence[float], parents: Sequence[Genome], choices: Sequence[int], rate: float) -> Genome:
    """A parent with some genes drawn anew; a number for the parent, then one a gene for whether, then for which."""
    genes = len(choices)
    redrawn = fresh(u[1 + genes :], choices)
    parent = parents[int(u[0] * len(parents))]
    return tuple(
        new if x < rate else old for x, new, old in zip(u[1 : 1 + genes], redrawn, parent, strict=True)
    )


def child(u: Sequence[float], parents: Sequence[Genome]) -> Genome:
    """Each gene from either of two parents, who may be one; two numbers for the parents, then one a gene."""
    two = [parents[int(x * len(parents))] for x in u[:2]]
    return tuple(two[int(2 * x)][gene] for gene, x in enumerate(u[2:]))


def best(rated: Sequence[tuple[float, Genome]], number: int) -> list[tuple[float, Genome]]:
    """The genomes of the largest values, of equal ones the first; one without a number comes last."""
    return sorted(rated, key=lambda one: math.inf if math.isnan(one[0]) else -one[0])[:number]


class Evolution:
    """The search for one picture: ``propose`` a generation, evaluate it, ``learn`` its values, until none is proposed."""

    def __init__(self, choices: Sequence[int], sizes: Sizes, draw: Draw) -> None:
        self.choices = tuple(choices)
        self.sizes = sizes
        self.draw = draw
        self.generation = 0
        self.seen: set[Genome] = set()
        self.top: list[tuple[float, Genome]] = []
        self.dry = False  # whether the last search for new ones of a kind used up its tries

    def propose(self) -> list[Genome]:
        """New genomes, none of which was seen before; empty when the budget is spent, or there are no more."""
        sizes, left = self.sizes, self.sizes.budget - len(self.seen)
        if self.generation == 0:
            found = [(0,) * len(self.choices)]
            self.seen.update(found)
        else:
            found = self.new("mutant", min(sizes.mutants, left))
            found += self.new("child", min(sizes.children, left - len(found)))
        wanted = min(sizes.population, left) - len(found)
        found += self.new("fresh", wanted)
        if self.dry and wanted > 0:
            found += self._unseen(min(sizes.population, left) - len(found))
        self.generation += 1
        return found

    def learn(self, genomes: Sequence[Genome], values: Sequence[float]) -> None:
        """Take in the values of what was proposed; a larger one is better."""
        rated = list(zip(values, genomes, strict=True))
        self.top = best([*self.top, *rated], self.sizes.parents)

    def new(self, kind: Kind, wanted: int) -> list[Genome]:
        """As many unseen genomes of a kind as ten tries for each of them find."""
        found: list[Genome] = []
        tries = max(0, 10 * wanted)
        while len(found) < wanted and tries > 0:
            genome = self._proposal(kind, 10 * wanted - tries)
            tries -= 1
            if genome not in self.seen:
                self.seen.add(genome)
                found.append(genome)
        self.dry = tries == 0
        return found

    def _proposal(self, kind: Kind, attempt: int) -> Genome:
        genes = len(self.choices)
        number = {"fresh": genes, "mutant": 1 + 2 * genes, "child": 2 + genes}[kind]
        u = self.draw(kind, self.generation, attempt, number)
        if kind == "fresh":
            return fresh(u, self.choices)
        parents = [genome for _, genome in self.top]
        return mutant(u, parents, self.choices, self.sizes.rate) if kind == "mutant" else child(u, parents)

    def _unseen(self, wanted: int) -> list[Genome]:
        """The first ones in order, where hardly any are left to be met by chance."""
        rest: Iterator[Genome] = product(*map(range, self.choices))
        found: list[Genome] = []
        while len(found) < wanted and (genome := next(rest, None)) is not None:
            if genome not in self.seen:
                self.seen.add(genome)
                found.append(genome)
        return found
