"""Particles at noise levels of their own: the loops of ``rollover.py``, where each proposes one next state at a time, and of
``backtracking.py``, where each goes back and forth.  Particles at the same level share calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.backtracking import moved
from align.sampling.host import read
from align.sampling.noise import Draws, Streams, candidate
from align.sampling.parts import NOTHING, Parts, Want
from align.sampling.selection import Trace, by_value
from align.sampling.state import Estimate, Kept, State, gather

Evaluate = Callable[[State, Step, Want, Draws], Estimate]
Tell = Callable[[Step, State, Estimate, Trace], None]


def rollover(
    parts: Parts,
    evaluate: Evaluate,
    start: State,
    streams: Streams,
    tell: Tell,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """From P initial states to clean latents; a particle's budget and luck are its own.

    A candidate's own evaluation serves the proposals that come of it, so none is wasted.  ``evaluate`` is the loop's, ``tell`` is told of every evaluation.
    """
    plan, steps = parts.rollover, parts.process.steps
    assert plan is not None
    draws = Draws.of(streams, start, 0, 0)
    kept = _first(parts, evaluate, start, draws, tell)
    number, share = len(start.picture), plan.share(len(steps))
    level, used = torch.zeros(number, dtype=torch.long), torch.zeros(number, dtype=torch.long)
    quota, bar, top = torch.full((number,), share), kept.value, kept
    log, done = _Log(number, len(steps)), 0
    for turn in range(plan.tries()):
        found = _candidates(parts, evaluate, kept, level, used, draws, tell, log)
        used += 1
        top = top.replaced(found, (used == 1) | (found.value > top.value))
        beats, free = found.value > bar, level < len(steps) - 2
        gone = free & (beats | (used % quota == 0))
        left = torch.where(beats, quota - used, 0)
        bar = plan.bar(bar, found.value, gone, top.value)
        kept = kept.replaced(top, gone)
        quota = torch.where(gone, left + share, quota)
        used, level = torch.where(gone, 0, used), level + gone
        while on_step is not None and (turn + 1) * len(steps) >= (done + 1) * plan.tries():
            on_step(steps[done])
            done += 1
    return plan.result(parts.process, top, Draws.of(streams, start, len(steps) - 1, 0))


def backtrack(
    parts: Parts,
    evaluate: Evaluate,
    start: State,
    streams: Streams,
    tell: Tell,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """Likewise, where particles go back that are not good enough; each visit to a level has noise of its own."""
    plan, steps = parts.backtracking, parts.process.steps
    assert plan is not None
    number, end, draws = len(start.picture), len(steps), Draws.of(streams, start, 0, 0)
    nothing = Kept(start, Estimate.of(start.z, start.z, start.z), torch.full((number,), -torch.inf).double())
    best, state, done = dict.fromkeys(plan.thresholds, nothing), start, 0
    level, visits = torch.zeros(number, dtype=torch.long), torch.zeros(number, end, dtype=torch.long)
    while done < end:
        came, after = level.clone(), []
        for one in sorted(set(came.tolist())):
            rows = torch.nonzero(came == one)[:, 0]
            if one == end:
                after.append((rows, state.take(rows)))
                continue
            step, checked = steps[one], one in plan.thresholds
            mine = replace(_numbered(draws.take(rows), visits[rows, one]), step=one)
            kept = _evaluated(parts, evaluate, state.take(rows), step, mine, valued=checked)
            visits[rows, one] += 1
            groups = set(state.group[rows].tolist())
            times = {k: {"visits": float(visits[state.group == k, one].sum())} for k in groups}
            tell(step, kept.state, kept.estimate, times)
            level[rows] = one + 1
            if checked:
                spent, others = visits[rows].sum(dim=1), torch.nonzero(came != one)[:, 0]
                kept, ahead, level[rows] = plan.verdict(kept, best[one].take(rows), one, end, spent)
                best[one] = Kept.gather([(rows, ahead), (others, best[one].take(others))])
            for there in sorted(set(level[rows].tolist())):
                some = torch.nonzero(level[rows] == there)[:, 0]
                left = moved(parts.process, kept.take(some), step, there, mine.take(some))
                after.append((rows[some], left))
        state = gather(after)
        while done < int(level.min()):
            if on_step is not None:
                on_step(steps[done])
            done += 1
    return state


def _first(parts: Parts, evaluate: Evaluate, start: State, draws: Draws, tell: Tell) -> Kept:
    """Of each particle's initial states the best."""
    plan, step = parts.rollover, parts.process.steps[0]
    assert plan is not None
    best: Kept | None = None
    for turn in range(plan.first):
        own = _numbered(draws, torch.full((len(start.picture),), turn))
        z = start.z if turn == 0 else parts.process.initial * own.normal("initial")
        state = replace(start, z=z)
        found = _evaluated(parts, evaluate, state, step, own)
        best = found if best is None else best.replaced(found, found.value > best.value)
        tell(step, state, found.estimate, {})
    assert best is not None
    return best


def _candidates(
    parts: Parts,
    evaluate: Evaluate,
    kept: Kept,
    level: Tensor,
    used: Tensor,
    draws: Draws,
    tell: Tell,
    log: _Log,
) -> Kept:
    """One next state of each particle from where it is, evaluated at the next level."""
    found = []
    for one in sorted(set(level.tolist())):
        rows = torch.nonzero(level == one)[:, 0]
        here, there, own = parts.process.steps[one], parts.process.steps[one + 1], kept.take(rows)
        mine = replace(_numbered(draws.take(rows), used[rows]), step=one)
        kernel = parts.process.kernel(own.estimate.x0, own.estimate.eps, here)
        child = replace(own.state, z=kernel.sample(mine.normal("step")), previous_x0=own.estimate.x0)
        new = _evaluated(parts, evaluate, child, there, replace(mine, step=there.index))
        tell(here, child, new.estimate, log.noted(kept.state.group, rows, one, new.value))
        found.append((rows, new))
    return Kept.gather(found)


class _Log:
    """What is told of each level: how many candidates a group drew from it, and the best of their values."""

    def __init__(self, particles: int, levels: int) -> None:
        self.tries = torch.zeros(particles, levels)
        self.best = torch.full((particles, levels), -torch.inf, dtype=torch.float64)

    def noted(self, group: Tensor, rows: Tensor, level: int, value: Tensor) -> Trace:
        self.tries[rows, level] += 1
        self.best[rows, level] = torch.maximum(self.best[rows, level], value)
        return {
            number: {
                "tries": float(self.tries[group == number, level].sum()),
                "best": float(self.best[group == number, level].max()),
            }
            for number in set(group[rows].tolist())
        }


def _evaluated(
    parts: Parts, evaluate: Evaluate, state: State, step: Step, draws: Draws, *, valued: bool = True
) -> Kept:
    none = torch.zeros(len(state.picture), dtype=torch.bool)
    want = Want(NOTHING, None, none, none | valued, parts.predict.calls)
    estimate = evaluate(state, step, want, draws)
    return Kept(state, estimate, by_value(read(estimate.value)).double())


def _numbered(draws: Draws, number: Tensor) -> Draws:
    """The draws of the particles' candidates of (P,) numbers; the first has a particle's own."""
    return replace(draws, own=[candidate(one, k) for one, k in zip(draws.own, number.tolist(), strict=True)])
