"""DNO (arXiv 2405.18881) and ReNO (arXiv 2406.04312) as they were released."""

from __future__ import annotations

from dataclasses import replace

import torch

from align.backbones.base import Halves, Prediction
from align.processes.base import Step, clean_and_noise
from align.sampling.ledger import Ledger
from align.sampling.noise import Noise, NoiseStream
from align.sampling.predict import Differentiable
from align.sampling.sampler import Request
from align.sampling.state import Pictures, State


class LostGradient(Differentiable):
    """Nothing goes back through the network (quirk ``lost_gradient``).

    DNO's program for Stable Diffusion XL checkpoints the network in a way that takes no gradient through the object that it returns:
    a prediction changes with the latents as if the network's output were constant.
    """

    def call(
        self,
        state: State,
        real: int,
        pictures: Pictures,
        step: Step,
        ledger: Ledger,
        attention: Halves | None = None,
    ) -> Prediction:
        with torch.no_grad():
            found = super().call(state, real, pictures, step, ledger, attention)
        kind = self.backbone.scheduler_config.get("prediction_type", "epsilon")
        nothing = state.z - state.z.detach()  # with the slope of z
        x0, eps = clean_and_noise(torch.zeros_like(state.z), nothing, step, kind)
        return replace(found, x0=found.x0 + x0, eps=found.eps + eps)


def shared(request: Request) -> Noise:
    """The noise of steps by the seed alone (quirk ``shared_noise``): ReNO's is the same for every prompt and picture."""
    return NoiseStream(request.seed, "", 0)
