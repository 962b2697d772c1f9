"""The pass through the network: noisy latents to predictions, in calls of one shape.

Whether a graph is kept is the caller's choice of grad mode: with one, a prediction's backward pass carries a gradient to z.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.checkpoint import checkpoint

from align.backbones.base import Backbone, Halves, Prediction
from align.backbones.guider import Guider
from align.processes.base import Step
from align.sampling.batching import Calls, Cut
from align.sampling.ledger import Ledger
from align.sampling.state import Pictures, State, gather, take


@dataclass(frozen=True)
class Predict:
    """The network of a backbone under guidance.

    Attributes:
        calls: how rows are cut into calls.
        correction: whether anything reads the classifier-free correction of predictions.
    """

    backbone: Backbone
    guider: Guider
    calls: Calls
    correction: bool = True

    def __call__(self, state: State, pictures: Pictures, step: Step, ledger: Ledger, cut: Cut) -> Prediction:
        """Predictions of all particles of a state, (P, ...), in the calls of ``cut``."""
        parts = []
        for chunk in cut(state.group.tolist()):
            found = self.call(state.take(chunk.rows), chunk.real, pictures, step, ledger)
            parts.append((chunk.rows[: chunk.real], take(found, torch.arange(chunk.real))))
        return gather(parts)

    def passes(self, step: Step, attention: Halves | None = None) -> float:
        """Network evaluations that a row of a call is charged."""
        return self.guider.calls(step, self.correction or attention == "both")

    def call(
        self,
        state: State,
        real: int,
        pictures: Pictures,
        step: Step,
        ledger: Ledger,
        attention: Halves | None = None,
    ) -> Prediction:
        """One call: of its rows the first ``real`` are charged, the others fill it up; ``attention`` for maps beside."""
        ledger.charge(state.picture[:real].tolist(), "network_forward", self.passes(step, attention))
        return self.backbone.predict(
            state.z,
            step,
            pictures.conditioning_of(state),
            self.guider,
            attention=attention,
            correction=self.correction,
        )


@dataclass(frozen=True)
class Differentiable(Predict):
    """Whose calls are walked back by whoever differentiates a whole sampling: each is charged when its gradient comes.

    Attributes:
        recompute: keep nothing of a call but what goes in, and make it once more on the way back, which is charged too.
    """

    recompute: bool = True

    def call(
        self,
        state: State,
        real: int,
        pictures: Pictures,
        step: Step,
        ledger: Ledger,
        attention: Halves | None = None,
    ) -> Prediction:
        if not (torch.is_grad_enabled() and state.z.requires_grad):
            return super().call(state, real, pictures, step, ledger, attention)
        z, rows = state.z.view_as(state.z), state.picture[:real].tolist()
        passes = self.passes(step, attention)
        z.register_hook(lambda _: ledger.charge(rows, "network_backward", passes))  # type: ignore[no-untyped-call]
        inputs = (replace(state, z=z), real, pictures, step, ledger, attention)
        if not self.recompute:
            return super().call(*inputs)
        # To its very end, where it could stop early: so a call is a call for whoever counts them.
        found: Prediction = checkpoint(
            super().call, *inputs, use_reentrant=False, preserve_rng_state=False, early_stop=False
        )
        return found
