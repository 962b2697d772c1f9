"""Derivative-free search: several candidates for each particle's next state, and fewer particles as the search goes on.

SVDD (arXiv 2408.08252) draws M candidates a step and lets one go on; DSearch (arXiv 2503.02039) starts with more
particles than it returns, drops the worst on a schedule and widens the search of those that stay; DSearch-R replaces the
worst by copies of the others.  All ranking is within a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.host import read
from align.sampling.noise import Draws
from align.sampling.schedules import searched_width
from align.sampling.selection import Keep, Selected, by_value
from align.sampling.state import Estimate, State


@dataclass(frozen=True)
class Search:
    """How many candidates a particle's next state is chosen from, and how.

    Attributes:
        candidates: M, at least 1.
        widen: w, factor of M on a searched step.
        probabilities: that a step is searched, for each of the selecting steps.
        budget: B: a searched step spends w M B candidates on a group, however few particles are left of it; 0 spends
            w M on each particle.
        otherwise: on a step that is not searched, ``few`` draws M candidates and ``one`` a single one, which nobody looks at.
        temperature: alpha of the draw with probability proportional to exp(v / alpha); 0 takes the best.
        until: ``all`` draws all candidates; else one at a time, until the value of one is ``above`` the step's ``threshold``, or
            ``better`` than that of the state which it comes from.
        threshold: of each of the selecting steps.
    """

    candidates: int
    widen: float = 1.0
    probabilities: Sequence[float] = ()
    budget: int = 0
    otherwise: Literal["few", "one"] = "few"
    temperature: float = 0.0
    until: Literal["all", "above", "better"] = "all"
    threshold: Sequence[float] = ()

    def reads(self, step: Step) -> bool:
        """Whether it looks at the values of the states that candidates come from."""
        return self.until == "better" and step.index < len(self.probabilities)

    def bar(self, value: Tensor, step: Step) -> Tensor | None:
        """(P,) on the host, what a candidate's value has to be above for no other to be drawn; ``None`` where all are.

        ``value`` are those of the P states that they come from.
        """
        if self.until == "all":
            return None
        own = by_value(read(value))
        return own if self.until == "better" else torch.full_like(own, self.threshold[step.index])

    def widths(self, state: State, step: Step, draws: Draws) -> Tensor:
        """(P,) int64 candidates of each particle at a step; one at the last, which is not selected from."""
        widths = torch.ones(len(state.z), dtype=torch.long)
        if step.index >= len(self.probabilities):
            return widths
        probability = self.probabilities[step.index]
        for rows in state.groups():
            # One coin a group, drawn only where it decides something.
            if probability >= 1 or float(draws.of_group(int(rows[0]), "coin")(1)) < probability:
                widths[rows] = searched_width(self.candidates, self.widen, self.budget, len(rows))
            elif self.otherwise == "few":
                widths[rows] = self.candidates
        return widths

    def keys(self, value: Tensor, log_ratio: Tensor, draws: Draws) -> Tensor:
        """(P,) float64 numbers on the host, like what they are made of, of which the largest of a particle's candidates wins.

        With a temperature the largest of v / alpha + log p - log q + Gumbel noise is a draw from the softmax, whatever the
        order and however many are compared at a time.
        """
        ranked = by_value(value)
        if self.temperature == 0:
            return ranked
        uniform = draws.uniform("gumbel", 1)[:, 0].clamp(min=1e-300)
        gumbel = -torch.log(-torch.log(uniform))
        return ranked / self.temperature + log_ratio + gumbel


@dataclass(frozen=True)
class Prune(Keep):
    """Drop the worst particles of a group on a schedule, or replace them by copies of others.

    Attributes:
        populations: how many of a group go on after each selecting step; empty for all.
        replace: how many of a group are replaced at each selecting step (DSearch-R).
        temperature: of the softmax over the survivors' values, from which the copies are drawn.
        start: particles of a group at the start; ``None`` where nobody says.
    """

    populations: Sequence[int] = ()
    replace: int = 0
    temperature: float = 1.0
    start: int | None = None

    def _wanted(self, step: Step) -> int | None:
        """Most particles that may enter a step: the population after the one before."""
        before = step.index - 1
        return self.populations[before] if 0 <= before < len(self.populations) else None

    def reads(self, step: Step) -> bool:
        if step.index == 0:
            return False
        wanted = self._wanted(step)
        before = self.populations[step.index - 2] if step.index > 1 and wanted is not None else self.start
        return self.replace > 0 or (wanted is not None and (before is None or wanted < before))

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        """See ``Keep``. Of equal values the first stays."""
        if not self.reads(step):
            return super().__call__(state, estimate, step, draws)
        value = by_value(read(estimate.value))
        wanted = self._wanted(step)
        chosen = []
        for rows in state.groups():
            if wanted is not None and wanted < len(rows):
                order = torch.sort(value[rows], descending=True, stable=True).indices
                rows = rows[order[:wanted]]
            if 0 < self.replace < len(rows):
                uniforms = draws.of_group(int(rows[0]), "replace")(self.replace)
                rows = rows[self.replaced(value[rows].double(), uniforms)]
            chosen.append(rows)
        return Selected.by(state, estimate, torch.cat(chosen))

    def replaced(self, value: Tensor, uniforms: Tensor) -> Tensor:
        """Which of a group of (N,) float64 values go on: the survivors in their order, then as many copies of them as were worst.

        One whose value is not finite, -inf here, is not copied while there is another.
        """
        worst = torch.sort(value, stable=True).indices[: self.replace]
        stays = torch.ones(len(value), dtype=torch.bool)
        stays[worst] = False
        survivors, kept = torch.nonzero(stays)[:, 0], value[stays]
        known = kept[torch.isfinite(kept)]
        scaled = self.scaled(kept, known) if len(known) else torch.zeros_like(kept)
        cumulative = torch.softmax(scaled / self.temperature, 0).cumsum(0)
        copies = torch.searchsorted(cumulative, uniforms * cumulative[-1], right=True)
        return torch.cat([survivors, survivors[copies.clamp(max=len(survivors) - 1)]])

    def scaled(self, value: Tensor, known: Tensor) -> Tensor:
        """(n,) values in deviations of the finite ones among them, so that a temperature means the same for any reward."""
        spread = float(known.std()) if len(known) > 1 else 0.0
        return (value - known.mean()) / spread if spread > 0 else value
