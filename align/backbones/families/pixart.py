"""PixArt-Sigma (arXiv 2403.04692): a transformer that predicts noise, and variances that are left; T5 reads the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import PixArtSigmaPipeline
from torch import Tensor, nn

from align.backbones.families.base import Family, quiet
from align.backbones.joint_attention import CrossRecorder
from align.backbones.modules import Modules
from align.backbones.text import Text, Words, words
from align.processes.base import Step
from align.text import readable


class PixArtSigma(Family):
    """Of a diffusion, not a flow."""

    pipeline = PixArtSigmaPipeline
    recorder = CrossRecorder
    length = 300

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        (encoder,) = modules.text
        self.tokenizer = encoder.tokenizer
        self.reader = PixArtSigmaPipeline(
            scheduler=None,
            vae=self.vae,
            text_encoder=encoder.model,
            tokenizer=self.tokenizer,
            transformer=self.network,
        )
        if self.network.use_additional_conditions:
            raise ValueError(
                "use_additional_conditions=true is of PixArt-alpha, whose network reads the picture's size: give PixArt-Sigma"
            )

    def read(self, text: str) -> Text:
        with quiet():
            states, mask, *_ = self.reader.encode_prompt(
                readable(text),
                do_classifier_free_guidance=False,
                device=self.device,
                max_sequence_length=self.tokens,
            )
        return Text(states[0], mask=mask[0].bool())

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

    def layers(self) -> list[nn.Module]:
        return [block.attn2 for block in self.network.transformer_blocks]

    def usual(self) -> int:
        return len(self.layers())

    @property
    def patch(self) -> int:
        return int(self.network.config.patch_size)

    def levels(self, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {}
