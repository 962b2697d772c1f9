"""TensorBoard and Weights & Biases, where they are installed and asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from align.training.log import Board


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self.writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def show(self, figures: Mapping[str, float], update: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, update)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    def __init__(self, folder: Path) -> None:
        self.run: Any = import_module("wandb").init(
            project="align", name=folder.name, dir=str(folder), id=folder.name, resume="allow"
        )

    def show(self, figures: Mapping[str, float], update: int) -> None:
        self.run.log(dict(figures), step=update)

    def close(self) -> None:
        self.run.finish()


def board(name: str, folder: Path) -> Board:
    """A board that is installed, by its package's name."""
    kinds: dict[str, Callable[[Path], Board]] = {"tensorboard": _TensorBoard, "wandb": _WandB}
    return kinds[name](folder)
