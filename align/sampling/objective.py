"""What guidance differentiates: a scheduled sum of a reward and of the semantic objective.

DyMO (arXiv 2412.00759): early on only the semantic loss L_A on attention maps counts, late only the preference
L_R of the predicted picture; between them both do, weighted by how much the prediction still changes
(section 3.4 of the paper).  Phases are placed by timestep, so they follow the number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.backbones.base import Halves
from align.processes.base import Step
from align.sampling.state import per_row


@dataclass(frozen=True)
class Terms:
    """Which losses count at one step; ``phase`` is 0, 1 or 2: semantic alone, both, preference alone (or nothing any more)."""

    phase: int
    semantic: bool
    preference: bool


@dataclass(frozen=True)
class Objective:
    """The scheduled objective.

    Attributes:
        preference: weight of L_R, at least 0; 0 leaves it out.
        semantic: weight K of L_A, at least 0; 0 leaves it out.
        semantic_until: t/T at and above which only the semantic loss counts (800/1000 in the paper).
        both_until: t/T at and above which both count (500/1000 in the paper).
        preference_until: t/T at and above which the preference alone counts; nothing does below.
        copies: randomly altered copies of the picture (``align.sampling.views``) that are scored beside it.
        content_rate: k in w = 1 - exp(-k delta).
        dynamic: weight the middle phase by w; otherwise both weights are constant there.
        change: predictions are compared after normalising each channel ("normalised") or as they are.
        compare_with: the prediction of the last "evaluation", also within a step, or of the last "timestep".
        detach_weight: keep w out of the gradient.
        attention_half: whose maps L_A reads.
        clamp: score pictures clamped to [0, 1], which have no gradient where a pixel is saturated (DAS).
    """

    preference: float
    semantic: float
    semantic_until: float = 0.8
    both_until: float = 0.5
    preference_until: float = 0.0
    copies: int = 0
    content_rate: float = 1.0
    dynamic: bool = True
    change: Literal["normalised", "raw"] = "normalised"
    compare_with: Literal["evaluation", "timestep"] = "evaluation"
    detach_weight: bool = False
    attention_half: Halves = "both"
    clamp: bool = False

    def terms(self, step: Step) -> Terms:
        if step.fraction >= self.semantic_until:
            return Terms(0, self.semantic > 0, False)
        if step.fraction >= self.both_until:
            return Terms(1, self.semantic > 0, self.preference > 0)
        return Terms(2, False, self.preference > 0 and step.fraction >= self.preference_until)

    def view_losses(self, scores: Tensor) -> Tensor:
        """What each score adds to the sum that ``over_views`` takes, so that views can be scored in parts."""
        return -scores

    def over_views(self, total: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """L_R from the sum (P,) of ``view_losses`` over ``number`` views, and its derivative by that sum, (P,).

        L_R = -sum(s) / sqrt(V) of V views' scores s.
        """
        factor = number**-0.5
        return factor * total, torch.full_like(total, factor)

    def change_weight(self, x0: Tensor, previous: Tensor) -> Tensor:
        """W = 1 - exp(-k delta), in [0, 1]: (P,) from two predictions (P, C, ...).

        delta is the relative change of the (per-channel normalised) prediction; where there is no previous one (NaN), w
        is 1.
        """
        if not self.dynamic:
            return torch.ones(len(x0), device=x0.device)
        known = torch.isfinite(previous).flatten(1).all(dim=1)
        safe = torch.where(per_row(known, x0), previous, x0.detach())
        old, new = safe, x0
        if self.change == "normalised":
            old, new = channel_normalised(safe), channel_normalised(x0)
        difference = (new - old).flatten(1)
        # The norm's derivative is undefined at 0, where prediction and predecessor are the same.
        change = (difference.square().sum(dim=1) + 1e-12).sqrt() / old.flatten(1).norm(dim=1)
        weight = 1 - torch.exp(-self.content_rate * change)
        weight = torch.where(known, weight, torch.ones_like(weight))
        return weight.detach() if self.detach_weight else weight

    def weights(self, terms: Terms, x0: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of (L_A, L_R) at a step, (P,) each.

        Phase 0: (K, 0).  Phase 1: (K w, (1-w)) times the preference's weight.  Phase 2: (0, 1) likewise.  Without
        dynamic weights phase 1 has (K, 1); with one of the losses left out the other keeps its weight.
        """
        one = torch.ones(len(x0), device=x0.device)
        if terms.phase == 0:
            return self.semantic * one, 0 * one
        if terms.phase == 2:
            return 0 * one, self.preference * one
        if not self.dynamic:
            return self.semantic * one, self.preference * one
        weight = self.change_weight(x0, previous)
        return self.semantic * weight, self.preference * (1 - weight)


def channel_normalised(x: Tensor) -> Tensor:
    """Each channel of (P, C, ...) less its mean, over its deviation (unbiased variance plus 1e-5)."""
    places = tuple(range(2, x.ndim))
    mean = x.mean(dim=places, keepdim=True)
    variance = x.var(dim=places, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()
