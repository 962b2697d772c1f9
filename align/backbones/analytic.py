"""Exact denoisers of known densities, so that a sampler's own error is all the error there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align.backbones.base import Conditioning, Encoded, Halves, Prediction
from align.backbones.guider import Guider
from align.processes.base import Step, clean_and_noise
from align.toy.densities import Density
from align.toy.picture import to_pictures

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
}
"""100 steps are at 991, 981, ..., 1; what comes out of the last one is at timestep 0, not quite clean."""


FLOW: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "prediction_type": "velocity",
    "shift": 1.0,
    "shift_terminal": None,
    "spaced": True,
}
"""Levels 1, 1 - 1/N, ..., 1/N; the last step ends at clean latents."""
SCHEDULES = {"diffusion": SCHEDULE, "flow": FLOW}
FAINTEST = 1e-6
"""The least share of signal that a prediction of clean latents is computed with."""


def with_signal(step: Step) -> Step:
    """A step at which a score says what the clean latents are.

    Where there is no signal they are the density's mean, the limit of what scores say: in float64 a little signal is as good.
    """
    return replace(step, a=max(step.a, FAINTEST))


class AnalyticBackbone:
    """A density of at most three coordinates in a model's place, on a device that has float64; a prompt is only a label."""

    def __init__(
        self,
        density: Density,
        device: torch.device,
        height: int = 8,
        width: int = 8,
        schedule: Mapping[str, Any] = SCHEDULE,
    ) -> None:
        self.density = density.to(device)
        self.device = device
        self.height, self.width = height, width
        self.scheduler_config = dict(schedule)

    def latent_shape(self) -> tuple[int, ...]:
        return self.density.dimension, 1, 1  # coordinates are channels of a single place

    def encode(self, prompt: str, negative: str) -> Encoded:
        nothing = torch.zeros(1, 1, device=self.device)  # one token that says nothing
        return Encoded(nothing, nothing, offsets=((0, 0),), limit=0, truncated=False)

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guider: Guider,
        attention: Halves | None = None,
        correction: bool = True,
    ) -> Prediction:
        """See ``Backbone``: the noise is -s times the score at the step's level (Tweedie's formula).

        There is no prompt, so both guidance halves are equal and guidance changes nothing.

        Raises:
            ValueError: attention maps are asked for; there are none.
        """
        if attention is not None:
            raise ValueError("an analytic backbone has no attention maps")
        x = z.flatten(1).double()
        step = with_signal(step)
        x0, eps = clean_and_noise(-step.s * self.density.noised(step.a, step.s).score(x), x, step, "epsilon")
        return Prediction(
            eps.view(z.shape).to(z.dtype), x0.view(z.shape).to(z.dtype), correction=torch.zeros_like(z)
        )

    def decode(self, z0: Tensor) -> Tensor:
        return to_pictures(z0.flatten(1), self.height, self.width)

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        """See ``Backbone``: the coordinates ``x0``, ``x1``, ..., which pictures round."""
        return [{f"x{k}": value for k, value in enumerate(row)} for row in z0.flatten(1).tolist()]
