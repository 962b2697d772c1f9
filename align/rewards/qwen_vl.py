"""One Qwen-VL model for all judges that ask one: picture and text in, logits or hidden states at one position out.

transformers' Qwen2-VL, Qwen2.5-VL and Qwen3-VL.  What differs between judges is theirs: the question, the size of pictures,
positions, and what is read off.  A row is one pass, so it cannot depend on others, and needs no padding; a picture of some
hundred tokens keeps a device busy by itself.  Weights are read straight into the data type and onto the device that they work
in; a device of kind ``meta`` checks names and shapes without reading numbers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from align.checkpoints.weight_files import build, existing, fill, read_json, sha256
from align.errors import WrongWeights
from align.pictures import to_rgb
from align.rewards.base import Reward, check_pairing
from align.rewards.judges import WORDS
from align.rewards.preprocess import normalise, resized, to_pictures
from align.text import readable

KINDS: Mapping[str, tuple[Any, Any]] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
"""Configuration and model by ``model_type`` of a folder's ``config.json``."""
RATIO = 200
"""Longer pictures are refused, as the published code does."""


@dataclass(frozen=True)
class Sizing:
    """How large a picture is shown: sides are multiples of ``factor``, their product lies from ``least`` to ``most``, about."""

    factor: int
    least: int
    most: int

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture is brought to. Raises ValueError: it is far too long."""
        if max(height, width) > RATIO * min(height, width):
            raise ValueError(f"a picture of {width} x {height} is more than {RATIO} times as long as wide")
        factor = self.factor
        sides = [max(factor, round(side / factor) * factor) for side in (height, width)]
        if math.prod(sides) > self.most:
            scale = math.sqrt(height * width / self.most)
            sides = [max(factor, math.floor(side / scale / factor) * factor) for side in (height, width)]
        elif math.prod(sides) < self.least:
            scale = math.sqrt(self.least / (height * width))
            sides = [math.ceil(side * scale / factor) * factor for side in (height, width)]
        return sides[0], sides[1]


class QwenVL:
    """A frozen model with its tokenizer, chat template and way to cut pictures into patches."""

    def __init__(
        self, model: nn.Module, config: Any, tokenizer: Any, template: str, image: Mapping[str, Any]
    ):
        self.model, self.config, self.tokenizer, self.template = model, config, tokenizer, template
        self.patch, self.merge = config.vision_config.patch_size, config.vision_config.spatial_merge_size
        self.frames = config.vision_config.temporal_patch_size
        self.image, self.mean, self.std = image, tuple(image["image_mean"]), tuple(image["image_std"])
        self.placeholder: int = config.image_token_id
        self.device = next(model.parameters()).device
        # Between layers only their inputs are kept for a gradient; no dropout comes with that.
        config.text_config.attention_dropout = 0.0
        model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    @property
    def factor(self) -> int:
        """Pixels that a side of one token of the picture has."""
        return int(self.patch * self.merge)

    def patches(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """(3, h, w) in [0, 1], sides being multiples of ``factor``, as the patches (n, 3 * frames * patch^2) and the grid (1, 3)."""
        pixels = normalise(picture[None].float(), self.mean, self.std)[0]
        rows, columns = (side // self.patch for side in picture.shape[1:])
        m, p = self.merge, self.patch
        blocks = pixels.view(3, rows // m, m, p, columns // m, m, p).permute(1, 4, 2, 5, 0, 3, 6)
        frames = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, self.frames, -1, -1)
        return frames.reshape(rows * columns, -1), torch.tensor([[1, rows, columns]], device=picture.device)

    def check(self, prompt: str) -> str:
        """A prompt as it can be asked about. Raises ValueError: it holds tokens of the model's own."""
        prompt = readable(prompt)
        for token in self.tokenizer.get_added_vocab():
            if token in prompt:
                raise ValueError(f"the prompt holds {token}, which the judge reads as a token of its own")
        return prompt

    def ids(self, question: str, grid: Tensor) -> Tensor:
        """Token ids (1, L) of one picture and then a question, ready for the answer."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        tokens = int(grid.prod()) // self.merge**2
        found = [
            token
            for one in self.tokenizer(text, add_special_tokens=False).input_ids
            for token in [one] * (tokens if one == self.placeholder else 1)
        ]
        return torch.tensor([found], device=self.device)

    def text(self, question: str, grid: Tensor) -> dict[str, Any]:
        """What the model takes of a picture's grid and a question, but for positions."""
        ids = self.ids(question, grid)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "image_grid_thw": grid}

    def inputs(self, picture: Tensor, question: str) -> dict[str, Any]:
        """What the model takes of a picture (3, h, w) and a question, but for positions."""
        patches, grid = self.patches(picture.to(self.device))
        return {**self.text(question, grid), "pixel_values": patches}

    def features(self, patches: Tensor, grid: Tensor) -> Any:
        """A picture's patches read once, for ``mm_encoder_outputs`` of several questions in place of ``pixel_values``."""
        self.model.train(torch.is_grad_enabled())
        return self.model.model.get_image_features(patches, grid, return_dict=True)  # type: ignore[operator,union-attr]

    def forward(self, given: Mapping[str, Any], **more: Any) -> Any:
        """The model's output for ``inputs`` and ``more``."""
        self.model.train(torch.is_grad_enabled())  # which is what keeping less asks for, see above
        return self.model(**given, **more, use_cache=False)

    def answer(self, given: Mapping[str, Any]) -> Tensor:
        """Logits (vocabulary,) float32 of the first token of the answer, with the positions of the model's own."""
        kinds = (given["input_ids"] == self.placeholder).int()
        logits: Tensor = self.forward(given, mm_token_type_ids=kinds, logits_to_keep=1).logits
        return logits[0, -1].float()


