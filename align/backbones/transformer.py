"""Latent diffusion models with a transformer: Stable Diffusion 3.5, FLUX.1 and what follows them; ``families`` are its kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from align.backbones.attention import Probe
from align.backbones.base import Conditioning
from align.backbones.caching import Caching, Taylor
from align.backbones.checkpointing import checkpoint_decoder
from align.backbones.families import family
from align.backbones.families.base import Family
from align.backbones.guider import Guider, Weak
from align.backbones.joint_attention import JointProbe, Maps
from align.backbones.latent import LatentBackbone
from align.backbones.modules import Modules
from align.backbones.recipe import Guidance
from align.backbones.text import Text, TextReader
from align.backbones.weakened import Weakened
from align.checkpoints.layout import Layout
from align.processes.base import Step


class TransformerBackbone(LatentBackbone):
    """A diffusers pipeline as a denoiser.

    Args:
        modules: network, autoencoder, text encoders.
        layout: the pipeline's, by which its family is known.
        height, width: picture size in pixels, multiples of a token's side.
        guidance: what the network makes of the guidance scale.
        attention_blocks: which layers of joint attention the maps come from; ``None`` for the family's usual ones.
        attention_maps: what they are shares of.
        max_sequence_length: tokens that the family's long text encoder reads; ``None`` for its pipeline's default.
        checkpointing: see ``UNetBackbone``.
    """

    def __init__(
        self,
        modules: Modules,
        layout: Layout,
        height: int,
        width: int,
        guidance: Guidance = "pair",
        attention_blocks: Sequence[int] | None = None,
        attention_maps: Maps = "share",
        max_sequence_length: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        self.device = modules.device
        self.family = family(layout)(modules, max_sequence_length)
        self.guidance = guidance
        self.network, self.vae = modules.network, modules.vae
        self.height, self.width = height, width
        side = self.family.patch * self.family.factor
        for name, value in (("height", height), ("width", width)):
            if value % side:
                raise ValueError(f"backbone.{name}={value} is no multiple of {side}, the side of a token")
        tokens = height // side * (width // side)
        self.scheduler_config = {
            **modules.scheduler_config,
            **self.family.levels(modules.scheduler_config, tokens),
        }
        own = type(self.family).read_negative is not Family.read_negative
        self.text = TextReader(
            modules.text,
            self.family.read,
            self.family.find,
            self.device,
            negative=self.family.read_negative if own else None,
        )
        self.weakened = Weakened(self.network)
        self.caching = Caching(self.network)
        self.probe = self._probe(attention_blocks, attention_maps)
        if checkpointing:
            self._checkpoint()
            checkpoint_decoder(self.vae)

    def _probe(self, blocks: Sequence[int] | None, maps: Maps) -> Probe:
        layers = self.family.layers()
        chosen = range(self.family.usual()) if blocks is None else blocks
        if beyond := [block for block in chosen if not 0 <= block < len(layers)]:
            raise ValueError(
                f"backbone.attention_blocks={list(chosen)}: {beyond[0]} is none of its {len(layers)} blocks with joint attention"
            )
        recorder = self.family.recorder
        if recorder is None:
            return Probe(self.family.patch, 0)
        return JointProbe([layers[k] for k in chosen], recorder, self.family.patch, maps)

    @contextmanager
    def lighter(self, weak: Weak | None, taylor: Taylor | None) -> Iterator[None]:
        """While the context is open, which is one run, calls leave blocks out, or a cache answers some of them."""
        with self.weakened.switched(weak), self.caching.switched(taylor) if taylor else nullcontext():
            yield

    def latent_shape(self) -> tuple[int, ...]:
        factor = self.family.factor
        return self.family.channels, self.height // factor, self.width // factor

    def _outputs(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        embedded: float,
        halves: Sequence[str],
    ) -> tuple[Tensor, ...]:
        states = torch.cat([getattr(conditioning, half) for half in halves])
        text = Text(states, *(_rows(conditioning, f"{name}_{{}}", halves) for name in ("pooled", "mask")))
        if isinstance(self.probe, JointProbe):
            self.probe.tokens = text.states.shape[1]
        self.caching.at(step)
        output = self.family.output(torch.cat([z] * len(halves)), step, text, embedded)
        found: tuple[Tensor, ...] = output.to(z.dtype).contiguous().chunk(len(halves))
        return found

    def _own(self, guider: Guider) -> Guider:
        combine = self.family.combine(guider.scale) if guider.combine is None else None
        return guider if combine is None else replace(guider, combine=combine)

    def decode(self, z0: Tensor) -> Tensor:
        return (self.family.decode(z0).float() + 1) / 2


def _rows(conditioning: Conditioning, name: str, halves: Sequence[str]) -> Tensor | None:
    rows = [getattr(conditioning, name.format(half)) for half in halves]
    return None if rows[0] is None else torch.cat(rows)
