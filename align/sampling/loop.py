"""The one loop.  A method is a choice of its parts.

Per step: evaluate the particles, select among them, form the transition kernel, shift it, draw the children, account
for the shift in the weights; pictures that have rounds left travel back to the same noise level and repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from align.processes.base import Process, Step
from align.processes.gaussian import Gaussian
from align.sampling.evaluate import Evaluator, Need, Pictures
from align.sampling.guidance import Guidance
from align.sampling.ledger import Ledger
from align.sampling.noise import Noise
from align.sampling.objective import Terms
from align.sampling.recurrence import Recurrence
from align.sampling.selection import Selection, keep
from align.sampling.state import Estimate, State


@dataclass(frozen=True)
class Parts:
    """What a method is made of.

    Attributes:
        evaluate: predictions, values and gradients.
        process: steps, kernel and the way back.
        guidance: how the gradient shifts the kernel; ``None`` leaves it alone.
        recurrence: rounds per step.
        select: which particles go on, at every evaluation.
        branch: children drawn from each particle at a step.
        weigh: account for the shift in the log-weights (needs eta > 0).
    """

    evaluate: Evaluator
    process: Process
    guidance: Guidance | None = None
    recurrence: Recurrence = field(default_factory=Recurrence)
    select: Selection = keep
    branch: Callable[[Step], int] = lambda step: 1
    weigh: bool = False

    @property
    def need(self) -> Need:
        """What an evaluation must yield; nothing beyond it is computed."""
        if self.guidance is not None and self.guidance.strength > 0:
            return "gradient"
        if self.evaluate.clean is not None:
            return "clean_gradient"
        return "prediction" if self.select is keep else "value"

    @property
    def guided(self) -> bool:
        """Whether a gradient moves anything."""
        return self.need in ("gradient", "clean_gradient")


@dataclass(frozen=True)
class Info:
    """What only the log needs of one evaluation: step, round, pictures (P,), value and gradient norm (P,)."""

    step: Step
    round: int
    picture: Tensor
    value: Tensor
    gradient_norm: Tensor
    finite: Tensor


Streams = Callable[[int, int], Noise]
"""The noise of (picture, particle)."""


def _own(streams: Streams, state: State) -> list[Noise]:
    """The stream of each particle."""
    pairs = zip(state.picture.tolist(), state.slots().tolist(), strict=True)
    return [streams(picture, slot) for picture, slot in pairs]


def draw(streams: Streams, state: State, purpose: str, step: int, round: int) -> Tensor:
    """Keyed noise for every particle, (P, C, h, w) on the latents' device."""
    shape = tuple(state.z.shape[1:])
    noise = [stream.normal(purpose, step, round, shape) for stream in _own(streams, state)]
    return torch.stack(noise).to(state.z.device)


def draw_uniform(streams: Streams, state: State, step: int, round: int, purpose: str, number: int) -> Tensor:
    """Keyed uniform numbers of [0, 1) for every particle, (P, number) float64 on the CPU."""
    return torch.stack([stream.uniform(purpose, step, round, (number,)) for stream in _own(streams, state)])


def start(
    streams: Streams, pictures: int, particles: int, shape: tuple[int, int, int], device: torch.device
) -> State:
    """Pure noise: ``particles`` for each of ``pictures``."""
    number = pictures * particles
    empty = State(
        z=torch.empty(number, *shape, device=device),
        picture=torch.arange(pictures, device=device).repeat_interleave(particles),
        log_weights=torch.zeros(number, device=device),
        previous_x0=torch.full((number, *shape), torch.nan, device=device),
    )
    return replace(empty, z=draw(streams, empty, "initial", 0, 0))


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
    for step in parts.process.steps:
        terms = parts.evaluate.objective.terms(step) if parts.evaluate.objective else Terms(0, False, False)
        arrived: list[State] = []
        left: Tensor | None = None  # rounds left, by picture number
        round = 0
        while True:
            uniform = partial(draw_uniform, streams, state, step.index, round)
            estimate = parts.evaluate(state, pictures, step, ledger, parts.need, uniform)
            if on_evaluation is not None:
                on_evaluation(
                    Info(step, round, state.picture, estimate.value, estimate.gradient_norm, estimate.finite)
                )
            selected = parts.select(state, estimate, step)
            state = replace(state.take(selected.index), log_weights=selected.log_weights)
            estimate = estimate.take(selected.index)
            if left is None:
                left = _rounds(parts.recurrence, state, estimate, terms, len(pictures.prompts))
            state = _children(parts, state, estimate, step, terms, streams, round, left)
            again = left[state.picture] > round
            arrived.append(state.take(torch.nonzero(~again)[:, 0]))
            if not bool(again.any()):
                break
            state = state.take(torch.nonzero(again)[:, 0])
            noise = draw(streams, state, "renoise", step.index, round)
            state = replace(state, z=parts.process.renoise(state.z, step, noise))
            round += 1
        state = State.join(arrived)
        if on_step is not None:
            on_step(step)
    return state


def _rounds(recurrence: Recurrence, state: State, estimate: Estimate, terms: Terms, pictures: int) -> Tensor:
    """Extra rounds of each picture, (pictures,): a picture's particles travel together, as often as the most needed."""
    rounds = torch.zeros(pictures, dtype=torch.long, device=state.z.device)
    return rounds.scatter_reduce(0, state.picture, recurrence.extra(estimate, terms), "amax")


def _proposal(parts: Parts, estimate: Estimate, step: Step, terms: Terms) -> Gaussian:
    """The kernel as guidance shifts it: by what it makes of the predictions, then by moving the mean."""
    moved = estimate
    if parts.evaluate.clean is not None:
        moved = parts.evaluate.clean.adjust(moved, step)
    if parts.need != "gradient":
        return parts.process.kernel(moved.x0, moved.eps, step)
    assert parts.guidance is not None
    moved = parts.guidance.adjust(moved, terms, step)
    proposal = parts.process.kernel(moved.x0, moved.eps, step)
    shift = parts.guidance.shift(estimate, terms)
    return proposal if shift is None else proposal.shifted(shift)


def _children(
    parts: Parts,
    state: State,
    estimate: Estimate,
    step: Step,
    terms: Terms,
    streams: Streams,
    round: int,
    left: Tensor,
) -> State:
    """Draw the next latents from the (shifted) kernel; weights follow."""
    branch = parts.branch(step)
    kernel = parts.process.kernel(estimate.x0, estimate.eps, step)
    proposal = kernel
    # A weighted particle takes a deterministic step as it is: shifted, it would have no weight at all.
    weighed = parts.weigh and kernel.std > 0
    if parts.guided and (terms.semantic or terms.preference) and (weighed or not parts.weigh):
        proposal = _proposal(parts, estimate, step, terms)
    if branch > 1:
        index = torch.arange(len(state.z), device=state.z.device).repeat_interleave(branch)
        state = state.take(index)
        kernel, proposal = (replace(g, mean=g.mean[index]) for g in (kernel, proposal))
        estimate = estimate.take(index)
    z = proposal.mean
    if proposal.std > 0:
        z = proposal.sample(draw(streams, state, "step", step.index, round))
    log_weights = state.log_weights
    if weighed:
        log_weights = log_weights + kernel.log_prob(z) - proposal.log_prob(z)
    previous = estimate.x0
    if parts.evaluate.objective is not None and parts.evaluate.objective.compare_with == "timestep":
        again = (left[state.picture] > round).view(-1, 1, 1, 1)
        previous = torch.where(again, state.previous_x0, previous)
    return replace(state, z=z, log_weights=log_weights, previous_x0=previous)
