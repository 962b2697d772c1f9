"""PixArt-Sigma (arXiv 2403.04692): a transformer that predicts noise, and variances that are left; T5 reads the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import PixArtSigmaPipeline
from torch import Tensor

from align.backbones.families.cross import Cross
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, words
from align.processes.base import Step


class PixArtSigma(Cross):
    """Of a diffusion, not a flow."""

    pipeline = PixArtSigmaPipeline

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        if self.network.use_additional_conditions:
            raise ValueError(
                "use_additional_conditions=true is of PixArt-alpha, whose network reads the picture's size: give PixArt-Sigma"
            )

    def read(self, text: str) -> Text:
        return self.encoded(text)

    def find(self, text: str) -> dict[str, Words]:
        return {"t5": words(self.tokenizer, text.lower(), self.tokens)}

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        output: Tensor = self.network(
            z.to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            encoder_attention_mask=text.mask,
            timestep=torch.full((len(z),), step.time, device=z.device),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return output[:, : z.shape[1]]

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {}
