"""Block checkpointing: activations inside a block are recomputed on the way back instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from diffusers import ModelMixin
from torch.utils.checkpoint import checkpoint

Opener = Callable[[], AbstractContextManager[Any]]


def checkpoint_blocks(model: ModelMixin, surroundings: Callable[[], Opener] = lambda: nullcontext) -> None:
    """Checkpoint every block of a diffusers model whenever gradients are wanted.

    Works in eval mode: diffusers' blocks ask only whether gradients are enabled.

    Args:
        model: the model; its arithmetic stays the same.
        surroundings: asked when a block runs; opens the context in which it is recomputed.  A recomputation must be
            the same as the first run, so what was changed for a while then (a probe) is put back by it.
    """

    def run(module: Callable[..., Any], *arguments: Any) -> Any:
        again = _Reopened(surroundings())
        return checkpoint(module, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), again))

    model.enable_gradient_checkpointing(run)


class _Reopened(AbstractContextManager[None]):
    """A context that is opened anew each time, as often as a graph is walked back."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener
        self.stack = ExitStack()

    def __enter__(self) -> None:
        self.stack.enter_context(self.opener())

    def __exit__(self, *_: object) -> None:
        self.stack.close()
