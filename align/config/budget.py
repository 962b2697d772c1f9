"""Options of ``budget``; see ``schema``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.config.method import MethodConfig
from align.config.ranges import Between

USUAL = {"network_forward": 1.0, "network_backward": 1.0}
"""What counts as a call unless ``weights`` say otherwise."""


@dataclass(frozen=True)
class BudgetConfig:
    """What a picture may cost.  Numbers of the method are chosen by it (``spend``); they are part of its identity, not the budget."""

    calls: Annotated[float, Between(1, 1e9)] | None = None
    """Calls of a picture, as ``weights`` count them: the most that costs no more.  Null for the method's own numbers."""
    seconds: Annotated[float, Between(1e-3, 1e7)] | None = None
    """Seconds of a picture on this machine, in place of ``calls``: what comes nearest by a few timed calls of what is loaded.  A
    folder's plan is read back when it goes on, there or elsewhere."""
    spend: Literal["method", "particles", "candidates", "steps"] = "method"
    """What grows: ``method.particles``, ``method.search.candidates`` or ``sampler.steps``; ``method`` for its own: what its strategy or
    its search makes, particles where they are chosen from, else steps.  What its own number leaves over goes to more steps, unless
    the network was distilled for few."""
    weights: dict[str, float] = field(default_factory=dict)
    """Of ``calls``: what counts as how many of them, by the ledger's names, such as ``decoder_forward``.  ``network_forward`` and
    ``network_backward`` count 1 unless they are given, all else nothing."""

    @property
    def asked(self) -> bool:
        return self.calls is not None or self.seconds is not None

    @property
    def limit(self) -> float:
        limit = self.calls if self.seconds is None else self.seconds
        assert limit is not None
        return limit

    def spent_on(self, method: MethodConfig) -> str:
        """What it makes more of."""
        return method.spends if self.spend == "method" else self.spend

    @property
    def label(self) -> str:
        """As a plan says it."""
        unit = "call" if self.seconds is None else "second"
        return f"{self.limit:g} {unit}{'s' * (self.limit != 1)}"