class QwenReward(Reward):
    """A judge that asks a Qwen-VL about one picture and its prompt at a time."""

    batch = 1

    def __init__(self, name: str, vl: QwenVL, sizing: Sizing, fingerprint: dict[str, str]):
        self.name, self.vl, self.sizing, self.fingerprint = name, vl, sizing, fingerprint

    @abstractmethod
    def judge(self, picture: Tensor, prompt: str) -> Tensor:
        """The value () float32 of a picture (3, h, w) in [0, 1] of the size that it is shown in."""

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        shown = resized(pictures.to(self.vl.device).float(), *self.sizing(*pictures.shape[-2:]))
        return torch.stack([self.judge(*one) for one in zip(shown, prompts, strict=True)])

    @torch.no_grad()
    def score_images(self, images: Sequence[Image.Image], prompts: Sequence[str], batch: int = 8) -> Tensor:
        """See ``Reward.score_images``; resized by Pillow."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts")
        pairs = zip(images, prompts, strict=True)
        return torch.stack([self.judge(self.shown(image), prompt).cpu() for image, prompt in pairs])

    def shown(self, image: Image.Image) -> Tensor:
        """A saved picture as (3, h, w) in [0, 1] of the size that it is shown in."""
        height, width = self.sizing(image.height, image.width)
        return to_pictures([to_rgb(image).resize((width, height), Image.Resampling.BICUBIC)])[0]


def load_qwen_vl(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    tensors: Mapping[str, Tensor],
    origin: Path,
    *,
    answers: bool = True,
) -> QwenVL:
    """The model that a folder's ``config.json`` describes, with ``tensors`` by published names, older or newer, of ``origin``.

    It has as many tokens as these know.  Without ``answers`` only the model without its last layer. Raises WeightsError.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in KINDS:
        raise WrongWeights(
            f"{folder / 'config.json'} describes {kind!r}, no Qwen-VL: one of {', '.join(KINDS)}"
        )
    configuration, whole = KINDS[kind]
    try:
        config = configuration.from_pretrained(str(folder), local_files_only=True)
        tokenizer = Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise WrongWeights(f"{folder} holds no Qwen-VL: {str(error).splitlines()[0]}") from None
    named = current(tensors, "model." if answers else "")
    embedding = named.get("model." * answers + "language_model.embed_tokens.weight")
    if embedding is not None:
        config.text_config.vocab_size = embedding.shape[0]
        if answers:
            named.setdefault("lm_head.weight", embedding)  # tied ones stand in the file once
    if not answers:
        named.pop("lm_head.weight", None)

    def make() -> nn.Module:
        made = whole._from_config(config, dtype=dtype)
        model: nn.Module = made if answers else made.model
        return model

    with torch.device(device):
        model = build(make)
    template = read_json(folder / "chat_template.json").get("chat_template")
    if not isinstance(template, str):
        raise WrongWeights(f"{folder / 'chat_template.json'} holds no template")
    return QwenVL(
        fill(model, named, origin),
        config,
        tokenizer,
        template,
        read_json(folder / "preprocessor_config.json"),
    )


def current(tensors: Mapping[str, Tensor], root: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint by the names that the classes have today, below ``root``."""
    out = {}
    for key, value in tensors.items():
        inner = key.removeprefix("model.")
        if inner.startswith(("visual.", "language_model.")):
            out[root + inner] = value
        else:
            out[f"{root}language_model.{inner}" if key.startswith("model.") else key] = value
    return out


def words_hashes(folder: Path) -> dict[str, str]:
    """Hashes of the files beside the weights."""
    return {name: sha256(existing(folder / name)) for name in WORDS}
