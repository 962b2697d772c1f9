"""The one loop.  A method is a choice of its parts.

Per step: evaluate the particles, select among them, form the transition kernel, shift it, draw the children, account
for the shift in the weights; pictures that have rounds left travel back to the same noise level and repeat.  A search
draws several children of each particle, evaluates them where they are, at the next step, and lets one of them go on: what
it was evaluated to is the next step's estimate, so the network is never asked twice.  Where values are of noisy latents
alone, only the child that goes on is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from align.processes.base import Process, Step, renoise
from align.processes.gaussian import Gaussian
from align.sampling.evaluate import Evaluator, Need, Pictures
from align.sampling.guidance import Guidance
from align.sampling.ledger import Ledger
from align.sampling.noise import Candidate, Draws, Streams
from align.sampling.objective import Terms
from align.sampling.recurrence import Recurrence
from align.sampling.search import Search
from align.sampling.selection import Keep, Selection
from align.sampling.state import Estimate, State


@dataclass(frozen=True)
class Parts:
    """What a method is made of.

    Attributes:
        evaluate: predictions, values and gradients.
        process: steps, kernel and the way back.
        guidance: how the gradient shifts the kernel; ``None`` leaves it alone.
        recurrence: rounds per step.
        select: which particles go on, at every step.
        search: candidates for each particle's next state; ``None`` draws one.
        weigh: account for the shift in the log-weights (needs eta > 0).
        select_children: select among the children of a step by what their parents were evaluated to, as Feynman-Kac
            steering was released; copies then start the next step at the same latents.
    """

    evaluate: Evaluator
    process: Process
    guidance: Guidance | None = None
    recurrence: Recurrence = field(default_factory=Recurrence)
    select: Selection = field(default_factory=Keep)
    search: Search | None = None
    weigh: bool = False
    select_children: bool = False

    def need(self, step: Step) -> Need:
        """What an evaluation must yield of the objective; nothing beyond it is computed."""
        if self.weigh and step.std == 0:
            return "prediction"  # A weighed particle takes a deterministic step as it is.
        guidance = self.guidance
        tilted = guidance is not None and (guidance.rule != "variance" or self.select.tilts(step))
        if guidance is not None and guidance.strength > 0 and tilted:
            return "gradient"
        return "clean_gradient" if self.evaluate.clean is not None else "prediction"


@dataclass(frozen=True)
class Info:
    """What only the log needs of one evaluation: step, round, pictures (P,), and (P,) of each figure.

    ``trace`` holds a selection's figures of each of these pictures' groups, in order.
    """

    step: Step
    round: int
    picture: Tensor
    value: Tensor
    gradient_norm: Tensor
    finite: Tensor
    trace: Mapping[str, Tensor] = field(default_factory=dict)


def start(
    streams: Streams, pictures: int, particles: int, shape: tuple[int, int, int], device: torch.device
) -> State:
    """Pure noise: ``particles`` for each of ``pictures``."""
    number = pictures * particles
    picture = torch.arange(pictures, device=device).repeat_interleave(particles)
    empty = State.of(torch.empty(number, *shape, device=device), picture)
    return replace(empty, z=Draws.of(streams, empty, 0, 0).normal("initial"))


def run(
    parts: Parts,
    state: State,
    pictures: Pictures,
    streams: Streams,
    ledger: Ledger,
    on_evaluation: Callable[[Info], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """Sample.

    Args:
        parts: the method.
        state: initial noise of all particles.
        pictures: prompts and conditioning, by picture number.
        streams: noise of each particle.
        ledger: where evaluations are charged.
        on_evaluation: told of every evaluation.
        on_step: told when a step is done.

    Returns:
        The state at the end of the process: ``z`` are clean latents.
    """
    loop = _Loop(parts, pictures, streams, ledger)
    estimate: Estimate | None = None
    for step in parts.process.steps:
        terms = parts.evaluate.objective.terms(step) if parts.evaluate.objective else Terms(0, False, False)
        arrived: list[tuple[State, Estimate | None]] = []
        left: Tensor | None = None  # rounds left, by picture number
        round = 0
        while True:
            draws = Draws.of(streams, state, step.index, round)
            if estimate is None:
                estimate = loop.evaluate(state, step, draws)
            before = state, estimate
            trace: Mapping[str, Tensor] = {}
            if round == 0 and not parts.select_children:
                selected = parts.select(state, estimate, step, draws)
                state, estimate, trace = selected.state, selected.estimate, selected.trace
            if left is None:
                left = _rounds(parts, state, estimate, terms, len(pictures.prompts))
            again = left[state.picture] > round
            state, estimate, again, chosen = loop.children(state, estimate, step, terms, round, again)
            if on_evaluation is not None:
                on_evaluation(_info(step, round, *before, trace or chosen))
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


def _info(step: Step, round: int, state: State, estimate: Estimate, trace: Mapping[str, Tensor]) -> Info:
    return Info(step, round, state.picture, estimate.value, estimate.gradient_norm, estimate.finite, trace)


def _together(arrived: list[tuple[State, Estimate | None]]) -> tuple[State, Estimate | None]:
    """Particles that needed different numbers of rounds as one state again, groups in order."""
    if len(arrived) == 1:
        return arrived[0]
    state = State.join([state for state, _ in arrived])
    order = torch.argsort(state.group, stable=True)
    known = [estimate for _, estimate in arrived if estimate is not None]
    estimate = Estimate.join(known).take(order) if len(known) == len(arrived) else None
    return state.take(order), estimate


def _rounds(parts: Parts, state: State, estimate: Estimate, terms: Terms, pictures: int) -> Tensor:
    """Extra rounds of each picture, (pictures,): a picture's particles travel together, as often as the most needed."""
    rounds = torch.zeros(pictures, dtype=torch.long, device=state.z.device)
    unguided = parts.guidance is None and parts.evaluate.clean is None
    extra = parts.recurrence.extra(estimate, terms, everywhere=unguided)
    return rounds.scatter_reduce(0, state.picture, extra, "amax")


