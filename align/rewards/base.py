"""What a reward is: pictures and their prompts in, one number per picture out.

Pictures and prompts are paired one to one and never crossed; a row's value depends on that row alone.
Rewards compute in float32 unless told otherwise and always return float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.rewards.errors import MissingWeights, RewardError, UnknownReward, WrongAnswer, WrongWeights
from align.text import readable

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MissingWeights",
    "Reward",
    "RewardError",
    "TextCache",
    "UnknownReward",
    "WrongWeights",
    "check_pairing",
    "one_a_picture",
]


class Reward(ABC):
    """A differentiable or black-box judge of pictures.

    Attributes:
        name: as in configs and column names.
        differentiable: whether gradients reach the pictures.
        takes_timestep: whether ``step`` changes the value.
        fingerprint: identity of what is loaded: ids and sha256 of weight files.
    """

    name: str
    differentiable: bool = True
    takes_timestep: bool = False
    fingerprint: dict[str, str]

    @abstractmethod
    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        """Value of each picture for its prompt.

        Args:
            pictures: (P, 3, H, W) float in [0, 1].
            prompts: P texts.
            step: (P,) int64 training timesteps of one-step predictions; ``None`` for finished pictures.

        Returns:
            (P,) float32.

        Raises:
            ValueError: if the numbers of pictures, prompts and timesteps differ.
        """

    @torch.no_grad()
    def score_images(self, images: Sequence[Image.Image], prompts: Sequence[str], batch: int = 32) -> Tensor:
        """Value of saved 8-bit pictures: what tables report.  Sizes may differ from picture to picture.

        Args:
            images: P pictures of any mode (alpha is laid over white).
            prompts: P texts.
            batch: how many pictures of one size are scored at once.

        Returns:
            (P,) float32 on the CPU.
        """
        from align.rewards.preprocess import to_pictures

        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts")
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.size, []).append(index)
        values = torch.empty(len(images))
        for indices in by_size.values():
            for start in range(0, len(indices), batch):
                part = indices[start : start + batch]
                pictures = self.prepare_images([images[k] for k in part], to_pictures)
                found = self.score(pictures, [prompts[k] for k in part])
                values[part] = one_a_picture(self.name, found, len(part)).cpu()
        return values

    def prepare_images(
        self, images: list[Image.Image], convert: Callable[[list[Image.Image]], Tensor]
    ) -> Tensor:
        """Pictures of one size as (P, 3, H, W) for :meth:`score`; models may resize with Pillow first."""
        return convert(images)


def check_pairing(pictures: Tensor, prompts: Sequence[str], step: Tensor | None) -> None:
    """Refuse input whose parts do not belong together.

    Raises:
        ValueError: if ``pictures`` is not (P, 3, H, W), or there are not P prompts and P timesteps.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures must be (P, 3, H, W), not {tuple(pictures.shape)}")
    if isinstance(prompts, str) or len(prompts) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many prompts, not {len(prompts)}")
    if step is not None and tuple(step.shape) != (len(pictures),):
        raise ValueError(f"{len(pictures)} pictures need as many timesteps, not {tuple(step.shape)}")


def one_a_picture(name: str, found: Any, number: int, device: torch.device | None = None) -> Tensor:
    """What a reward returned for ``number`` pictures, as (number,) float32 with its gradient.

    Raises:
        WrongAnswer: it is anything else, which would be spread over the pictures or taken for a value that is not finite.
    """
    if not isinstance(found, Tensor):
        try:
            found = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise WrongAnswer(
                f"reward {name} returned {_described(found)} for {number} pictures: return one number a picture"
            ) from None
    if found.is_complex():
        raise WrongAnswer(f"reward {name} returned complex numbers: return one real number a picture")
    values = found.to(device=device, dtype=torch.float32)
    if values.ndim == 1 and len(values) != number:
        raise WrongAnswer(
            f"reward {name} returned {len(values)} values for {number} pictures: return one a picture"
        )
    if values.ndim != 1:
        raise WrongAnswer(
            f"reward {name} returned numbers of shape {tuple(values.shape)} for {number} pictures: "
            "return one a picture"
        )
    return values


def _described(found: Any) -> str:
    """The type of what is no number, such as "a list of str"."""
    if found is None:
        return "None"
    kind = type(found).__name__
    if isinstance(found, list | tuple):
        inside = list(dict.fromkeys(type(one).__name__ for one in found))
        return f"a {kind} of {' and '.join(inside[:3])}"
    dtype = getattr(found, "dtype", None)
    return f"a {kind}" if dtype is None else f"a {kind} of {dtype}"


class TextCache:
    """Something computed once per distinct prompt, each prompt alone, so no prompt depends on its company.

    Args:
        compute: prompt to tensor (without the batch axis); it runs without gradients.
        size: how many prompts are kept, the least recently used going first.
    """

    def __init__(self, compute: Callable[[str], Tensor], size: int = 1024):
        self._compute = compute
        self._size = size
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self.computed = 0
        """How often ``compute`` ran."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Stacked results, (len(prompts), ...)."""
        found: dict[str, Tensor] = {}
        for prompt in prompts:
            if prompt in found:
                continue
            if prompt in self._kept:
                self._kept.move_to_end(prompt)
            else:
                with torch.no_grad():
                    self._kept[prompt] = self._compute(readable(prompt))
                self.computed += 1
            found[prompt] = self._kept[prompt]
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return torch.stack([found[prompt] for prompt in prompts])
