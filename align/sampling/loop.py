"""The one loop.  A method is a choice of its parts: read this file first, ``parts.py`` beside it.

At each step the particles are evaluated: the network predicts (``predict.py``); where something reads it the predictions
are decoded and judged (``judge.py``), and the loss's gradient by them is carried back through the network.  Some particles
are selected (``selection.py``, ``particles.py``), the kernel of the process is formed from the predictions and shifted by the
gradient (``guidance.py``), the children are drawn, and the shift is accounted for in the weights.  Pictures that have rounds
left travel back to the same noise level and repeat the step (``recurrence.py``).  A search draws several children of each
particle, evaluates them where they are, at the next step, and lets one of them go on (``candidates.py``): what it was
evaluated to is the next step's estimate, so the network is never asked twice.  Particles that spend a budget of their own, or go back, are at
levels of their own, and have their own loop (``levels.py``).

What an evaluation computes is decided by ``parts.wants`` alone.  Prompts share calls but never numbers; noise is keyed by
what it is for (``noise.py``).  The grad mode is the caller's: with gradients enabled, the clean latents of ``run`` can be
differentiated by its noise, guidance's own gradients and all that is selected being constants.  From a configuration to these
parts: ``align/runner/build.py``; from requests to pictures: ``sampler.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from align.processes.base import Gaussian, Step, renoise
from align.sampling.candidates import best_candidates, predictor
from align.sampling.host import read, send
from align.sampling.ledger import Ledger
from align.sampling.levels import backtrack, rollover
from align.sampling.noise import Draws, Streams
from align.sampling.parts import Parts, Want, wants
from align.sampling.selection import Trace
from align.sampling.state import Estimate, Pictures, State, gather, join, per_row


@dataclass(frozen=True)
class Info:
    """What only a log needs of one evaluation: who was evaluated, to what, and a selection's figures by group."""

    step: Step
    round: int
    state: State
    estimate: Estimate
    trace: Trace = field(default_factory=dict)


def start(
    streams: Streams,
    pictures: int,
    particles: int,
    shape: tuple[int, ...],
    device: torch.device,
    deviation: float = 1.0,
) -> State:
    """Pure noise: ``particles`` for each of ``pictures``."""
    picture = torch.arange(pictures).repeat_interleave(particles)
    empty = State.of(torch.empty(len(picture), *shape, device=device), picture)
    z = Draws.of(streams, empty, 0, 0).normal("initial")
    return replace(empty, z=z if deviation == 1 else deviation * z)