class _Loop:
    """One run's parts, pictures and noise."""

    def __init__(self, parts: Parts, pictures: Pictures, streams: Streams, ledger: Ledger) -> None:
        self.parts = parts
        self.pictures = pictures
        self.streams = streams
        self.ledger = ledger
        self.twins: Tensor | None = None  # (P,) which of some particles with the same latents comes first

    def evaluate(self, state: State, step: Step, draws: Draws) -> Estimate:
        """Evaluate each distinct particle of a state once."""
        parts = self.parts
        need, valued = parts.need(step), parts.select.reads(step)
        if self.twins is None:
            return parts.evaluate(state, self.pictures, step, self.ledger, need, draws, valued)
        first, where = self.twins.unique(return_inverse=True)
        self.twins = None
        some = parts.evaluate(
            state.take(first), self.pictures, step, self.ledger, need, draws.take(first), valued
        )
        return some.take(where)

    def proposal(self, state: State, estimate: Estimate, step: Step, terms: Terms) -> Gaussian:
        """The kernel as guidance shifts it: by what it makes of the predictions, then by moving the mean."""
        parts, moved = self.parts, estimate
        if parts.evaluate.clean is not None:
            moved = parts.evaluate.clean.adjust(moved, step)
        if parts.need(step) != "gradient":
            return parts.process.kernel(moved.x0, moved.eps, step)
        assert parts.guidance is not None
        std = step.std
        moved = parts.guidance.adjust(moved, terms, step, state.tilt, std)
        proposal = parts.process.kernel(moved.x0, moved.eps, step)
        shift = parts.guidance.shift(estimate, terms, state.tilt, std)
        return proposal if shift is None else proposal.shifted(shift)

    def children(
        self, state: State, estimate: Estimate, step: Step, terms: Terms, round: int, again: Tensor
    ) -> tuple[State, Estimate | None, Tensor, Mapping[str, Tensor]]:
        """The next latents, drawn from the (shifted) kernel; weights follow.

        Args:
            state: the particles.
            estimate: what they were evaluated to.
            step: where in the process.
            terms: what counts there.
            round: how often they were there before.
            again: (P,) bool, which of them will repeat the step.

        Returns:
            The children; what they were evaluated to, if they were and it is all that the next step needs; ``again`` of
            each; the trace of a selection among them.
        """
        parts = self.parts
        kernel = parts.process.kernel(estimate.x0, estimate.eps, step)
        proposal = kernel
        # Shifted, a weighed particle would have no weight at all after a deterministic step.
        weighed = parts.weigh and kernel.std > 0
        guided = parts.need(step) != "prediction" and (terms.semantic or terms.preference)
        if guided and (weighed or not parts.weigh):
            proposal = self.proposal(state, estimate, step, terms)
        previous = estimate.x0
        if parts.evaluate.objective is not None and parts.evaluate.objective.compare_with == "timestep":
            previous = torch.where(again.view(-1, 1, 1, 1), state.previous_x0, previous)
        draws = Draws.of(self.streams, state, step.index, round)
        parents = replace(state, previous_x0=previous)
        if parts.search is not None:
            widths = parts.search.widths(state, step, draws)
            if bool((widths > 1).any()):
                found = self.search(parts.search, parents, kernel, proposal, step, draws, widths)
                children, estimated, unvalued = found
                return children, estimated, again, {"unvalued": unvalued} if len(unvalued) else {}
        z, noise = proposal.mean, None
        if proposal.std > 0:
            noise = draws.normal("step")
            z = proposal.sample(noise)
        log_weights = state.log_weights
        if weighed and noise is not None:
            log_weights = log_weights + kernel.log_ratio(proposal, noise)
        children = replace(parents, z=z, log_weights=log_weights)
        if parts.select_children and round == 0:
            selected = parts.select(children, estimate, step, draws)
            if not bool(again.any()):
                self.twins = _first(selected.index)
            return selected.state, None, again[selected.index], selected.trace
        return children, None, again, {}

    def search(
        self,
        search: Search,
        state: State,
        kernel: Gaussian,
        proposal: Gaussian,
        step: Step,
        draws: Draws,
        widths: Tensor,
    ) -> tuple[State, Estimate | None, Tensor]:
        """Of each particle's candidates one, and what it was evaluated to at the next step.

        Candidates are evaluated in calls of one size and only the best of each particle is kept, so memory does not
        grow with their number.

        Also told, (G,): how many particles of each group had no candidate of a finite value, so that the first candidate
        went on; NaN for a group where there was none such, empty where there is no such group.
        """
        parts, device = self.parts, state.z.device
        following = parts.process.steps[step.index + 1]
        # All first candidates, then all second ones: a call holds as few candidates of one particle as can be.
        number = torch.arange(int(widths.max())).repeat_interleave(len(widths))
        parent = torch.arange(len(widths)).repeat(int(widths.max()))
        there = number < widths[parent]
        number, parent = number[there], parent[there]
        size, value = parts.evaluate.batch_size, parts.evaluate.value
        need: Need = "value" if value is not None and value.of_latents else "prediction"
        best: _Candidates | None = None
        for first in range(0, len(parent), size):
            rows, turn = parent[first : first + size], number[first : first + size]
            own = [Candidate(draws.own[m], k) for m, k in zip(rows.tolist(), turn.tolist(), strict=True)]
            mine = replace(draws, own=own)
            at = rows.to(device)
            noise = mine.normal("step")
            child = replace(state.take(at), z=proposal.mean[at] + proposal.std * noise)
            valued = (widths[rows] > 1) | parts.select.reads(following)
            there_draws = replace(mine, step=following.index, round=0)
            estimate = parts.evaluate(child, self.pictures, following, self.ledger, need, there_draws, valued)
            ratio = torch.zeros(len(rows), dtype=child.log_weights.dtype, device=device)
            if search.temperature > 0 and proposal is not kernel and kernel.std > 0:
                kernel_there, proposal_there = (Gaussian(g.mean[at], g.std) for g in (kernel, proposal))
                ratio = kernel_there.log_ratio(proposal_there, noise)
            found = _Candidates(at, child, estimate, search.keys(estimate.value, ratio, mine))
            best = found.best() if best is None else best.join(found).best()
        assert best is not None
        unknown = torch.isneginf(best.key) & (widths > 1).to(device)
        counts = torch.stack([unknown[rows].sum() for rows in best.state.groups()]).float()
        unvalued = torch.where(counts > 0, counts, torch.nan) if bool(unknown.any()) else counts[:0]
        return best.state, best.estimate if parts.need(following) == need == "prediction" else None, unvalued


