"""What a reward is: pictures and their prompts in, one number per picture out.

Pictures and prompts are paired one to one and never crossed; a row's value depends on that row alone.
Rewards compute in float32 unless told otherwise and always return float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.rewards.errors import WrongAnswer
from align.text import readable

if TYPE_CHECKING:
    from PIL import Image


class Reward(ABC):
    """A differentiable or black-box judge of pictures; ``name`` is as in configs and column names."""

    name: str
    differentiable: bool = True
    takes_timestep: bool = False
    """Whether ``step`` changes the value."""
    batch: int | None = None
    """The most pictures that one call takes; ``None`` for any number."""
    padded: bool = False
    """Whether a picture's value depends in its last bits on how many are scored beside it, so that calls are filled up to one
    number; a reward that is not, such as a user's, sees real pictures alone."""
    foreign: bool = False
    """Whether it is a user's code, see ``align.startup.tolerant``."""
    fingerprint: dict[str, str]
    """Identity of what is loaded: ids and sha256 of weight files."""
    metadata: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """What is known of prompts besides their words, by prompt; see ``know``."""

    def know(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Learn what is known of some prompts besides their words, for rewards that read it."""
        self.metadata = {**self.metadata, **metadata}

    @abstractmethod
    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        """Value (P,) float32 of each of P pictures (P, 3, H, W), float in [0, 1], for its prompt.

        ``step`` are (P,) int64 training timesteps of one-step predictions; ``None`` for finished pictures. Raises ValueError if
        the numbers of pictures, prompts and timesteps differ.
        """

    def score_rows(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None, real: int) -> Tensor:
        """(P,) values of a call's rows, of which the first ``real`` count and the others fill it up to a fixed number.

        Those get the last real one's value, without a gradient, unless the reward is ``padded``.
        """
        seen = len(pictures) if self.padded else real
        found = []
        for first in range(0, seen, self.batch or seen):
            rows = slice(first, min(first + (self.batch or seen), seen))
            found.append(self.score(pictures[rows], prompts[rows], None if step is None else step[rows]))
        if seen < len(pictures):
            found.append(found[-1][-1:].detach().expand(len(pictures) - seen))
        return torch.cat(found) if len(found) > 1 else found[0]

    @torch.no_grad()
    def score_images(self, images: Sequence[Image.Image], prompts: Sequence[str], batch: int = 8) -> Tensor:
        """Values (P,) float32 on the CPU of saved 8-bit pictures of any mode and sizes: what tables report.

        Alpha is laid over white; ``batch`` are the rows of every call (see ``calls``).
        """
        from align.rewards.preprocess import to_pictures

        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts")
        values = torch.empty(len(images))
        sized = self.size_images(images)
        for part, rows in calls([image.size for image in sized], batch):
            found = self.score(to_pictures([sized[k] for k in rows]), [prompts[k] for k in rows])
            values[part] = one_a_picture(self.name, found, len(rows))[: len(part)].cpu()
        return values

    def answers(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Tensor]:
        """Of a reward that is a mean of several numbers, such as of answers to questions: those (n,) of each saved picture."""
        raise NotImplementedError(f"{self.name} is one number")

    def among(self, values: Tensor) -> Tensor:
        """(n,) what the values of n pictures are worth in a choice among just these: themselves."""
        return values

    def size_images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """What of each picture ``score`` shall see; models whose original resizes with Pillow do so here."""
        return list(images)


CALL_PIXELS = 2**25
"""Of one call's pictures together: eight of 2048 x 2048, fewer of larger ones, at least one."""


def calls(sizes: Sequence[tuple[int, int]], batch: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pictures of any sizes in calls of one size each, whose number of rows is told by that size alone.

    So a value does not depend, in its last bits, on how many pictures are measured beside it. A call has ``batch`` rows, fewer
    of pictures beyond ``CALL_PIXELS``. Yields the places of a call's pictures; and its rows, which are these places, the last
    repeated as padding.
    """
    for size in dict.fromkeys(sizes):
        rows = max(1, min(batch, CALL_PIXELS // max(1, size[0] * size[1])))
        same = [k for k, other in enumerate(sizes) if other == size]
        for start in range(0, len(same), rows):
            part = same[start : start + rows]
            yield part, part + part[-1:] * (rows - len(part))


def check_pairing(pictures: Tensor, prompts: Sequence[str], step: Tensor | None) -> None:
    """Raise ValueError if ``pictures`` is not (P, 3, H, W), or there are not P prompts and P timesteps."""
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures must be (P, 3, H, W), not {tuple(pictures.shape)}")
    if isinstance(prompts, str) or len(prompts) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many prompts, not {len(prompts)}")
    if step is not None and tuple(step.shape) != (len(pictures),):
        raise ValueError(f"{len(pictures)} pictures need as many timesteps, not {tuple(step.shape)}")


def one_a_picture(name: str, found: Any, number: int, device: torch.device | None = None) -> Tensor:
    """What a reward returned for ``number`` pictures, as (number,) float32 with its gradient.

    Raises WrongAnswer for all else, which would be spread over the pictures or taken for a value that is not finite.
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
    values: Tensor = found.to(device=device, dtype=torch.float32)
    if values.shape != (number,):
        what = f"{len(values)} values" if values.ndim == 1 else f"numbers of shape {tuple(values.shape)}"
        raise WrongAnswer(f"reward {name} returned {what} for {number} pictures: return one a picture")
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

    ``compute`` makes of a prompt a tensor (without the batch axis), without gradients; ``size`` prompts are kept, the least
    recently used going first.
    """

    def __init__(self, compute: Callable[[str], Tensor], size: int = 1024):
        self._compute = compute
        self._size = size
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self.computed = 0
        """How often ``compute`` ran."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Stacked results, (len(prompts), ...)."""
        found: dict[str, Tensor] = {}  # not lru_cache, which a compiler looks through
        for prompt in dict.fromkeys(prompts):
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