def run(
    parts: Parts,
    state: State,
    pictures: Pictures,
    streams: Streams,
    ledger: Ledger,
    on_evaluation: Callable[[Info], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    first: int = 0,
) -> State:
    """From initial noise to the state at the end of the process, whose ``z`` are clean latents.

    ``on_evaluation`` is told of every evaluation, ``on_step`` when a step is done.  With ``first``, ``state`` is what arrived at
    that step.
    """
    loop = Loop(parts, pictures, streams, ledger)
    if parts.rollover is not None or parts.backtracking is not None:

        def tell(step: Step, state: State, estimate: Estimate, trace: Trace) -> None:
            if on_evaluation is not None:
                on_evaluation(Info(step, 0, state, estimate, trace))

        levels = rollover if parts.rollover is not None else backtrack
        return levels(parts, loop.evaluate, state, streams, tell, on_step)
    estimate: Estimate | None = None
    for step in parts.process.steps[first:]:
        arrived: list[tuple[State, Estimate | None]] = []
        left: Tensor | None = None  # rounds left, by picture number
        round = 0
        while True:
            draws = Draws.of(streams, state, step.index, round)
            want = wants(parts, step, state, pictures, round)
            if estimate is None:
                estimate = loop.evaluate(state, step, want, draws)
            before = state, estimate
            trace: Trace = {}
            if round == 0 and not parts.select_children:
                selected = parts.select(state, estimate, step, draws)
                state, estimate, trace = selected.state, selected.estimate, selected.trace
            if left is None:
                left = _rounds(parts, step, state, estimate, want, len(pictures.prompts))
            again = left[state.picture] > round
            state, estimate, again, chosen = loop.children(state, estimate, step, want, round, again)
            if on_evaluation is not None:
                on_evaluation(Info(step, round, *before, trace or chosen))
            stay = torch.nonzero(~again)[:, 0]
            arrived.append((state.take(stay), estimate.take(stay) if estimate is not None else None))
            if not bool(again.any()):
                break
            state, estimate = state.take(torch.nonzero(again)[:, 0]), None
            noise = Draws.of(streams, state, step.index, round).normal("renoise")
            state = replace(state, z=renoise(state.z, step, noise))
            round += 1
        state, estimate = _together(arrived)
        if on_step is not None:
            on_step(step)
    return state


def _together(arrived: list[tuple[State, Estimate | None]]) -> tuple[State, Estimate | None]:
    arrived = [one for one in arrived if len(one[0].z)]
    if len(arrived) == 1:
        return arrived[0]
    state = join([state for state, _ in arrived])
    order = torch.argsort(state.group, stable=True)
    known = [estimate for _, estimate in arrived if estimate is not None]
    estimate = join(known).take(order) if len(known) == len(arrived) else None
    return state.take(order), estimate


def _rounds(parts: Parts, step: Step, state: State, estimate: Estimate, want: Want, pictures: int) -> Tensor:
    """Extra rounds of each picture, (pictures,): a picture's particles travel together, as often as the most needed.

    Where there is no signal yet, as a flow begins, the way back leads to fresh noise: there is nothing to repeat.
    """
    rounds = torch.zeros(pictures, dtype=torch.long)
    unguided = parts.guidance is None and parts.judge.clean is None
    if step.a == 0 or parts.recurrence.rule == "none" or (want.back is None and not unguided):
        return rounds
    extra = read(parts.recurrence.extra(estimate, want.terms, everywhere=unguided))
    return rounds.scatter_reduce(0, state.picture, extra, "amax")


class Loop:
    """One run's parts, pictures and noise."""

    def __init__(self, parts: Parts, pictures: Pictures, streams: Streams, ledger: Ledger) -> None:
        self.parts = parts
        self.pictures = pictures
        self.streams = streams
        self.ledger = ledger
        self.twins: Tensor | None = None  # (P,) which of some particles with the same latents comes first

    def evaluate(self, state: State, step: Step, want: Want, draws: Draws) -> Estimate:
        """Evaluate each distinct particle of a state once: no more than is wanted."""
        if self.twins is not None:
            first = torch.tensor(sorted(set(self.twins.tolist())))
            where, self.twins = torch.searchsorted(first, self.twins), None
            some = replace(want, judged=want.judged[first], valued=want.valued[first])
            return self.evaluate(state.take(first), step, some, draws.take(first)).take(where)
        parts, found = self.parts, []
        # Apart, so that a particle's arithmetic never depends on whether another one is judged.
        plain, judged = (torch.nonzero(kind)[:, 0] for kind in (~want.judged, want.judged))
        if len(plain):
            found.append((plain, self._plain(state.take(plain), step, want)))
        for chunk in want.cut(state.group[judged].tolist()):
            rows = judged[chunk.rows]
            estimate = self._guided(state.take(rows), chunk.real, step, want, draws.take(rows))
            found.append((rows[: chunk.real], estimate.take(torch.arange(chunk.real))))
        estimate = gather(found)
        valued = torch.nonzero(want.valued)[:, 0]
        if not len(valued):
            return estimate
        asked, seen, drawn = state.take(valued), estimate.take(valued), draws.take(valued)
        values = parts.judge.values(asked, seen, self.pictures, step, drawn, self.ledger, want.cut)
        whole = estimate.value.index_copy(0, send(valued, values.device), values)
        return replace(estimate, value=whole)

    def _plain(self, state: State, step: Step, want: Want) -> Estimate:
        if not want.predict:
            return Estimate.of(*[torch.full_like(state.z, torch.nan)] * 3)
        found = self.parts.predict(state, self.pictures, step, self.ledger, want.cut)
        return Estimate.of(found.eps, found.x0, found.correction)

    def _guided(self, state: State, real: int, step: Step, want: Want, draws: Draws) -> Estimate:
        """One call of the network, judged, and the gradient of the loss carried back through it; ``real`` rows count."""
        parts, walk = self.parts, want.back == "noisy"
        objective = parts.judge.objective
        assert objective is not None
        outer = torch.is_grad_enabled() and state.z.requires_grad  # someone differentiates the whole sampling
        if walk and not outer:
            state = replace(state, z=state.z.detach().requires_grad_())
        half = objective.attention_half if want.terms.semantic else None
        with torch.set_grad_enabled(walk or outer):
            found = parts.predict.call(state, real, self.pictures, step, self.ledger, half)
        told = parts.judge(
            found, state, real, self.pictures, step, want.terms, draws, self.ledger, differentiate=walk
        )
        gradient, by = torch.zeros_like(found.x0), told.by_x0
        if walk:
            both = ((found.x0, told.by_x0), (found.attention, told.by_attention))
            pairs = [(one, slope) for one, slope in both if one is not None and slope is not None]
            (gradient,) = torch.autograd.grad(
                [one for one, _ in pairs], state.z, [slope for _, slope in pairs], retain_graph=outer
            )
            passes = parts.predict.passes(step, half)
            self.ledger.charge(state.picture[:real].tolist(), "network_backward", passes)
            by = gradient
        assert by is not None
        estimate = Estimate(
            eps=found.eps if outer else found.eps.detach(),
            x0=found.x0 if outer else found.x0.detach(),
            correction=found.correction if outer else found.correction.detach(),
            gradient=gradient.detach(),
            gradient_norm=by.float().flatten(1).norm(dim=1),
            clean_shift=told.clean_shift,
            loss=told.loss,
            value=told.value,
            finite=torch.ones(len(state.picture), dtype=torch.bool, device=state.z.device),
        )
        return _without_nonfinite(estimate)

    def children(
        self, state: State, estimate: Estimate, step: Step, want: Want, round: int, again: Tensor
    ) -> tuple[State, Estimate | None, Tensor, Trace]:
        """The next latents, drawn from the (shifted) kernel; weights follow.

        Returned are the children; what they were evaluated to, if they were and it is all that the next step needs; which of
        them repeat the step, (P,) bool on the host as ``again``; figures of the search or of the selection among them.
        """
        parts = self.parts
        kernel = parts.process.kernel(estimate.x0, estimate.eps, step)
        draws = Draws.of(self.streams, state, step.index, round)
        proposal = self._shifted(kernel, state, estimate, step, want, draws)
        previous = estimate.x0.detach()
        objective = parts.judge.objective
        if objective is not None and objective.compare_with == "timestep":
            repeats = per_row(send(again, previous.device), previous)
            previous = torch.where(repeats, state.previous_x0, previous)
        parents = replace(state, previous_x0=previous)
        if parts.search is not None:
            widths = parts.search.widths(state, step, draws)
            if bool((widths > 1).any()):
                found = best_candidates(
                    parts, self.evaluate, parents, kernel, proposal, step, draws, widths, estimate.value
                )
                return *found[:2], again, found[2]
        z, noise = proposal.mean, None
        if proposal.std > 0:
            noise = draws.normal("step")
            predict = predictor(self.evaluate, state, draws, want.cut)
            z = parts.process.draw(proposal, state.z, estimate.x0, step, noise, predict)
        log_weights = state.log_weights
        if parts.weigh and noise is not None:
            log_weights = log_weights + kernel.log_ratio(proposal, noise)
        children = replace(parents, z=z, log_weights=log_weights)
        if parts.select_children and round == 0:
            selected = parts.select(children, estimate, step, draws)
            if not bool(again.any()):
                places: dict[int, int] = {}
                twins = [places.setdefault(k, place) for place, k in enumerate(selected.index.tolist())]
                self.twins = torch.tensor(twins)
            return selected.state, None, again[selected.index], selected.trace
        return children, None, again, {}

    def _shifted(
        self, kernel: Gaussian, state: State, estimate: Estimate, step: Step, want: Want, draws: Draws
    ) -> Gaussian:
        """The kernel as guidance shifts it: by what it makes of the predictions, then by moving the mean or the noise."""
        parts, moved = self.parts, estimate
        if want.back is None:
            return kernel
        if parts.judge.clean is not None:
            moved = parts.judge.clean.adjust(moved, step)
        noisy = parts.guidance if want.back == "noisy" else None
        if noisy is not None:
            moved = noisy.adjust(moved, want.terms, step, state.tilt)
        if moved is not estimate:
            kernel = parts.process.kernel(moved.x0, moved.eps, step)
        return (
            kernel if noisy is None else noisy.propose(kernel, estimate, want.terms, step, state.tilt, draws)
        )


def _without_nonfinite(estimate: Estimate) -> Estimate:
    """Rows whose gradients or loss are not finite are marked, and not guided: a broken loss can have a finite gradient, which
    means nothing.
    """
    finite = torch.isfinite(estimate.gradient_norm) & torch.isfinite(estimate.loss)
    finite = finite & torch.isfinite(estimate.clean_shift).flatten(1).all(dim=1)
    broken = per_row(~finite, estimate.gradient)
    return replace(
        estimate,
        gradient=estimate.gradient.masked_fill(broken, 0),
        gradient_norm=estimate.gradient_norm.masked_fill(~finite, 0),
        clean_shift=estimate.clean_shift.masked_fill(broken, 0),
        finite=finite,
    )
