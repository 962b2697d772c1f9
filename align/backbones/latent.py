"""What all latent diffusion models have in common: halves of guidance around a call of the network, and what is made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from align.backbones.attention import Probe
from align.backbones.base import Conditioning, Encoded, Halves, Prediction, classifier_free
from align.backbones.recipe import Guidance
from align.backbones.text import TextReader
from align.processes.base import Step, clean_and_noise, noise_slope


class LatentBackbone(ABC):
    """A diffusers pipeline as a denoiser; see ``Backbone`` for its methods."""

    network: Any
    vae: Any
    device: torch.device
    scheduler_config: dict[str, Any]
    height: int
    width: int
    guidance: Guidance
    probe: Probe
    text: TextReader

    def encode(self, prompt: str, negative: str) -> Encoded:
        return self.text.encode(prompt, negative)

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guidance_scale: float,
        attention: Halves | None = None,
        guidance_rescale: float = 0.0,
        correction: bool = True,
        true_scale: float | None = None,
    ) -> Prediction:
        self.text.rest()
        weight = guidance_scale if self.guidance == "pair" else true_scale
        pair = weight is not None and (weight != 1 or correction or attention == "both")
        # Whose embeddings go through the network, in order.
        halves = ("negative", "prompt") if pair else ("prompt",)
        maps = None
        with self.probe.switched(on=attention is not None):
            outputs = self._outputs(z, step, conditioning, guidance_scale, halves)
            if attention is not None:
                means = self.probe.mean(*z.shape[-2:]).chunk(len(halves))
                maps = (means[0] + means[-1]) / 2 if attention == "both" else means[-1]
        kind = self.scheduler_config["prediction_type"]
        if weight is not None and len(outputs) == 2:
            other, own = outputs
            output = self._guided(own, other, weight, guidance_rescale)
            difference = noise_slope(step, kind) * (own - other)
        else:
            output, difference = outputs[0], torch.zeros_like(z)
        x0, eps = clean_and_noise(output, z, step, kind)
        return Prediction(eps, x0, difference, maps)

    @abstractmethod
    def _outputs(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guidance_scale: float,
        halves: Sequence[str],
    ) -> tuple[Tensor, ...]:
        """Raw network output of each of the halves, (P, *latent_shape) float32."""

    def _guided(self, own: Tensor, other: Tensor, scale: float, rescale: float) -> Tensor:
        return classifier_free(own, other, scale, rescale)

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        return [{} for _ in z0]
