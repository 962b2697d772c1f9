"""How often a step is repeated after travelling back to its own noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.sampling.objective import Terms
from align.sampling.state import Estimate


@dataclass(frozen=True)
class Recurrence:
    """Rounds beyond the first evaluation of a step.

    Attributes:
        rule: "none"; "fixed", the phase's ``rounds`` at every guided step (or, where nothing guides at all, at every step);
            "gradient_norm", DyMO's dynamic time travel r = floor(h ||g||) by the first evaluation's gradient.
        rounds: of the fixed rule, in each of the three phases.
        rate: h in each of the three phases.
        cap: most rounds a step may take (without a bound one large gradient can stall it).
    """

    rule: Literal["none", "fixed", "gradient_norm"] = "none"
    rounds: tuple[int, int, int] = (0, 0, 0)
    rate: tuple[float, float, float] = (1.0, 1.0, 3.0)
    cap: int = 8

    def extra(self, estimate: Estimate, terms: Terms, everywhere: bool = False) -> Tensor:
        """(P,) int64 extra rounds; 0 where a particle is not guided, unless they are wanted ``everywhere``."""
        guided = estimate.gradient_norm > 0
        if self.rule == "fixed":
            return torch.where(guided | everywhere, self.rounds[terms.phase], 0).clamp(max=self.cap)
        rate = self.rate[terms.phase] if self.rule == "gradient_norm" else 0.0
        return torch.where(guided, rate * estimate.gradient_norm, 0.0).clamp(max=self.cap).floor().long()
