"""Z-Image and Z-Image-Turbo (arXiv 2511.22699): a chat model reads the text, and texts and pictures come in lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from align.backbones.families.base import OneEncoder, alone, chat, filled, quiet
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, framed
from align.processes.base import Step
from align.text import readable


class ZImage(OneEncoder):
    """The network's time runs from noise, 0, to pictures, 1, and so does its velocity."""

    pipeline = ZImagePipeline

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        chat(self.tokenizer, "", thinking=True)  # a tokenizer without a template says so

    def read(self, text: str) -> Text:
        with quiet():
            (states,), _ = self.reader.encode_prompt(
                readable(text),
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.tokens,
            )
        return filled(states, self.tokens)

    def find(self, text: str) -> dict[str, Words]:
        def frame(given: str) -> str:
            return chat(self.tokenizer, given, thinking=True)

        return {"qwen": framed(self.tokenizer, text, frame, self.tokens)}

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        return alone(z, text, lambda one, states: self._velocity(one, states, step))

    def _velocity(self, z: Tensor, states: Tensor, step: Step) -> Tensor:
        outputs: list[Tensor] = self.network(
            [z[0].unsqueeze(1).to(self.dtype)],  # of one frame
            (1000 - torch.full((1,), step.time, device=z.device)) / 1000,
            [states.to(self.dtype)],
            return_dict=False,
        )[0]
        return -outputs[0].squeeze(1)[None]

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {**super().levels(schedule, tokens), "spaced": True}
