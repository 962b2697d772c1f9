"""What a method is made of, and what it wants of each evaluation: the one place that decides what is computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Process, Step
from align.sampling.backtracking import Backtracking
from align.sampling.batching import Cut, one_call
from align.sampling.guidance import Guidance, NoiseGuidance
from align.sampling.judge import Judge
from align.sampling.objective import Terms
from align.sampling.predict import Predict
from align.sampling.recurrence import Recurrence
from align.sampling.rollover import Rollover
from align.sampling.search import Search
from align.sampling.selection import Keep
from align.sampling.state import Pictures, State

NOTHING = Terms(0, False, False)


@dataclass(frozen=True)
class Parts:
    """What a method is made of.

    Attributes:
        predict: the network.
        judge: losses and values of its predictions.
        process: steps and their kernel.
        guidance: how the gradient shifts the kernel; ``None`` leaves it alone.
        recurrence: rounds per step.
        select: which particles go on, at every step.
        search: candidates for each particle's next state; ``None`` draws one.
        rollover: how a particle's budget is spent, where each has one; nothing guides, selects or searches beside it.
        backtracking: where particles go back to noisier levels; likewise.
        weigh: account for the shift in the log-weights (needs eta > 0).
        select_children: select among the children of a step by what their parents were evaluated to, as Feynman-Kac
            steering was released; copies then start the next step at the same latents.
    """

    predict: Predict
    judge: Judge
    process: Process
    guidance: Guidance | None = None
    recurrence: Recurrence = field(default_factory=Recurrence)
    select: Keep = field(default_factory=Keep)
    search: Search | None = None
    rollover: Rollover | None = None
    backtracking: Backtracking | None = None
    weigh: bool = False
    select_children: bool = False


@dataclass(frozen=True)
class Want:
    """What an evaluation of P particles computes; nothing beyond it.

    Attributes:
        terms: the losses that count, none where nothing is guided.
        back: how far their gradient is walked back: to the predicted clean latents or through the network to z; ``None``
            where there is none.
        judged: (P,) bool on the host, whose losses are computed.
        valued: (P,) bool on the host, whose expected reward is wanted beside them.
        cut: the rows of a pass, each with its group, to calls.
        predict: whether the network is called; a value of noisy latents alone needs no prediction.
    """

    terms: Terms
    back: Literal["clean", "noisy"] | None
    judged: Tensor
    valued: Tensor
    cut: Cut
    predict: bool = True


def wants(parts: Parts, step: Step, state: State, pictures: Pictures, round: int = 0) -> Want:
    """Of the particles that arrive at a step, for the first time or in a further round of time travel."""
    terms, back = _guides(parts, step)
    judged = torch.zeros(len(state.picture), dtype=torch.bool)
    if terms.preference:
        judged[:] = True
    elif terms.semantic:
        judged = pictures.has_pairs[state.picture]
    told = terms.preference and parts.judge.values_by_loss()
    valued = torch.full_like(judged, _reads(parts, step) and not told)
    return Want(terms, back, judged, valued, parts.predict.calls.later(round))


def wants_of_candidates(parts: Parts, step: Step, widths: Tensor, size: int) -> Want:
    """Of a call of ``size`` candidates for the states that arrive at a step, each one of (P,) ``widths``: an only one is not
    compared.
    """
    value = parts.judge.value
    valued = (widths > 1) | _reads(parts, step)
    none = torch.zeros_like(valued)
    return Want(NOTHING, None, none, valued, one_call(size), value is None or not value.of_latents)


def suffices(parts: Parts, step: Step, candidates: Want) -> bool:
    """Whether what candidates were evaluated to is all that is wanted of the winners when they arrive at the step."""
    return candidates.predict and _guides(parts, step)[1] is None


def _reads(parts: Parts, step: Step) -> bool:
    """Whether anything looks at the values of the states that arrive at a step."""
    return parts.select.reads(step) or (parts.search is not None and parts.search.reads(step))


def _guides(parts: Parts, step: Step) -> tuple[Terms, Literal["clean", "noisy"] | None]:
    objective, guidance = parts.judge.objective, parts.guidance
    if objective is None:
        return NOTHING, None
    terms = objective.terms(step)
    # A weighed particle takes a deterministic step as it is: shifted, it would have no weight at all.
    if not (parts.weigh and step.std == 0):
        tilted = guidance is not None and (guidance.rule != "variance" or parts.select.tilts(step))
        # Without noise there is none to point anywhere.
        tilted = tilted and not (isinstance(guidance, NoiseGuidance) and step.std == 0)
        if guidance is not None and guidance.strength > 0 and tilted and (terms.semantic or terms.preference):
            return terms, "noisy"
        if parts.judge.clean is not None and terms.preference:
            return terms, "clean"
    return replace(terms, semantic=False, preference=False), None
