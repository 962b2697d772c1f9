"""Block checkpointing: activations inside a block are recomputed on the way back instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(model: ModelMixin, *surroundings: Callable[[], AbstractContextManager[None]]) -> None:
    """Checkpoint every block of a diffusers model whenever gradients are wanted; its arithmetic stays the same.

    Works in eval mode: diffusers' blocks ask only whether gradients are enabled.  ``surroundings`` are asked when a block runs
    for the contexts in which it is recomputed, as often as a graph is walked back: a recomputation must be the same as the first
    run, so what was changed for a while then (a probe) is put back by them.
    """

    def run(module: Callable[..., Any], *arguments: Any) -> Any:
        again = _Together([one() for one in surroundings])
        return checkpoint(
            module,
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,  # Frozen blocks in eval mode draw nothing.
            context_fn=lambda: (nullcontext(), again),
        )

    model.enable_gradient_checkpointing(run)


class _Together(AbstractContextManager[None]):
    """Contexts of which each can be entered again."""

    def __init__(self, contexts: Sequence[AbstractContextManager[None]]) -> None:
        self.contexts = contexts

    def __enter__(self) -> None:
        for one in self.contexts:
            one.__enter__()

    def __exit__(self, *error: Any) -> None:
        for one in reversed(self.contexts):
            one.__exit__(*error)


def checkpoint_decoder(vae: AutoencoderKL) -> None:
    """Checkpoint every layer of a decoder that works at picture resolution, whenever gradients are wanted.

    diffusers would checkpoint whole blocks, and all of the last block's layers at full resolution are most of what a decoder
    keeps.
    """
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock2D | Upsample2D):
            module.forward = partial(_recomputed, module.forward)


def _recomputed(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords)