@dataclass(frozen=True)
class _Candidates:
    """Some candidates: (Q,) whose they are, their states and estimates, and (Q,) keys to compare them by."""

    parent: Tensor
    state: State
    estimate: Estimate
    key: Tensor

    def join(self, other: _Candidates) -> _Candidates:
        """These, then others."""
        return _Candidates(
            torch.cat([self.parent, other.parent]),
            State.join([self.state, other.state]),
            Estimate.join([self.estimate, other.estimate]),
            torch.cat([self.key, other.key]),
        )

    def best(self) -> _Candidates:
        """That of the largest key of each parent, parents in order; of equals the first."""
        order = torch.argsort(self.key, descending=True, stable=True)
        order = order[torch.argsort(self.parent[order], stable=True)]
        ahead = torch.ones(len(order), dtype=torch.bool, device=order.device)
        ahead[1:] = self.parent[order][1:] != self.parent[order][:-1]
        win = order[ahead]
        return _Candidates(self.parent[win], self.state.take(win), self.estimate.take(win), self.key[win])


def _first(index: Tensor) -> Tensor:
    """(Q,) for each member of (Q,) the place of the first that is equal to it."""
    _, where = index.unique(return_inverse=True)
    places = torch.full((int(where.max()) + 1,), len(index), dtype=torch.long, device=index.device)
    return places.scatter_reduce(0, where, torch.arange(len(index), device=index.device), "amin")[where]
