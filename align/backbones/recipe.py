"""Where a backbone's modules come from; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from align.checkpoints.layout import FORMS, Form, Layout

Guidance = Literal["pair", "embedded", "none"]
"""A pair of halves, of prompt and negative prompt; the network reads the scale; there is no scale at all."""


@dataclass(frozen=True)
class Recipe:
    """Where a backbone's modules come from, and in which numbers they compute.

    Attributes:
        weights: references to whole pipelines; the first that is complete counts.
        consistency: whether the network is a latent consistency model that reads the guidance scale.
        guidance: what a network makes of the guidance scale, see ``BackboneConfig.guidance``.
        t5: whether a text encoder that the layout can do without is read.
        single_file: reference to a file that UNet, autoencoder and text encoders come from instead.
        unet, transformer, vae: references to a network or autoencoder used instead of those.
        lora: reference to a file of low-rank updates, merged into network and text encoders.
        dtype: torch's name of the network's numbers.
        decoder_dtype, text_dtype: of the autoencoder and text encoders; ``None`` for ``dtype``, except that an
            autoencoder that says it overflows in float16 gets float32.
        storage, offload, attention: diffusers' switches of the network, see ``BackboneConfig``.
    """

    weights: tuple[str, ...]
    layout: Layout = "sd"
    consistency: bool = False
    guidance: Guidance = "pair"
    t5: bool = True
    single_file: str | None = None
    unet: str | None = None
    transformer: str | None = None
    vae: str | None = None
    lora: str | None = None
    dtype: str = "float32"
    decoder_dtype: str | None = None
    text_dtype: str | None = None
    storage: str | None = None
    offload: bool = False
    attention: str | None = None

    @property
    def form(self) -> Form:
        return FORMS[self.layout]

    @property
    def swaps(self) -> dict[str, str]:
        """References that modules come from instead of the pipeline's, by module."""
        given = {role: getattr(self, role) for role in (self.form.network, "vae")}
        return {role: name for role, name in given.items() if name is not None}

    @property
    def without(self) -> tuple[str, ...]:
        """Optional modules that are left out."""
        parts = self.form.parts.items()
        return (
            ()
            if self.t5
            else tuple(name for name, one in parts if one.optional and one.tokenizer == "T5Tokenizer")
        )
