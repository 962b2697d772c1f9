"""Diffusion tree sampling and search (arXiv 2506.20701): samplings that share their beginnings, by what finished pictures were worth.

A node is a state at a step, the root pure chance, whose children are start noises.  An iteration descends from the root, by the values of
children, to a node that may have one more, draws it by the model's kernel and samples on to the end: all states on the way are
nodes.  The value of a node is the soft mean of its children's, (1/lambda) log mean exp(lambda v), and a finished picture's is its reward.
So what is learned of one picture counts for all that begin as it did.  Candidate k of a request draws what is its own from the noise
of particle k; candidate 0 is its plain picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from align.sampling.host import read, send
from align.sampling.loop import Info
from align.sampling.sampler import Sampler
from align.sampling.state import State
from align.strategies.base import Best, Strategy, Trial, Trials

Uniform = Callable[[], float]
"""A draw of [0, 1) for each choice of a descent."""


@dataclass
class Node:
    """A state at a step, -1 for the root.

    Attributes:
        x0, eps: what was predicted of it, (...) on the host, of which children are drawn.
        candidate: number of the finished picture, where it is one.
        visits: iterations that passed it.
    """

    step: int
    parent: Node | None = None
    x0: Tensor | None = None
    eps: Tensor | None = None
    candidate: int | None = None
    value: float = -math.inf
    visits: int = 0
    children: list[Node] = field(default_factory=list)

    def path(self) -> list[Node]:
        """Itself and all that it comes from."""
        return [self, *(self.parent.path() if self.parent is not None else [])]


@dataclass(frozen=True)
class Rules:
    """How a tree grows.

    Attributes:
        descend: ``sample`` goes to a child with probability proportional to exp(rate v); ``search`` to that of the largest
            v + explore sqrt(log n / n of the child).
        rate: lambda.
        widen, exponent: C and a, a node of n visits may have ceil(C n^a) children.
        explore: c.
    """

    descend: Literal["search", "sample"] = "search"
    rate: float = 1.0
    widen: float = 1.0
    exponent: float = 0.5
    explore: float = 1.0

    def may_have(self, node: Node) -> int:
        """Children of a node."""
        return math.ceil(self.widen * math.pow(node.visits, self.exponent) - 1e-9)

    def next(self, node: Node, uniform: Uniform) -> Node:
        """Of a node's children one; among equals the first."""
        if self.descend == "search":
            seen = math.log(max(node.visits, 1))
            return max(node.children, key=lambda one: one.value + self.explore * math.sqrt(seen / one.visits))
        return self.drawn(node, uniform)

    def drawn(self, node: Node, uniform: Uniform) -> Node:
        """In proportion to exp(rate v); any where none has a value."""
        best = max(one.value for one in node.children)
        known = math.isfinite(best)
        weights = [math.exp(self.rate * (one.value - best)) if known else 1.0 for one in node.children]
        point = uniform() * sum(weights)
        for one, weight in zip(node.children, weights, strict=True):
            point -= weight
            if point < 0:
                return one
        return node.children[-1]

    def back_up(self, leaf: Node) -> None:
        """Visits and values on the way from a finished picture to the root."""
        for node in leaf.path():
            node.visits += 1
            if node.children:
                node.value = soft_mean([one.value for one in node.children], self.rate)


def soft_mean(values: Sequence[float], rate: float) -> float:
    """(1/rate) log mean exp(rate v); of values that are all -inf it is that."""
    best = max(values)
    if not math.isfinite(best):
        return best
    return best + math.log(sum(math.exp(rate * (value - best)) for value in values) / len(values)) / rate


