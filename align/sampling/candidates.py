"""The search of a step: candidates for each particle's next state, of which one goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.processes.base import Gaussian, Predict, Step
from align.sampling.batching import Cut, one_call
from align.sampling.host import read_together, send
from align.sampling.noise import Draws, candidate
from align.sampling.parts import NOTHING, Parts, Want, suffices, wants_of_candidates
from align.sampling.selection import Trace
from align.sampling.state import Estimate, State, join

Evaluate = Callable[[State, Step, Want, Draws], Estimate]


def predictor(evaluate: Evaluate, state: State, draws: Draws, cut: Cut) -> Predict:
    """What a process that asks the network within a step asks."""
    none = torch.zeros(len(state.picture), dtype=torch.bool)
    want = Want(NOTHING, None, none, none, cut)
    return lambda z, step: evaluate(replace(state, z=z), step, want, draws).x0


def best_candidates(
    parts: Parts,
    evaluate: Evaluate,
    state: State,
    kernel: Gaussian,
    proposal: Gaussian,
    step: Step,
    draws: Draws,
    widths: Tensor,
    value: Tensor,
) -> tuple[State, Estimate | None, Trace]:
    """Of each particle's candidates one, and what it was evaluated to at the next step, if that is all that it needs there.

    Each of the P particles of ``state``, which knows what they were predicted to be, has at most as many as ``widths`` (P,) says, on
    the host, drawn from the ``proposal``, which is the ``kernel`` as guidance shifts it; ``value`` (P,) is their own.  They are evaluated
    call by call and only the best of each particle is kept, so memory does not grow with their number.  Also told of groups:
    ``unvalued``, how many particles had no candidate of a finite value, so that the first one went on, where there was any; ``tries``,
    how many candidates were drawn, where that depends on them.
    """
    search = parts.search
    assert search is not None
    following = parts.process.steps[step.index + 1]
    best: _Candidates | None = None
    most, bar = int(widths.max()), search.bar(value, step)
    tried = torch.zeros_like(widths)
    for turns in torch.split(torch.arange(most), most if bar is None else 1):
        # All first candidates, then all second ones: a call holds as few candidates of one particle as can be.
        number = turns.repeat_interleave(len(widths))
        parent = torch.arange(len(widths)).repeat(len(turns))
        there = number < widths[parent]
        if bar is not None and best is not None:
            there &= best.key <= bar
        number, parent = number[there], parent[there]
        tried += torch.bincount(parent, minlength=len(tried))
        for chunk in parts.predict.calls(state.group[parent].tolist()):
            rows, turn = (part[chunk.rows[: chunk.real]] for part in (parent, number))
            own = [candidate(draws.own[m], k) for m, k in zip(rows.tolist(), turn.tolist(), strict=True)]
            mine = replace(draws, own=own)
            at = send(rows, state.z.device)
            noise = mine.normal("step")
            parents = state.take(rows)
            predict = predictor(evaluate, parents, mine, one_call(len(chunk.rows)))
            drawn = parts.process.draw(
                proposal.take(at), parents.z, parents.previous_x0, step, noise, predict
            )
            child = replace(parents, z=drawn)
            want = wants_of_candidates(parts, following, widths[rows], len(chunk.rows))
            estimate = evaluate(child, following, want, replace(mine, step=following.index, round=0))
            ratio = torch.zeros_like(child.log_weights)
            if search.temperature > 0 and proposal is not kernel and kernel.std > 0:
                ratio = kernel.take(at).log_ratio(proposal.take(at), noise)
            worth, ratio = read_together(estimate.value, ratio)
            found = _Candidates(rows, child, estimate, search.keys(worth, ratio, mine))
            best = _best([found] if best is None else [best, found])
    assert best is not None
    unknown = torch.isneginf(best.key) & (widths > 1)
    trace = {}
    for rows in state.groups():
        tries = {} if bar is None else {"tries": float(tried[rows].sum())}
        broken = float(unknown[rows].sum())
        trace[int(state.group[rows[0]])] = tries | ({"unvalued": broken} if broken else {})
    trace = {group: figures for group, figures in trace.items() if figures}
    return best.state, best.estimate if suffices(parts, following, want) else None, trace


@dataclass(frozen=True)
class _Candidates:
    """Some candidates: (Q,) whose they are, their states and estimates, and (Q,) keys to compare them by, on the host."""

    parent: Tensor
    state: State
    estimate: Estimate
    key: Tensor


def _best(found: Sequence[_Candidates]) -> _Candidates:
    """That of the largest key of each parent, parents in order; of equals the first."""
    parent, key = torch.cat([one.parent for one in found]), torch.cat([one.key for one in found])
    order = torch.argsort(key, descending=True, stable=True)
    order = order[torch.argsort(parent[order], stable=True)]
    ahead = torch.ones(len(order), dtype=torch.bool)
    ahead[1:] = parent[order][1:] != parent[order][:-1]
    win = order[ahead]
    state, estimate = join([one.state for one in found]), join([one.estimate for one in found])
    return _Candidates(parent[win], state.take(win), estimate.take(win), key[win])
