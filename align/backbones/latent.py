"""What all latent diffusion models have in common: halves of guidance around a call of the network, and what is made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from align.backbones.attention import Probe
from align.backbones.base import Conditioning, Encoded, Halves, Prediction
from align.backbones.checkpointing import checkpoint_blocks
from align.backbones.guider import Guider
from align.backbones.recipe import Guidance
from align.backbones.text import TextReader
from align.backbones.weakened import Weakened
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
    weakened: Weakened
    text: TextReader

    def encode(self, prompt: str, negative: str) -> Encoded:
        return self.text.encode(prompt, negative)

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guider: Guider,
        attention: Halves | None = None,
        correction: bool = True,
    ) -> Prediction:
        self.text.rest()
        guider = self._own(guider)
        other_half = (correction or attention == "both") and self.guidance == "pair"
        # Whose embeddings go through the network, in order.
        halves = ("negative", "prompt") if guider.pairs(step) or other_half else ("prompt",)
        maps = None
        with self.probe.switched(on=attention is not None):
            *others, own = self._outputs(z, step, conditioning, guider.embedded, halves)
            if attention is not None:
                means = self.probe.mean(*z.shape[-2:]).chunk(len(halves))
                maps = (means[0] + means[-1]) / 2 if attention == "both" else means[-1]
        other = others[0] if others else None
        weak: Tensor | None = None
        if (weaker := guider.weakens(step)) is not None:
            with self.weakened.switched(weaker):
                (weak,) = self._outputs(z, step, conditioning, guider.embedded, ("prompt",))
        kind = self.scheduler_config["prediction_type"]
        difference = torch.zeros_like(z) if other is None else noise_slope(step, kind) * (own - other)
        x0, eps = clean_and_noise(guider(step, own, other, weak), z, step, kind)
        return Prediction(eps, x0, difference, maps)

    @abstractmethod
    def _outputs(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        embedded: float,
        halves: Sequence[str],
    ) -> tuple[Tensor, ...]:
        """Raw network output of each of the halves, (P, *latent_shape) float32."""

    def _own(self, guider: Guider) -> Guider:
        """With the model's own formula, where it has one."""
        return guider

    def _checkpoint(self) -> None:
        """A block is recomputed after the call: with the probe and the network as they were then."""
        checkpoint_blocks(
            self.network,
            lambda: self.probe.switched(self.probe.reading.on),
            lambda: self.weakened.switched(self.weakened.now),
        )

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        return [{} for _ in z0]