class TreeSearch(Strategy):
    """Trees of ``budget`` network evaluations, of which each step takes ``calls``; nodes at steps ``at`` can have several children."""

    def __init__(
        self, sampler: Sampler, rules: Rules, budget: float, calls: Sequence[float], at: Sequence[int]
    ) -> None:
        super().__init__(sampler)
        self.rules, self.budget, self.at = rules, budget, at
        self.costs = [sum(calls[first:]) for first in range(len(calls) + 1)]
        self.samplings = budget / sum(calls)

    def work(self, trials: Trials) -> None:
        roots = [Node(-1) for _ in trials.requests]
        left, known = [self.budget] * len(roots), 0
        leaves: list[dict[int, Best]] = [{} for _ in roots]
        while True:
            found = [self.growing(trials, owner, root, left[owner]) for owner, root in enumerate(roots)]
            born = [(owner, node) for owner, node in enumerate(found) if node is not None]
            if not born:
                break
            for first in sorted({node.step + 1 for _, node in born}):
                some = [(owner, node) for owner, node in born if node.step + 1 == first]
                self.make(trials, some, known, first, leaves)
                for owner, _ in some:
                    left[owner] -= self.costs[first]
            known += 1
        if self.rules.descend == "sample":
            for owner, root in enumerate(roots):
                self.take(trials, owner, root, leaves[owner])

    def growing(self, trials: Trials, owner: int, root: Node, left: float) -> Node | None:
        """The node that has a child next; ``None`` where what is left of the budget is too little for any."""
        if not root.children:
            return root
        if left < self.costs[max(self.at, default=-1) + 1]:
            return None
        while True:
            node, uniform = root, self.uniform(trials, owner, root.visits)
            while node.candidate is None:
                affordable = self.costs[node.step + 1] <= left
                if affordable and len(node.children) < self.rules.may_have(node):
                    return node
                node = self.rules.next(node, uniform)
            # A finished picture is visited again, which costs nothing and lets the nodes on its way have more.
            self.rules.back_up(node)

    def uniform(self, trials: Trials, owner: int, visit: int) -> Uniform:
        """The draws of a descent."""
        noise, choice = self.sampler.noise(trials.requests[owner], 0), -1

        def draw() -> float:
            nonlocal choice
            choice += 1
            return float(noise.uniform("descend", choice, visit, (1,)))

        return draw

    def make(
        self,
        trials: Trials,
        some: Sequence[tuple[int, Node]],
        number: int,
        first: int,
        leaves: Sequence[dict[int, Best]],
    ) -> None:
        """Candidate ``number`` of some owners, as a child of a node each, from step ``first`` on."""
        rows = [trials.candidate(owner, number) for owner, _ in some]
        seen: dict[int, Info] = {}

        def watch(info: Info) -> None:
            if info.round == 0 and info.step.index in self.at:
                seen[info.step.index] = info

        found = trials(rows, watch, self.children(rows, [node for _, node in some]) if first else None, first)
        told = {
            step: (read(info.estimate.x0), read(info.estimate.eps)) for step, info in sorted(seen.items())
        }
        for row, (owner, node) in enumerate(some):
            value, best = float(found.values[row]), trials.best[owner]
            best.offer(value, found.pictures[row], found.latents[row], candidate=number)
            if self.rules.descend == "sample" and math.isfinite(value):
                shown, latents = read(found.pictures[row]), read(found.latents[row])
                leaves[owner][number] = Best(value, shown, latents, {"candidate": number})
            for step, (x0, eps) in told.items():
                below = Node(step, node, x0[row], eps[row])
                node.children.append(below)
                node = below
            leaf = Node(len(self.costs) - 1, node, candidate=number)
            leaf.value = value if math.isfinite(value) else -math.inf
            node.children.append(leaf)
            self.rules.back_up(leaf)

    def children(self, rows: Sequence[Trial], nodes: Sequence[Node]) -> State:
        """A next state of each of some nodes of one step, by the model's kernel and each candidate's own noise."""
        process, device = self.sampler.parts.process, self.sampler.device
        step = process.steps[nodes[0].step]
        x0 = send(torch.stack([node.x0 for node in nodes if node.x0 is not None]), device)
        eps = send(torch.stack([node.eps for node in nodes if node.eps is not None]), device)
        shape = tuple(x0.shape[1:])
        noise = torch.stack([row.noise.normal("step", step.index, 0, shape) for row in rows])
        z = process.kernel(x0, eps, step).sample(send(noise, device))
        return replace(State.of(z, torch.arange(len(nodes))), previous_x0=x0)

    def take(self, trials: Trials, owner: int, root: Node, leaves: dict[int, Best]) -> None:
        """Of a tree that was sampled the picture of one more descent, in place of the best."""
        node, uniform = root, self.uniform(trials, owner, -1)
        while node.candidate is None:
            node = self.rules.drawn(node, uniform)
        if node.candidate in leaves:
            trials.best[owner] = replace(leaves[node.candidate], seen=trials.best[owner].seen)
