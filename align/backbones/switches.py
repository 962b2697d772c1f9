"""diffusers' own switches of a network: attention's kernels, weights that rest in 8 bit, blocks off the device between calls."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from diffusers.models.attention_dispatch import attention_backend
from torch import nn

from align.backbones.recipe import Recipe


def switch(network: Any, recipe: Recipe, device: torch.device) -> None:
    """Turn on what a recipe asks for, before anything else of the network is altered.

    Raises:
        RuntimeError, ImportError: a package is missing, as diffusers says.
        ValueError: the network's attention does not ask diffusers.
    """
    if recipe.attention is not None:
        with attention_backend(recipe.attention):  # left open, it would be that of all later networks
            network.set_attention_backend(recipe.attention)
        processors = (getattr(one, "processor", None) for one in network.modules())
        if not any(hasattr(one, "_attention_backend") for one in processors):
            raise ValueError(
                f"backbone.attention={recipe.attention}: the attention of {type(network).__name__} asks torch itself: give "
                "backbone.attention=null"
            )
    if recipe.storage is not None:
        # The way back of a convolution reads its weights where they rest, that of a product a view that was in full numbers.
        network.enable_layerwise_casting(
            torch.float8_e4m3fn, network.dtype, DEFAULT_SKIP_MODULES_PATTERN, (nn.Conv2d,)
        )
    if recipe.offload:
        network.enable_group_offload(device, num_blocks_per_group=1, use_stream=True)
