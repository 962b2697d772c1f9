"""FLUX.2 klein: layers of a chat model's states, latents of 2x2 places, which the autoencoder's statistics bring to unit scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle

from align.backbones.families.base import OneEncoder, chat, quiet
from align.backbones.families.flux import places
from align.backbones.joint_attention import FluxRecorder
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, framed
from align.processes.base import Step
from align.text import readable


class Flux2Klein(OneEncoder):
    """A latent is 2x2 of the autoencoder's, as noise is drawn for them."""

    pipeline = Flux2KleinPipeline
    recorder = FluxRecorder

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        chat(self.tokenizer, "", thinking=False)  # a tokenizer without a template says so

    def read(self, text: str) -> Text:
        with quiet():
            states, _ = self.reader.encode_prompt(
                readable(text), device=self.device, max_sequence_length=self.tokens
            )
        return Text(states[0])

    def find(self, text: str) -> dict[str, Words]:
        def frame(given: str) -> str:
            return chat(self.tokenizer, given, thinking=False)

        return {"qwen": framed(self.tokenizer, text, frame, self.tokens)}

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        rows, (height, width) = len(z), z.shape[-2:]
        guidance = None
        if self.network.config.guidance_embeds:
            guidance = torch.full((rows,), scale, device=z.device)
        columns = torch.arange(text.states.shape[1], device=z.device)
        output: Tensor = self.network(
            z.flatten(2).transpose(1, 2).to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            timestep=torch.full((rows,), step.time, device=z.device).to(self.dtype) / 1000,
            # Frame, row and column of a place, then the number of a text's token.
            img_ids=pad(places(height, width, z.device), (0, 1)),
            txt_ids=pad(columns[:, None], (3, 0)),
            guidance=guidance,
            return_dict=False,
        )[0]
        return output.transpose(1, 2).reshape(z.shape)

    def layers(self) -> list[nn.Module]:
        """Of two streams alone: single ones project all at once."""
        return [block.attn for block in self.network.transformer_blocks]

    def usual(self) -> int:
        return len(self.layers())

    @property
    def patch(self) -> int:
        return 1

    @property
    def factor(self) -> int:
        return 2 * super().factor

    @property
    def channels(self) -> int:
        return 4 * super().channels

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        if not schedule["use_dynamic_shifting"]:
            return {"mu": None, "spaced": True}
        none, one = (compute_empirical_mu(tokens, steps) for steps in (0, 1))
        return {"mu": none, "mu_step": one - none, "spaced": True}

    def decode(self, z0: Tensor) -> Tensor:
        norm = self.vae.bn
        std = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        mean, std = (one.to(z0).view(-1, 1, 1) for one in (norm.running_mean, std))
        decoded: Tensor = self.vae.decode(pixel_shuffle(z0 * std + mean, 2).to(self.decoder_dtype)).sample
        return decoded
