"""SANA (arXiv 2410.10629): a language model is told to enhance the prompt, and its states are read; latents of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from diffusers import SanaPipeline
from torch import Tensor, nn

from align.backbones.families.base import Family, quiet, shift
from align.backbones.joint_attention import CrossRecorder
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, framed
from align.processes.base import Step
from align.text import readable

TOLD: list[str] = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
"""What is said before each prompt, and not before a negative one."""


class Sana(Family):
    """Its schedule is static."""

    pipeline = SanaPipeline
    recorder = CrossRecorder
    length = 300

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        (encoder,) = modules.text
        self.tokenizer = encoder.tokenizer
        self.reader = SanaPipeline(
            scheduler=None,
            vae=self.vae,
            text_encoder=encoder.model,
            tokenizer=self.tokenizer,
            transformer=self.network,
        )
        self.before = "\n".join(TOLD)

    def read(self, text: str) -> Text:
        return self._read(text, TOLD)

    def read_negative(self, text: str) -> Text:
        return self._read(text, None)

    def _read(self, text: str, told: list[str] | None) -> Text:
        with quiet():
            states, mask, *_ = self.reader.encode_prompt(
                readable(text),
                do_classifier_free_guidance=False,
                device=self.device,
                max_sequence_length=self.tokens,
                complex_human_instruction=told,
            )
        return Text(states[0], mask=mask[0].bool())

    def find(self, text: str) -> dict[str, Words]:
        # Of all that is read its first token is kept and the last ones.
        longest = len(self.tokenizer.encode(self.before)) + self.tokens - 2
        found = framed(self.tokenizer, text, lambda given: self.before + given.lower(), longest)
        kept = [0, *range(1 - self.tokens, 0)]
        return {"gemma": found._replace(offsets=tuple(found.offsets[k] for k in kept))}

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        time = torch.full((len(z),), step.time, device=z.device)
        output: Tensor = self.network(
            z.to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            encoder_attention_mask=text.mask,
            timestep=time * self.network.config.timestep_scale,
            return_dict=False,
        )[0]
        return output

    def layers(self) -> list[nn.Module]:
        return [block.attn2 for block in self.network.transformer_blocks]

    def usual(self) -> int:
        return len(self.layers())

    @property
    def patch(self) -> int:
        return int(self.network.config.patch_size)

    def levels(self, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {"mu": shift(schedule, tokens), "spaced": schedule.get("spaced", False)}
