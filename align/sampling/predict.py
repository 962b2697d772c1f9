"""The pass through the network: noisy latents to predictions, in calls of one shape.

Whether a graph is kept is the caller's choice of grad mode: with one, a prediction's backward pass carries a gradient to z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
        ledger.charge(state.picture[:real].tolist(), "network_forward", self.guider.calls(step))
        return self.backbone.predict(
            state.z,
            step,
            pictures.conditioning_of(state),
            self.guider,
            attention=attention,
            correction=self.correction,
        )
