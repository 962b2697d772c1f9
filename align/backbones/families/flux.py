"""FLUX.1: T5's states, CLIP's pooled output, latents packed 2x2; dev reads the guidance scale, schnell knows none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from align.backbones.families.base import Family, quiet
from align.backbones.joint_attention import FluxRecorder
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, words
from align.processes.base import Step
from align.text import readable


class Flux(Family):
    """The network is fed the level, 1 to 0, in its own numbers, as diffusers does."""

    pipeline = FluxPipeline
    recorder = FluxRecorder

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        clip, t5 = [*modules.text, None, None][:2]
        self.reader = FluxPipeline(
            scheduler=None,
            vae=self.vae,
            text_encoder=clip and clip.model,
            tokenizer=clip and clip.tokenizer,
            text_encoder_2=t5 and t5.model,
            tokenizer_2=t5 and t5.tokenizer,
            transformer=self.network,
        )

    def read(self, text: str) -> Text:
        with quiet():
            states, pooled, _ = self.reader.encode_prompt(
                readable(text), device=self.device, max_sequence_length=self.tokens
            )
        return Text(states[0], pooled[0])

    def find(self, text: str) -> dict[str, Words]:
        whole = words(self.encoders[0].tokenizer, text)
        return {
            "clip": whole._replace(offsets=()),
            "t5": words(self.encoders[1].tokenizer, text, self.tokens),
        }

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        assert text.pooled is not None
        rows, side = len(z), z.shape[-2] // 2
        guidance = None
        if self.network.config.guidance_embeds:
            guidance = torch.full((rows,), scale, device=z.device)
        output: Tensor = self.network(
            packed(z).to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            pooled_projections=text.pooled.to(self.dtype),
            # In bfloat16 that is another level, which the network has learnt to be fed.
            timestep=torch.full((rows,), step.time, device=z.device).to(self.dtype) / 1000,
            img_ids=places(side, z.shape[-1] // 2, z.device),
            txt_ids=torch.zeros(text.states.shape[1], 3, device=z.device),
            guidance=guidance,
            return_dict=False,
        )[0]
        return unpacked(output, side)

    def layers(self) -> list[nn.Module]:
        return [
            block.attn
            for block in (*self.network.transformer_blocks, *self.network.single_transformer_blocks)
        ]

    def usual(self) -> int:
        """Those of two streams."""
        return len(self.network.transformer_blocks)

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {**super().levels(schedule, tokens), "spaced": True}


def packed(z: Tensor) -> Tensor:
    """Latents (P, C, h, w) as tokens (P, h w / 4, 4 C) of 2x2 places, row by row."""
    return pixel_unshuffle(z, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Tensor, side: int) -> Tensor:
    """Latents of tokens, ``side`` rows of them."""
    rows, number, width = tokens.shape
    return pixel_shuffle(tokens.transpose(1, 2).reshape(rows, width, side, number // side), 2)


def places(height: int, width: int, device: torch.device) -> Tensor:
    """0, row and column of each token, (height * width, 3)."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    grid = torch.cartesian_prod(rows, columns).float()
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1)
