"""SANA (arXiv 2410.10629): a language model is told to enhance the prompt, and its states are read; latents of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from diffusers import SanaPipeline
from torch import Tensor

from align.backbones.families.base import shift
from align.backbones.families.cross import Cross
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, framed
from align.processes.base import Step

TOLD: list[str] = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
"""What is said before each prompt, and not before a negative one."""


class Sana(Cross):
    """Its schedule is static."""

    pipeline = SanaPipeline

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        self.before = "\n".join(TOLD)

    def read(self, text: str) -> Text:
        return self.encoded(text, complex_human_instruction=TOLD)

    def read_negative(self, text: str) -> Text:
        return self.encoded(text, complex_human_instruction=None)

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

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {"mu": shift(schedule, tokens), "spaced": schedule.get("spaced", False)}
