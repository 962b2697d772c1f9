"""What differs between kinds of transformers; all else is ``align.backbones.transformer``.

A family says how a text is read, how latents, time and guidance scale are fed, what the output stands for, how latents become
pictures, and where its attention is.  It is one file beside this one, an entry in the package's ``family`` and one in
``align.checkpoints.layout.FORMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from align.backbones.base import unscaled
from align.backbones.guider import Combine
from align.backbones.joint_attention import JointRecorder
from align.backbones.modules import Modules
from align.backbones.stated import compression
from align.backbones.text import Text, Words
from align.processes.base import Step


class Family:
    """A kind of transformer with its modules; what is here is what most have in common.

    Args:
        modules: network, autoencoder, text encoders.
        length: tokens that a text is filled up or cut to, of the encoder that leaves a choice.
        device: where texts are read.
    """

    pipeline: ClassVar[type[DiffusionPipeline]]
    """diffusers' class, whose reading of texts is used and whose ``__call__`` this equals."""
    recorder: ClassVar[type[JointRecorder] | None] = None
    """What reads a layer of ``layers``; ``None`` where attention maps are not read."""
    length: ClassVar[int] = 512
    """The pipeline's default."""

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        self.network: Any = modules.network
        self.vae: Any = modules.vae
        self.encoders = modules.text
        self.device = modules.device
        self.dtype: torch.dtype = modules.network.dtype
        self.decoder_dtype: torch.dtype = modules.vae.dtype
        self.tokens = length or self.length

    def read(self, text: str) -> Text:
        """What the network reads of one text."""
        raise NotImplementedError

    def read_negative(self, text: str) -> Text:
        """What it reads of a negative prompt."""
        return self.read(text)

    def find(self, text: str) -> dict[str, Words]:
        """Where a text's words are, see ``TextReader``."""
        raise NotImplementedError

    def output(self, z: Tensor, step: Step, text: Text, scale: float) -> Tensor:
        """One call of the network: of latents (P, C, h, w) what ``prediction_type`` says, likewise, for texts of P rows.

        ``scale`` is read by a network that was distilled from guided predictions.
        """
        raise NotImplementedError

    def combine(self, scale: float) -> Combine | None:
        """Its pipeline's own formula of guidance, where that is not other + scale (own - other)."""
        return None

    def layers(self) -> list[nn.Module]:
        """Layers of joint attention, in order, and of which the first are read unless others are chosen."""
        return []

    def usual(self) -> int:
        """How many of the layers are read unless others are chosen."""
        return len(self.layers()) // 2

    @property
    def patch(self) -> int:
        """Side of a token in latents."""
        return 2

    @property
    def factor(self) -> int:
        """Side of a latent in pixels."""
        return compression(self.vae.config)

    @property
    def channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @classmethod
    def levels(cls, schedule: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """How its pipeline spaces levels of pictures of so many tokens, beside what the schedule says.

        ``mu``, the dynamic shift, or ``None``; ``mu_step``, by how much it grows with each of the steps, if it does; ``spaced``,
        the highest of raw levels down to the Nth part of it, or ``False`` for the scheduler's own.
        """
        return {"mu": shift(schedule, tokens), "spaced": False}

    def decode(self, z0: Tensor) -> Tensor:
        """Clean latents (P, C, h, w) to pictures (P, 3, H, W), about [-1, 1]."""
        decoded: Tensor = self.vae.decode(unscaled(z0, self.vae.config).to(self.decoder_dtype)).sample
        return decoded


def chat(tokenizer: PreTrainedTokenizerBase, text: str, thinking: bool) -> str:
    """What a chat model is given for a text that a user says; with ``thinking`` it is left to it whether it thinks first."""
    said = [{"role": "user", "content": text}]
    return str(
        tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    )


def filled(states: Tensor, length: int) -> Text:
    """Rows (n, width) that are all of a text, filled up to a length that all texts have."""
    more = length - len(states)
    mask = torch.arange(length, device=states.device) < len(states)
    return Text(pad(states, (0, 0, 0, more)), mask=mask)


def alone(z: Tensor, text: Text, call: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What a network says of each row of latents and its text's rows, by a call of its own.

    Networks of texts of any length fill those of a call up to the longest, so that what is called together would show in the last
    bits of a picture; filled up to the same length always, they would take longer.
    """
    assert text.mask is not None
    rows = range(len(z))
    return torch.cat([call(z[k : k + 1], text.states[k][text.mask[k]]) for k in rows])


class OneEncoder(Family):
    """With one text encoder, which its pipeline's class reads texts with."""

    def __init__(self, modules: Modules, length: int | None = None) -> None:
        super().__init__(modules, length)
        (encoder,) = modules.text
        self.tokenizer = encoder.tokenizer
        pipeline: Any = self.pipeline
        self.reader = pipeline(
            scheduler=None,
            vae=self.vae,
            text_encoder=encoder.model,
            tokenizer=self.tokenizer,
            transformer=self.network,
        )


def shift(schedule: Mapping[str, Any], tokens: int) -> float | None:
    """The mu of a dynamic shift, a straight line in the picture's tokens; ``None`` where the schedule has none."""
    if not schedule.get("use_dynamic_shifting"):
        return None
    least, most = schedule["base_image_seq_len"], schedule["max_image_seq_len"]
    low, high = schedule["base_shift"], schedule["max_shift"]
    return float(low + (high - low) * (tokens - least) / (most - least))


@contextmanager
def quiet() -> Iterator[None]:
    """Texts that are cut are warned of, diffusers naming the wrong words; it is told elsewhere."""
    before = logging.get_verbosity(), transformers_logging.get_verbosity()
    logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
