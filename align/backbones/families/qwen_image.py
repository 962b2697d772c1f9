"""Qwen-Image (arXiv 2508.02324): a vision-language model reads the text; latents packed 2x2, and an autoencoder of films."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor

from align.backbones.base import unscaled
from align.backbones.families.base import OneEncoder, alone, filled, quiet
from align.backbones.families.flux import packed, unpacked
from align.backbones.guider import Combine
from align.backbones.text import Text, Words, framed
from align.processes.base import Step
from align.text import readable


class QwenImage(OneEncoder):
    """Guidance keeps the length that each token's velocity has without it."""

    pipeline = QwenImagePipeline

    def read(self, text: str) -> Text:
        with quiet():
            states, _ = self.reader.encode_prompt(
                readable(text), device=self.device, max_sequence_length=self.tokens
            )
        return filled(states[0], self.tokens)

    def find(self, text: str) -> dict[str, Words]:
        # What comes before the text, the same always, is read with it and left out.
        left = self.reader.prompt_template_encode_start_idx
        whole = framed(self.tokenizer, text, self.reader.prompt_template_encode.format, left + self.tokens)
        return {"qwen": whole._replace(offsets=whole.offsets[left:], pieces=whole.pieces[left:])}

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        return alone(z, text, lambda one, states: self._velocity(one, states, step))

    def _velocity(self, z: Tensor, states: Tensor, step: Step) -> Tensor:
        height, width = (side // 2 for side in z.shape[-2:])
        output: Tensor = self.network(
            packed(z).to(self.dtype),
            encoder_hidden_states=states[None].to(self.dtype),
            timestep=torch.full((1,), step.time, device=z.device).to(self.dtype) / 1000,
            img_shapes=[[(1, height, width)]],
            return_dict=False,
        )[0]
        return unpacked(output, height)

    def combine(self, scale: float) -> Combine | None:
        def rescaled(step: Step, own: Tensor, other: Tensor | None, weak: Tensor | None) -> Tensor:
            if other is None:
                return own
            guided, alone = packed(other + scale * (own - other)), packed(own)
            lengths = (x.norm(dim=-1, keepdim=True) for x in (alone, guided))
            before, after = lengths
            return unpacked(guided * (before / after), own.shape[-2] // 2)

        return rescaled

    @property
    def channels(self) -> int:
        return int(self.vae.config.z_dim)

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {**super().levels(schedule, tokens), "spaced": True}

    def decode(self, z0: Tensor) -> Tensor:
        latents = unscaled(z0, {**self.vae.config, "scaling_factor": 1.0}).to(self.decoder_dtype)
        decoded: Tensor = self.vae.decode(latents.unsqueeze(2)).sample
        return decoded[:, :, 0]
