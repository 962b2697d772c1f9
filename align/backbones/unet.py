"""Latent diffusion models with a cross-attention UNet: Stable Diffusion, Stable Diffusion XL, the shapes world.

Latent consistency models among them read the guidance scale in place of having a pair of halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.backbones.attention import AttentionProbe, as_grid, cross_attention_layers, layer_stride, probing
from align.backbones.base import (
    Conditioning,
    Encoded,
    Halves,
    Prediction,
    classifier_free,
    guidance_embedding,
)
from align.backbones.checkpointing import Opener, checkpoint_blocks, checkpoint_decoder
from align.backbones.latents import unscaled
from align.backbones.modules import Modules, load_modules
from align.backbones.recipe import Recipe
from align.backbones.registry import pieces
from align.backbones.text import TextReader
from align.checkpoints.layout import Layout
from align.processes.base import Step, clean_and_noise, noise_slope


class UNetBackbone:
    """A diffusers pipeline as a denoiser.

    Args:
        modules: network, autoencoder, text encoders.
        height, width: picture size in pixels, multiples of the autoencoder's factor.
        attention_stride: which cross-attention layers the maps come from: those this many times coarser than the
            latents; ``None`` for the finest that has any.
        checkpointing: keep only what goes into each block of network and decoder and recompute the rest on the
            way back: far less memory for one more forward pass.  The values stay the same.
    """

    def __init__(
        self,
        modules: Modules,
        height: int = 64,
        width: int = 64,
        attention_stride: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        self.device = modules.device
        self.unet, self.vae = modules.unet, modules.vae
        self.scheduler_config: dict[str, Any] = modules.scheduler_config
        self.height, self.width = height, width
        strides = {layer_stride(self.unet, name) for name in cross_attention_layers(self.unet)}
        self.attention_stride = attention_stride or min(strides, default=1)
        if attention_stride is not None and attention_stride not in strides:
            known = ", ".join(map(str, sorted(strides))) or "nothing: there is none"
            raise ValueError(
                f"backbone.attention_stride={attention_stride} is of no cross-attention layer: give {known}"
            )
        self.reads_scale = self.unet.config.time_cond_proj_dim is not None
        self.reads_size = self.unet.config.addition_embed_type == "text_time"
        size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.device)
        self.text = TextReader(
            modules.text, modules.zero_empty, self.device, size if self.reads_size else None
        )
        self._probe: AttentionProbe | None = None
        if checkpointing:
            checkpoint_blocks(self.unet, self._surroundings)
            checkpoint_decoder(self.vae)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        height: int = 64,
        width: int = 64,
        attention_stride: int | None = None,
        *,
        layout: Layout = "sd",
        consistency: bool = False,
        checkpointing: bool = False,
    ) -> UNetBackbone:
        """All of a folder in diffusers' layout, in numbers of one kind."""
        recipe = Recipe(
            (str(folder),), layout, consistency=consistency, dtype=str(dtype).removeprefix("torch.")
        )
        modules = load_modules(pieces(recipe), recipe, device)
        return cls(modules, height, width, attention_stride, checkpointing)

    def latent_shape(self) -> tuple[int, int, int]:
        """See :class:`~align.backbones.base.Backbone`."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, self.height // factor, self.width // factor

    def encode(self, prompt: str, negative: str) -> Encoded:
        """See :class:`~align.backbones.base.Backbone`."""
        return self.text.encode(prompt, negative)

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guidance_scale: float,
        attention: Halves | None = None,
        columns: Tensor | None = None,
        guidance_rescale: float = 0.0,
        correction: bool = True,
    ) -> Prediction:
        """See :class:`~align.backbones.base.Backbone`."""
        self.text.rest()
        maps = None
        pair = guidance_scale != 1 or correction or attention == "both"
        # Whose embeddings go through the network, in order: where it reads the scale there is no other half.
        halves = ("negative", "prompt") if pair and not self.reads_scale else ("prompt",)
        if attention is None:
            outputs = self._outputs(z, step, conditioning, guidance_scale, halves)
        else:
            if columns is not None:  # (2 P, K): the negative's half, then the prompt's
                columns = columns.to(z.device).expand(len(z), -1).repeat(len(halves), 1)
            with probing(self.unet, self.attention_stride, columns) as self._probe:
                try:
                    outputs = self._outputs(z, step, conditioning, guidance_scale, halves)
                    means = self._probe.mean().chunk(len(outputs))
                finally:
                    self._probe = None
            maps = (means[0] + means[-1]) / 2 if attention == "both" else means[-1]
            maps = as_grid(maps, z.shape[-2], z.shape[-1], self.attention_stride)
        if len(outputs) == 2:
            other, own = outputs
            output, difference = classifier_free(own, other, guidance_scale, guidance_rescale), own - other
        else:
            output, difference = outputs[0], torch.zeros_like(z)
        kind = self.scheduler_config["prediction_type"]
        x0, eps = clean_and_noise(output, z, step, kind)
        return Prediction(eps, x0, noise_slope(step, kind) * difference, maps)

    def _outputs(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guidance_scale: float,
        halves: Sequence[str],
    ) -> tuple[Tensor, ...]:
        """Raw network output of each of the halves, (P, C, h, w) float32."""
        number = len(halves)
        latents = torch.cat([z] * number).to(self.unet.dtype).contiguous(memory_format=torch.channels_last)
        states = torch.cat([getattr(conditioning, half) for half in halves]).to(self.unet.dtype)
        times = torch.full((len(latents),), step.time, device=z.device)
        output = self.unet(
            latents,
            times,
            states,
            timestep_cond=self._scale(guidance_scale, len(latents)),
            added_cond_kwargs=self._added(conditioning, halves),
            return_dict=False,
        )[0]
        return output.to(z.dtype).contiguous().chunk(number)

    def _scale(self, guidance_scale: float, rows: int) -> Tensor | None:
        """What a network that reads the guidance scale is given, (rows, width)."""
        if not self.reads_scale:
            return None
        embedding = guidance_embedding(guidance_scale, self.unet.config.time_cond_proj_dim)
        return embedding.to(self.device, self.unet.dtype).expand(rows, -1)

    def _added(self, conditioning: Conditioning, halves: Sequence[str]) -> dict[str, Tensor] | None:
        """What a network that reads pooled embeddings and sizes is given beside the states."""
        if not self.reads_size:
            return None
        pooled = [getattr(conditioning, f"pooled_{half}") for half in halves]
        if conditioning.size is None or any(one is None for one in pooled):
            raise ValueError("this network reads pooled embeddings and picture sizes, and was given none")
        return {
            "text_embeds": torch.cat(pooled).to(self.unet.dtype),
            # float32, as some sizes are no whole numbers in 16 bit; the network casts what it makes of them.
            "time_ids": torch.cat([conditioning.size] * len(pooled)),
        }

    def _surroundings(self) -> Opener:
        """How to bring back the probe that is open now, for a block that is recomputed after it was closed."""
        if self._probe is None:
            return nullcontext
        return partial(self._probe_again, self._probe.columns)

    def _probe_again(self, columns: Tensor | None) -> AbstractContextManager[AttentionProbe]:
        return probing(self.unet, self.attention_stride, columns)

    def decode(self, z0: Tensor) -> Tensor:
        """See :class:`~align.backbones.base.Backbone`."""
        latents = unscaled(z0, self.vae.config).to(self.vae.dtype)
        pictures = self.vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        return (pictures.float() + 1) / 2

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        """See :class:`~align.backbones.base.Backbone`: nothing."""
        return [{} for _ in z0]
