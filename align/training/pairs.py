"""Preferred and rejected pictures of the same prompt: what offline lessons learn from.

``make`` lets the reference model draw several pictures for each prompt and has them labelled; a folder holds them in portions, so a
killed command goes on.  ``LabelledPairs`` are the pairs in such a folder; ``align.training.picture_pairs`` reads data sets of
pictures.  Both are latents in the end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from align.config.errors import ConfigError
from align.sampling.host import read
from align.sampling.sampler import Request, Sampler
from align.training.ranks import Ranks
from align.writing import write_bytes

PORTION = 32
"""Prompts in a file: what a killed command loses at most."""
FACTS = "align"
"""Where a file says what its pictures depend on."""
Label = Callable[[Tensor, Sequence[str]], Tensor]
"""How good pictures (P, 3, H, W) in [0, 1] are for their prompts, (P,) float64: only compared within a prompt."""


@dataclass(frozen=True)
class Pair:
    """Two pictures for a prompt, as clean latents (C, h, w); ``key`` says which pair it is."""

    key: str
    prompt: str
    chosen: Tensor
    rejected: Tensor


class Pairs(Protocol):
    """A data set of pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Pair:
        """The pair of a place: always the same one."""


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs among the labelled pictures of a prompt.

    Attributes:
        prompts: n texts.
        latents: (n, m, C, h, w) float32, m pictures of each.
        labels: (n, m), see ``Label``.
        places: (prompt, chosen, rejected) of each pair.
    """

    prompts: Sequence[str]
    latents: Tensor
    labels: Tensor
    places: Sequence[tuple[int, int, int]]

    @staticmethod
    def of(prompts: Sequence[str], latents: Tensor, labels: Tensor, margin: float) -> LabelledPairs:
        """All pairs of a prompt whose labels differ by more than the margin."""
        chosen = labels[:, :, None] - labels[:, None, :] > margin
        found = [(prompt, one, other) for prompt, one, other in chosen.nonzero().tolist()]
        return LabelledPairs(prompts, latents, labels, found)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Pair:
        prompt, chosen, rejected = self.places[number]
        pictures = self.latents[prompt]
        text = self.prompts[prompt]
        return Pair(f"{text}\x1f{chosen}\x1f{rejected}", text, pictures[chosen], pictures[rejected])


def make(
    folder: Path,
    prompts: Sequence[str],
    sampler: Sampler,
    label: Label,
    each: int,
    seed: int,
    stamp: str,
    ranks: Ranks | None = None,
) -> None:
    """Draw and label ``each`` pictures for each of different prompts, those that the folder does not have.

    Processes share the work, and all of it is done when one returns.

    Args:
        folder: of ``portion-*.safetensors``.
        prompts: n texts.
        sampler: the reference model.
        label: what is preferred.
        each: pictures of a prompt.
        seed: of the noise, which is keyed by prompt and picture.
        stamp: what the pictures depend on beside prompts and their number; kept in the files.
        ranks: the processes.

    Raises:
        ConfigError: the folder holds pictures that were made in another way.
    """
    ranks = ranks or Ranks()
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(prompts), PORTION)[ranks.rank :: ranks.number]:
        some = list(prompts[first : first + PORTION])
        path = folder / f"portion-{first // PORTION:05}.safetensors"
        facts = {"prompts": some, "each": each, "stamp": stamp}
        if path.exists():
            if _facts(path) != facts:
                raise ConfigError(
                    f"training.pairs.path={folder} holds pictures of other prompts or of another model: name another folder"
                )
            continue
        if ranks.first:
            print(f"align: pairs: {first} of {len(prompts)} prompts", file=sys.stderr, flush=True)
        latents, labels = _drawn(some, sampler, label, each, seed)
        tensors = {"latents": latents.view(-1, each, *latents.shape[1:]), "labels": labels.view(-1, each)}
        # One entry, as several are written in any order.
        write_bytes(path, save(tensors, {FACTS: json.dumps(facts)}))
    ranks.gather([None])


@torch.no_grad()
def _drawn(
    prompts: Sequence[str], sampler: Sampler, label: Label, each: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Latents (n each, C, h, w) and labels (n each,)."""
    requests = [Request(prompt, seed=seed, sample=k) for prompt in prompts for k in range(each)]
    latents = sampler.run(requests, sampler.encode(requests)).z
    shown = sampler.decode(latents)
    return read(latents).contiguous(), label(shown, [request.prompt for request in requests])


def _facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get(FACTS, "{}"))
    return found


def load(folder: Path, prompts: int, margin: float = 0.0) -> LabelledPairs:
    """The pairs of the first so many prompts of a folder that ``make`` filled. Raises ConfigError: there are none."""
    texts: list[str] = []
    latents, labels = [], []
    for path in sorted(folder.glob("portion-*.safetensors"))[: -(-prompts // PORTION)]:
        texts += _facts(path)["prompts"]
        with safe_open(path, framework="pt") as file:
            latents.append(file.get_tensor("latents"))
            labels.append(file.get_tensor("labels"))
    if not latents:
        raise ConfigError(f"training.pairs.path={folder} holds no labelled pictures (portion-*.safetensors)")
    found = LabelledPairs.of(texts, torch.cat(latents), torch.cat(labels), margin)
    if not len(found):
        raise ConfigError(
            f"training.pairs.path={folder}: no two pictures of a prompt differ by more than {margin}"
        )
    return found
