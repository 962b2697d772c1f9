"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIP encoders and T5, which can be left out, or one CLIP encoder alone."""

from __future__ import annotations

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from align.backbones.families.base import Family, quiet
from align.backbones.joint_attention import SD3Recorder
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, clip_text, words
from align.processes.base import Step
from align.text import readable


class SD3(Family):
    """Of the CLIP encoders the second-to-last hidden states side by side, then T5's rows, which are zeros without it; the two
    pooled outputs.  The network is fed diffusers' timestep, 1000 times the level.
    """

    pipeline = StableDiffusion3Pipeline
    recorder = SD3Recorder
    length = 256

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        given = [*modules.text, None, None, None][:3]
        parts = {
            f"{kind}{number}": None if one is None else getattr(one, name)
            for number, one in zip(("", "_2", "_3"), given, strict=True)
            for kind, name in (("text_encoder", "model"), ("tokenizer", "tokenizer"))
        }
        self.reader = StableDiffusion3Pipeline(
            transformer=self.network, scheduler=None, vae=self.vae, **parts
        )

    def read(self, text: str) -> Text:
        if len(self.encoders) == 1:
            return clip_text(self.encoders, text, self.device)
        with quiet():
            states, _, pooled, _ = self.reader.encode_prompt(
                readable(text),
                None,
                None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.tokens,
            )
        return Text(states[0], pooled[0])

    def find(self, text: str) -> dict[str, Words]:
        # The CLIP encoders share one vocabulary, so one column is a word's in both.
        found = {"clip": words(self.encoders[0].tokenizer, text)}
        if len(self.encoders) > 2:
            found["t5"] = words(self.encoders[2].tokenizer, text, self.tokens)
        return found

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        assert text.pooled is not None
        output: Tensor = self.network(
            z.to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            pooled_projections=text.pooled.to(self.dtype),
            timestep=torch.full((len(z),), step.time, device=z.device),
            return_dict=False,
        )[0]
        return output

    def layers(self) -> list[nn.Module]:
        return [block.attn for block in self.network.transformer_blocks]

    @property
    def patch(self) -> int:
        return int(self.network.config.patch_size)
