"""The one loop of all trainings: rounds, mini-batches in a keyed order, AdamW, checkpoints, examinations.

A folder holds ``log.jsonl`` (a line for each update, examination and round), ``checkpoint.safetensors`` (everything that the rest of the
training depends on), ``last/`` and ``best/`` (the trained weights as others read them).  All but the log are replaced as a whole, and
the log is cut back to where the checkpoint was made: so a killed training that goes on writes the same bytes, on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from align.training.base import Examiner, Example, Lesson, Trainable
from align.training.checkpoint import CHECKPOINT, Progress, load, save
from align.training.log import Log
from align.training.ranks import Ranks
from align.training.rounds import keyed_order

E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Recipe:
    """Numbers of the loop.

    Attributes:
        rounds: how many there are.
        batch: examples of a mini-batch, over all processes.
        together: most examples whose loss is computed in one go, where a mini-batch takes too much memory; ``None`` for no bound.
        accumulation: mini-batches of an update; they are counted through the rounds, and what is left at the end is dropped.
        learning_rate: of AdamW; ``warmup`` updates lead to it in equal steps, and with ``decay`` it falls to 0 over the rounds.
        weight_decay, betas, epsilon: likewise AdamW's.
        clip: norm to which gradients are cut; ``None`` leaves them.
        examine_every: rounds from one examination to the next; there is one before the first and one at the end.
        save_every: rounds from one checkpoint to the next.
        seed: of the order of examples.
    """

    rounds: int
    batch: int
    learning_rate: float
    together: int | None = None
    accumulation: int = 1
    warmup: int = 0
    decay: Literal["none", "linear"] = "none"
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip: float | None = 1.0
    examine_every: int = 10
    save_every: int = 1
    seed: int = 0

    def rate(self, update: int, round_: int) -> float:
        """The learning rate of an update in a round."""
        rate = self.learning_rate * min(1.0, (update + 1) / (self.warmup + 1))
        return rate * (1 - round_ / self.rounds) if self.decay == "linear" else rate


def train(
    lesson: Lesson[E],
    trained: Trainable,
    recipe: Recipe,
    folder: Path,
    examiner: Examiner | None = None,
    ranks: Ranks | None = None,
    log: Log | None = None,
) -> Progress:
    """Train, or go on where the folder's checkpoint was made; returns how it ended."""
    ranks = ranks or Ranks()
    log = log or Log(folder, ranks)
    loop = _Loop(lesson, trained, recipe, folder, examiner, ranks, log)
    loop.go_on()
    while loop.progress.round < recipe.rounds:
        loop.round()
    loop.end()
    return loop.progress


class _Loop(Generic[E]):
    """One training under way."""

    def __init__(
        self,
        lesson: Lesson[E],
        trained: Trainable,
        recipe: Recipe,
        folder: Path,
        examiner: Examiner | None,
        ranks: Ranks,
        log: Log,
    ) -> None:
        self.lesson, self.trained, self.recipe, self.folder = lesson, trained, recipe, folder
        self.examiner, self.ranks, self.log = examiner, ranks, log
        self.parameters = dict(trained.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        self.progress = Progress()

    def go_on(self) -> None:
        """Take up the checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if self.ranks.told(path.is_file()):
            self.progress = load(path, self.parameters, self.optimizer)
            self.log.say(f"goes on after round {self.progress.round} of {self.recipe.rounds}")
        self.log.begin(self.progress.log_lines, self.progress.round)

    def round(self) -> None:
        """One round, and what is due around it."""
        number = self.progress.round
        if number % self.recipe.examine_every == 0 and self.progress.examined_round != number:
            self.examine()
        examples = self.ranks.gather(self.lesson.collect(number, self.ranks))
        ordered = keyed_order(examples, lambda one: one.key, self.recipe.seed, "order", number)
        for begin in range(0, len(ordered), self.recipe.batch):
            self.mini_batch(ordered[begin : begin + self.recipe.batch])
        self.progress = replace(
            self.progress, round=number + 1, examples=self.progress.examples + len(ordered)
        )
        self.log.round(self.progress, len(ordered), self.recipe.rounds)
        if (number + 1) % self.recipe.save_every == 0 or number + 1 == self.recipe.rounds:
            self.save()

    def mini_batch(self, batch: Sequence[E]) -> None:
        """Add the gradient of a mini-batch, and make a step if it is the last of an update."""
        recipe, progress = self.recipe, self.progress
        if progress.pending == 0:
            self.optimizer.zero_grad()
        own = self.ranks.share(batch)
        # What goes on in other processes has no gradient here, and every parameter is part of the message.
        before = {name: one.grad for name, one in self.parameters.items()}
        for one in self.parameters.values():
            one.grad = torch.zeros_like(one)
        found: dict[str, Tensor] = {}
        whole, size = sum(one.weight for one in batch), recipe.together or len(batch)
        for first in range(0, len(own), size):
            some = own[first : first + size]
            part = sum(one.weight for one in some) / whole
            value, figures = self.lesson.loss(some)
            torch.autograd.backward(value * (part / recipe.accumulation))
            for name, figure in {"loss": value, **figures}.items():
                found[name] = found.get(name, torch.zeros_like(figure)) + part * figure.detach()
        self.ranks.sum([_grad(one) for one in self.parameters.values()])
        for name, one in self.parameters.items():
            if (old := before[name]) is not None:
                _grad(one).add_(old)
        figures_so_far = dict(progress.figures) if progress.pending else {}
        for name, mean in self._over_ranks(found).items():
            figures_so_far[name] = figures_so_far.get(name, 0.0) + mean / recipe.accumulation
        self.progress = replace(progress, pending=progress.pending + 1, figures=figures_so_far)
        if self.progress.pending == recipe.accumulation:
            self.update()

    def _over_ranks(self, figures: Mapping[str, Tensor]) -> dict[str, float]:
        total: dict[str, float] = {}
        for one in self.ranks.gather([{name: float(x) for name, x in figures.items()}]):
            for name, x in one.items():
                total[name] = total.get(name, 0.0) + x
        return total

    def update(self) -> None:
        """One step of AdamW; a gradient that is not finite makes none."""
        recipe, progress = self.recipe, self.progress
        rate = recipe.rate(progress.update, progress.round)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), recipe.clip or math.inf))
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
        self.progress = replace(
            progress, update=progress.update + 1, pending=0, skipped=progress.skipped + (not finite)
        )
        figures = {**progress.figures, "gradient_norm": norm, "learning_rate": rate}
        self.log.update(self.progress, figures)

    def examine(self) -> None:
        """Measure the present weights, keep them if they are the best, and say so if they have collapsed."""
        if self.examiner is None:
            return
        rows = self.ranks.gather(self.examiner(self.ranks))
        self.progress = self.progress.examined(rows)
        self.log.examination(self.progress, self.examiner.names)
        if self.progress.best_round == self.progress.round and self.ranks.first:
            self.trained.save(self.folder / "best")

    def save(self) -> None:
        """A checkpoint, and the weights as they are."""
        if not self.ranks.first:
            return
        self.progress = replace(self.progress, log_lines=self.log.lines)
        self.trained.save(self.folder / "last")
        save(self.folder / CHECKPOINT, self.progress, self.parameters, self.optimizer)

    def end(self) -> None:
        """The last examination, unless it has been."""
        if self.progress.examined_round != self.progress.round:
            self.examine()
            self.save()
        if self.examiner is None and self.ranks.first:
            self.trained.save(self.folder / "best")
        self.log.end(self.progress)


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
