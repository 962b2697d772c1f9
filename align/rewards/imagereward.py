"""BLIP with a regression head (ImageReward; arXiv 2304.05977): the text attends to the picture.

transformers' BlipVisionModel and BlipTextModel; all image tokens are keys and values of every text layer, the
text is **not** causal, and the hidden state of its first token goes through linear maps without activations.
The value is standardised: ``(x - mean) / deviation`` with the numbers in ``config.json``.  Unlike a CLIP the
whole text tower has to run for every picture; only token ids are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPTokenizer

from align.rewards.base import Reward, TextCache, check_pairing
from align.rewards.clip import load_tokenizer
from align.rewards.errors import WrongWeights
from align.rewards.files import build, existing, fill, read_json, read_tensors, sha256
from align.rewards.preprocess import Variant, fit, normalise, resize_images


class BlipRegressor(nn.Module):
    """Picture and text to one number.

    Args:
        vision: the image tower's configuration.
        text: the text tower's; it must say ``is_decoder=True``, or there would be no cross-attention.
        head: widths of the linear maps after the text's own width; the last one, 1, is added.
        mean: subtracted from the head's output.
        deviation: what the difference is divided by.
    """

    def __init__(
        self,
        vision: BlipVisionConfig,
        text: BlipTextConfig,
        head: Sequence[int],
        mean: float = 0.0,
        deviation: float = 1.0,
    ):
        super().__init__()
        self.vision_model = BlipVisionModel._from_config(vision)
        self.text_model = BlipTextModel(text, add_pooling_layer=False)
        widths = [text.hidden_size, *head, 1]
        self.head = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        self.mean, self.deviation = mean, deviation

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Normalised pixels (P, 3, size, size), token ids and mask (P, length) to (P,) float32."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        read = self.text_model(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        )
        # The head stays in float32: in half precision it costs more than all the rest.
        value = read.last_hidden_state[:, 0].float()
        for layer in self.head:
            assert isinstance(layer, nn.Linear)
            value = nn.functional.linear(value, layer.weight.float(), layer.bias.float())
        return (value[:, 0] - self.mean) / self.deviation


class ImageRewardModel(Reward):
    """Standardised regression value of a BLIP."""

    variant: Variant = "clip"

    def __init__(
        self,
        name: str,
        model: BlipRegressor,
        tokenizer: CLIPTokenizer,
        length: int,
        size: int,
        fingerprint: dict[str, str],
    ):
        self.name, self.model, self.size = name, model, size
        self.fingerprint = fingerprint
        self.texts = TextCache(lambda prompt: padded(tokenizer, prompt, length))

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        """See :meth:`Reward.score`."""
        check_pairing(pictures, prompts, step)
        weight = self.model.vision_model.embeddings.class_embedding
        pixels = normalise(fit(pictures.to(weight.device).float(), self.size, self.variant))
        ids, mask = self.texts(prompts).to(weight.device).unbind(1)
        return self.model(pixels.to(weight.dtype), ids, mask)

    def prepare_images(
        self, images: list[Image.Image], convert: Callable[[list[Image.Image]], Tensor]
    ) -> Tensor:
        """Pictures sized by Pillow."""
        return convert(resize_images(images, self.size, self.variant))


def padded(tokenizer: CLIPTokenizer, prompt: str, length: int) -> Tensor:
    """Token ids and attention mask of one prompt, (2, length) int64, truncated and padded to one length."""
    ids = tokenizer(prompt, truncation=True, max_length=length).input_ids
    rest = length - len(ids)
    return torch.tensor([ids + [tokenizer.eos_token_id] * rest, [1] * len(ids) + [0] * rest])


def load_imagereward(
    name: str,
    folder: Path,
    tokenizer_folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ImageRewardModel:
    """An ImageReward-like model from a folder.

    Args:
        name: name of the reward.
        folder: with ``config.json`` (keys ``vision_config``, ``text_config``, ``head``, ``mean``,
            ``deviation``,
            ``max_length``) and ``model.safetensors``.
        tokenizer_folder: where the tokenizer is, if not in ``folder``.
        device: where to run.
        dtype: data type of the towers; head and score are always float32.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if it holds something else.
    """
    content = read_json(folder / "config.json")
    path = existing(folder / "model.safetensors")
    try:
        vision, text = BlipVisionConfig(**content["vision_config"]), BlipTextConfig(**content["text_config"])
        make = lambda: BlipRegressor(vision, text, content["head"], content["mean"], content["deviation"])  # noqa: E731
        length, model = int(content["max_length"]), build(make)
    except (KeyError, TypeError) as error:
        raise WrongWeights(f"{folder / 'config.json'} does not describe a BLIP regressor: {error}") from None
    fill(model, read_tensors(path), path, optional=("position_ids",))
    return ImageRewardModel(
        name,
        model.to(device=device, dtype=dtype),
        load_tokenizer(tokenizer_folder or folder),
        length,
        int(content["vision_config"]["image_size"]),
        {"architecture": "BLIP with a regression head", "model.safetensors": sha256(path)},
    )
