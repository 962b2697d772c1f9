"""Where a backbone's modules come from; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from align.checkpoints.layout import Layout


@dataclass(frozen=True)
class Recipe:
    """Where a backbone's modules come from, and in which numbers they compute.

    Attributes:
        weights: references to whole pipelines; the first that is complete counts.
        consistency: whether the network is a latent consistency model that reads the guidance scale.
        single_file: reference to a file that UNet, autoencoder and text encoders come from instead.
        unet, vae: references to a network or autoencoder used instead of those.
        lora: reference to a file of low-rank updates, merged into UNet and text encoders.
        dtype: torch's name of the network's numbers.
        decoder_dtype, text_dtype: of the autoencoder and text encoders; ``None`` for ``dtype``, except that an
            autoencoder that says it overflows in float16 gets float32.
    """

    weights: tuple[str, ...]
    layout: Layout = "sd"
    consistency: bool = False
    single_file: str | None = None
    unet: str | None = None
    vae: str | None = None
    lora: str | None = None
    dtype: str = "float32"
    decoder_dtype: str | None = None
    text_dtype: str | None = None
