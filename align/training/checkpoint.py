"""How far a training is, and the one file that it goes on from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

import torch
from safetensors import safe_open
from safetensors.torch import save as packed
from torch import Tensor, nn

from align import writing
from align.errors import WrongWeights

CHECKPOINT = "checkpoint.safetensors"
COLLAPSE = 3.0
"""Standard errors by which the judge's paired difference from the start has to be below zero to be called a collapse."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        round, update, examples: rounds, updates and examples that are done.
        skipped: updates that were none, as the gradient was not finite.
        pending: mini-batches whose gradient waits for the rest of an update.
        figures: of these mini-batches, for the log.
        log_lines: length of the log.
        examined_round: round before which the weights were examined last, and ``means`` what came of it.
        first: the judge's figure of each held-out picture before the training.
        best_round, best_value: where the judge's mean was the highest.
        fallen: (mean, standard error) of the paired difference from ``first``.
    """

    round: int = 0
    update: int = 0
    examples: int = 0
    skipped: int = 0
    pending: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    log_lines: int = 0
    examined_round: int = -1
    means: tuple[float, ...] = ()
    first: tuple[float, ...] = ()
    best_round: int = -1
    best_value: float = -math.inf
    fallen: tuple[float, float] = (0.0, 0.0)

    def examined(self, rows: Sequence[Sequence[float]]) -> Progress:
        """With what an examination found, a row of figures for each held-out picture."""
        judged = [row[0] for row in rows]
        first = self.first or tuple(judged)
        apart = [now - before for now, before in zip(judged, first, strict=True)]
        error = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.inf
        found = replace(
            self,
            examined_round=self.round,
            means=tuple(map(fmean, zip(*rows, strict=True))),
            first=first,
            fallen=(fmean(apart), error),
        )
        if found.means[0] > self.best_value:
            found = replace(found, best_round=self.round, best_value=found.means[0])
        return found

    @property
    def collapsed(self) -> bool:
        """Whether the held-out judge is clearly below what it was before the training."""
        mean, error = self.fallen
        return mean < 0 and mean + COLLAPSE * error < 0


def save(
    path: Path, progress: Progress, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> None:
    """Write everything that the rest of a training depends on, as a whole. Raises OSError."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weight.{name}"] = parameter.detach()
        if progress.pending and parameter.grad is not None:
            tensors[f"gradient.{name}"] = parameter.grad
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = value
    there = {name: one.contiguous().cpu() for name, one in tensors.items()}
    writing.write_bytes(path, packed(there, {"progress": json.dumps(asdict(progress))}))


def load(path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> Progress:
    """Put weights, moments and waiting gradients where they were. Raises WrongWeights: it is of another training."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        plain = json.loads((file.metadata() or {})["progress"])
    lists = ("means", "first", "fallen")
    progress = Progress(**plain | {name: tuple(plain[name]) for name in lists})
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, whose = name.partition(".")
        kinds.setdefault(kind, {})[whose] = value
    weights = kinds.pop("weight", {})
    shapes = {name: tuple(one.shape) for name, one in parameters.items()}
    if {name: tuple(one.shape) for name, one in weights.items()} != shapes:
        raise WrongWeights(f"{path} is of a training of other weights: give another run.folder, or remove it")
    gradients = kinds.pop("gradient", {})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            if name in gradients:
                parameter.grad = gradients[name].to(parameter.device)
            found = {kind: named[name] for kind, named in kinds.items() if name in named}
            if found:
                optimizer.state[parameter] = {
                    kind: value if kind == "step" else value.to(parameter.device)
                    for kind, value in found.items()
                }
    return progress
