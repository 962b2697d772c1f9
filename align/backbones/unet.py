"""Latent diffusion models with a cross-attention UNet: Stable Diffusion's layout, and the shapes world's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from align.backbones.attention import as_grid, cross_attention_layers, layer_stride, probing
from align.backbones.base import Conditioning, Encoded, Halves, Prediction
from align.processes.ddim import Step
from align.text import readable


class UNetBackbone:
    """A diffusers pipeline folder as a denoiser.

    Args:
        folder: diffusers' on-disk layout (``unet vae text_encoder tokenizer scheduler``).
        device: where to compute.
        dtype: of the network and decoder.
        height, width: picture size in pixels, multiples of the autoencoder's factor.
        attention_stride: which cross-attention layers the maps come from: those this many times coarser than the
            latents; ``None`` for the finest that has any.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        height: int = 64,
        width: int = 64,
        attention_stride: int | None = None,
    ) -> None:
        self.device = device
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype)
        self.text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.scheduler_config: dict[str, Any] = dict(
            DDIMScheduler.from_pretrained(folder / "scheduler").config
        )
        for module in (self.unet, self.vae, self.text_encoder):
            module.requires_grad_(False).eval().to(device)
        self.unet.to(memory_format=torch.channels_last)
        self.vae.to(memory_format=torch.channels_last)
        self.height, self.width = height, width
        strides = {layer_stride(self.unet, name) for name in cross_attention_layers(self.unet)}
        self.attention_stride = attention_stride or min(strides)
        self._encoded: dict[tuple[str, str], Encoded] = {}

    def latent_shape(self) -> tuple[int, int, int]:
        """See :class:`~align.backbones.base.Backbone`."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, self.height // factor, self.width // factor

    @torch.no_grad()
    def encode(self, prompt: str, negative: str) -> Encoded:
        """See :class:`~align.backbones.base.Backbone`."""
        found = self._encoded.get((prompt, negative))
        if found is not None:
            return found
        longest = self.tokenizer.model_max_length
        # One prompt a call: its embedding cannot depend on what it is read beside.
        embeddings = []
        for text in (prompt, negative):
            ids = self.tokenizer(
                readable(text), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
            ).input_ids
            embeddings.append(self.text_encoder(ids.to(self.device))[0][0])
        whole = self.tokenizer(readable(prompt), return_offsets_mapping=True)
        number = len(whole["input_ids"])
        offsets = [tuple(span) for span in whole["offset_mapping"][:longest]]
        offsets += [(0, 0)] * (longest - len(offsets))
        encoded = Encoded(
            prompt=embeddings[0],
            negative=embeddings[1],
            offsets=tuple(offsets),
            limit=min(number, longest) - 1,
            truncated=number > longest,
            pieces=tuple(self.tokenizer.convert_ids_to_tokens(whole["input_ids"])),
        )
        self._encoded[prompt, negative] = encoded
        return encoded

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guidance_scale: float,
        attention: Halves | None = None,
    ) -> Prediction:
        """See :class:`~align.backbones.base.Backbone`."""
        maps = None
        if attention is None:
            other, own = self._pair(z, step, conditioning)
        else:
            with probing(self.unet, self.attention_stride) as probe:
                other, own = self._pair(z, step, conditioning)
            halves = probe.mean().chunk(2)
            maps = (halves[0] + halves[1]) / 2 if attention == "both" else halves[1]
            maps = as_grid(maps, z.shape[-2], z.shape[-1], self.attention_stride)
        output = other + guidance_scale * (own - other)
        root, rest = step.alpha**0.5, (1 - step.alpha) ** 0.5
        kind = self.scheduler_config["prediction_type"]
        if kind == "epsilon":
            eps, x0, correction = output, (z - rest * output) / root, own - other
        elif kind == "v_prediction":
            eps, x0 = root * output + rest * z, root * z - rest * output
            correction = root * (own - other)
        else:
            raise ValueError(f"prediction type {kind!r} is not supported")
        return Prediction(eps, x0, correction, maps)

    def _pair(self, z: Tensor, step: Step, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Raw network output of the negative and of the prompt half, each (P, C, h, w) float32."""
        both = torch.cat([z, z]).to(self.unet.dtype).contiguous(memory_format=torch.channels_last)
        states = torch.cat([conditioning.negative, conditioning.prompt])
        times = torch.full((len(both),), step.t, device=z.device)
        output = self.unet(both, times, states, return_dict=False)[0]
        other, own = output.to(z.dtype).contiguous().chunk(2)
        return other, own

    def decode(self, z0: Tensor) -> Tensor:
        """See :class:`~align.backbones.base.Backbone`."""
        latents = (z0 / self.vae.config.scaling_factor).to(self.vae.dtype)
        pictures = self.vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        return (pictures.float() + 1) / 2
