"""Transformers that look at one encoder's text in layers of cross-attention: PixArt-Sigma and SANA."""

from __future__ import annotations

from typing import Any

from torch import nn

from align.backbones.families.base import OneEncoder, quiet
from align.backbones.joint_attention import CrossRecorder
from align.backbones.text import Text
from align.text import readable


class Cross(OneEncoder):
    """All of the layers are read unless others are chosen."""

    recorder = CrossRecorder
    length = 300

    def encoded(self, text: str, **more: Any) -> Text:
        """What its pipeline makes of a text; ``more`` is of ``encode_prompt``."""
        with quiet():
            states, mask, *_ = self.reader.encode_prompt(
                readable(text),
                do_classifier_free_guidance=False,
                device=self.device,
                max_sequence_length=self.tokens,
                **more,
            )
        return Text(states[0], mask=mask[0].bool())

    def layers(self) -> list[nn.Module]:
        return [block.attn2 for block in self.network.transformer_blocks]

    def usual(self) -> int:
        return len(self.layers())

    @property
    def patch(self) -> int:
        return int(self.network.config.patch_size)
