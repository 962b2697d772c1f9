"""What the sampling loop knows of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from align.backbones.guider import Guider
from align.processes.base import Step
from align.semantics.graph import Span

Halves = Literal["both", "prompt"]
"""Whose attention maps are averaged: those of both guidance halves, or the prompt's alone (the same without a pair)."""


@dataclass(frozen=True)
class Encoded:
    """One prompt as the model reads it.

    Attributes:
        prompt, negative: embeddings (L, width) of the prompt and of the negative (empty) prompt.
        offsets: character span of each of the L tokens, (0, 0) for special ones.
        limit: index of the first token that is not a word of the prompt.
        truncated: whether the prompt was longer than the model reads: than each of its encoders.
        parts: which tokens, from one up to another, are of the same encoder, where the rows of several follow each other.
        cut: names of the encoders that did not read all of the prompt.
        pooled_prompt, pooled_negative: a vector (D,) of each text as a whole, for models that read one.
        mask_prompt, mask_negative: (L,) bool, which rows count, for models that read it.
        size: (6,) float32 picture height and width, top and left of the crop, target height and width in pixels,
            for models that read them.
        pieces: all word pieces of the prompt as the vocabulary spells them, special ones too, not truncated.
    """

    prompt: Tensor
    negative: Tensor
    offsets: tuple[Span, ...]
    limit: int
    truncated: bool
    pooled_prompt: Tensor | None = None
    pooled_negative: Tensor | None = None
    mask_prompt: Tensor | None = None
    mask_negative: Tensor | None = None
    size: Tensor | None = None
    pieces: tuple[str, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """What the network reads beside latents, for P particles.

    Attributes:
        prompt, negative: embeddings, (P, L, width).
        pooled_prompt, pooled_negative: (P, D), for models that read them.
        mask_prompt, mask_negative: (P, L) bool, likewise.
        size: (P, 6) float32, likewise; see ``Encoded``.
    """

    prompt: Tensor
    negative: Tensor
    pooled_prompt: Tensor | None = None
    pooled_negative: Tensor | None = None
    size: Tensor | None = None
    mask_prompt: Tensor | None = None
    mask_negative: Tensor | None = None

    @staticmethod
    def of(encoded: Sequence[Encoded]) -> Conditioning:
        return Conditioning(
            torch.stack([one.prompt for one in encoded]),
            torch.stack([one.negative for one in encoded]),
            *(_stacked([getattr(one, name) for one in encoded]) for name in _OPTIONAL),
        )

    def take(self, rows: Tensor) -> Conditioning:
        more = (getattr(self, name) for name in _OPTIONAL)
        return Conditioning(
            self.prompt[rows], self.negative[rows], *(None if one is None else one[rows] for one in more)
        )


_OPTIONAL = ("pooled_prompt", "pooled_negative", "size", "mask_prompt", "mask_negative")
"""Fields that ``Encoded`` and ``Conditioning`` share and that not every model reads."""


def _stacked(rows: Sequence[Tensor | None]) -> Tensor | None:
    there = [row for row in rows if row is not None]
    return torch.stack(there) if there else None


@dataclass(frozen=True)
class Prediction:
    """One call of the network on P particles.

    Attributes:
        eps, x0: predictions of noise and of clean latents after guidance, (P, *latent_shape), by ``clean_and_noise``.
        correction: eps of the prompt half minus that of the other half, (P, *latent_shape); zero where no other half
            went through: where the network reads the guidance scale itself, or nobody reads the correction at scale 1.
        attention: maps averaged over layers, heads and halves, (P, R, R', L), rows summing to 1 over
            the L tokens; ``None`` unless asked for.
    """

    eps: Tensor
    x0: Tensor
    correction: Tensor
    attention: Tensor | None = None


def guidance_embedding(scale: float, width: int) -> Tensor:
    """What a network distilled from guided predictions reads of the guidance scale s, (width,) float32.

    Sines, then cosines, of 1000 (s - 1) f_k with frequencies f_k from 1 down to 1/10000, as timesteps are embedded; an odd
    width ends in a zero.  Latent consistency models (arXiv 2310.04378) count from w = s - 1, which is 0 without guidance.
    """
    half = width // 2
    # In float32 throughout, as in training: the arguments are so large that more digits would give other values.
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32) * -(torch.tensor(10000.0).log() / (half - 1))
    )
    angles = torch.tensor(scale - 1, dtype=torch.float32) * 1000 * frequencies
    return torch.cat([angles.sin(), angles.cos(), torch.zeros(width % 2)])


def unscaled(z0: Tensor, autoencoder: Mapping[str, Any]) -> Tensor:
    """Clean latents (P, C, h, w) as the autoencoder has them: z0 std / scaling_factor + mean + shift_factor.

    A process has them of about unit deviation, an autoencoder as it was trained, which its config says: ``latents_mean`` and
    ``latents_std`` are (C,), what is not stated changes nothing.
    """
    mean, std = (autoencoder.get(key) for key in ("latents_mean", "latents_std"))
    if std is not None:
        z0 = z0 * z0.new_tensor(std).view(-1, 1, 1)
    z0 = z0 / autoencoder["scaling_factor"]
    if mean is not None:
        z0 = z0 + z0.new_tensor(mean).view(-1, 1, 1)
    shift = autoencoder.get("shift_factor")
    return z0 + shift if shift else z0


class Backbone(Protocol):
    """A frozen latent diffusion model."""

    scheduler_config: dict[str, Any]
    """The process of the checkpoint; see ``read_schedule``."""

    def encode(self, prompt: str, negative: str) -> Encoded:
        """Read one prompt; cached, so a repeated prompt costs nothing."""

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guider: Guider,
        attention: Halves | None = None,
        correction: bool = True,
    ) -> Prediction:
        """The only call of the network; both guidance halves, where there are two, go through it as one batch.

        Whether a graph is kept is the caller's to say.  The negative half goes through where the guider combines it, or for its
        correction or maps of both alone; a weaker network's pass is one of its own.

        Args:
            z: latents (P, *latent_shape).
            step: where in the process they are.
            conditioning: embeddings of the P particles.
            guider: how the outputs become one.  A network that was distilled from guided predictions reads its scale, and the
                negative embeddings have no part.
            attention: which halves' maps to return, if any.
            correction: whether anybody reads the prediction's ``correction``.
        """

    def decode(self, z0: Tensor) -> Tensor:
        """Latents (P, *latent_shape) to pictures (P, 3, H, W), about [0, 1], not clamped; differentiable."""

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        """Figures of each of P clean latents that their pictures cannot show; mostly there are none."""

    def latent_shape(self) -> tuple[int, ...]:
        """Of a picture's latents, mostly (C, h, w)."""
