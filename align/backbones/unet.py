"""Latent diffusion models with a cross-attention UNet: Stable Diffusion, Stable Diffusion XL, the shapes world.

Latent consistency models among them read the guidance scale in place of having a pair of halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from align.backbones.attention import AttentionProbe, cross_attention_layers
from align.backbones.base import Conditioning, guidance_embedding, unscaled
from align.backbones.checkpointing import checkpoint_decoder
from align.backbones.latent import LatentBackbone
from align.backbones.modules import Modules
from align.backbones.recipe import Guidance
from align.backbones.text import Text, TextReader, clip_text, words
from align.backbones.weakened import Weakened
from align.processes.base import Step


class UNetBackbone(LatentBackbone):
    """A diffusers pipeline as a denoiser.

    Args:
        modules: network, autoencoder, text encoders.
        height, width: picture size in pixels, multiples of the autoencoder's factor.
        attention_stride: which cross-attention layers the maps come from: those this many times coarser than the
            latents; ``None`` for the finest that has any.
        checkpointing: keep only what goes into each block of network and decoder and recompute the rest on the
            way back: far less memory for one more forward pass.  The values stay the same.
        guidance: ``none`` for a network that was distilled to do without the negative half, which is then never computed.
    """

    def __init__(
        self,
        modules: Modules,
        height: int = 64,
        width: int = 64,
        attention_stride: int | None = None,
        checkpointing: bool = False,
        guidance: Guidance = "pair",
    ) -> None:
        self.device = modules.device
        self.unet = self.network = modules.network
        self.vae = modules.vae
        # Asked once: diffusers walks through all of a network's modules for it.
        self.dtype, self.decoder_dtype = self.unet.dtype, self.vae.dtype
        self.scheduler_config = modules.scheduler_config
        self.height, self.width = height, width
        strides = cross_attention_layers(self.unet).keys()
        if attention_stride is not None and attention_stride not in strides:
            known = ", ".join(map(str, sorted(strides))) or "nothing: there is none"
            raise ValueError(
                f"backbone.attention_stride={attention_stride} is of no cross-attention layer: give {known}"
            )
        self.probe = AttentionProbe(self.unet, attention_stride or min(strides, default=1))
        self.weakened = Weakened(self.unet)
        embedded = self.unet.config.time_cond_proj_dim is not None
        self.guidance = "embedded" if embedded else guidance
        self.reads_size = self.unet.config.addition_embed_type == "text_time"
        size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.device)
        encoders = modules.text

        def read(text: str) -> Text:
            found = clip_text(encoders, text, self.device)
            return found if self.reads_size else Text(found.states)

        self.text = TextReader(
            encoders,
            read,
            # The encoders share one vocabulary, so the first tells where the words are.
            lambda text: {"clip": words(encoders[0].tokenizer, text)},
            self.device,
            modules.zero_empty,
            size if self.reads_size else None,
        )
        if checkpointing:
            self._checkpoint()
            checkpoint_decoder(self.vae)

    def latent_shape(self) -> tuple[int, ...]:
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, self.height // factor, self.width // factor

    def _outputs(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        embedded: float,
        halves: Sequence[str],
    ) -> tuple[Tensor, ...]:
        """Raw network output of each of the halves, (P, *latent_shape) float32."""
        number = len(halves)
        latents = torch.cat([z] * number).to(self.dtype).contiguous(memory_format=torch.channels_last)
        states = torch.cat([getattr(conditioning, half) for half in halves]).to(self.dtype)
        # One for all rows, or one for each.
        times = torch.as_tensor(step.time, device=z.device).expand(len(z)).repeat(number)
        scale: Tensor | None = None
        if self.guidance == "embedded":
            scale = guidance_embedding(embedded, self.unet.config.time_cond_proj_dim)
            scale = scale.to(self.device, self.dtype).expand(len(latents), -1)
        output = self.unet(
            latents,
            times,
            states,
            timestep_cond=scale,
            added_cond_kwargs=self._added(conditioning, halves),
            return_dict=False,
        )[0]
        found: tuple[Tensor, ...] = output.to(z.dtype).contiguous().chunk(number)
        return found

    def _added(self, conditioning: Conditioning, halves: Sequence[str]) -> dict[str, Tensor] | None:
        if not self.reads_size:
            return None
        pooled = [getattr(conditioning, f"pooled_{half}") for half in halves]
        if conditioning.size is None or any(one is None for one in pooled):
            raise ValueError("this network reads pooled embeddings and picture sizes, and was given none")
        return {
            "text_embeds": torch.cat(pooled).to(self.dtype),
            # float32, as some sizes are no whole numbers in 16 bit; the network casts what it makes of them.
            "time_ids": torch.cat([conditioning.size] * len(pooled)),
        }

    def decode(self, z0: Tensor) -> Tensor:
        latents = unscaled(z0, self.vae.config).to(self.decoder_dtype)
        pictures: Tensor = self.vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        return (pictures.float() + 1) / 2
