"""``torch.compile`` for the blocks that a network repeats, so that a GPU launches a few large kernels instead of many small ones."""

from __future__ import annotations

import torch._dynamo.config
import torch._inductor.config
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

LIMIT = 64
"""Kinds of call that a block is compiled for: its sizes at every level, with and without a gradient, read by a probe or not."""

_BLOCKS = (BasicTransformerBlock, JointTransformerBlock, ResnetBlock2D)
"""Those of UNets, decoders and Stable Diffusion 3; other transformers say which of theirs are repeated."""


def compile_blocks(*models: nn.Module, backend: str = "inductor") -> None:
    """Compile every transformer and residual block, each as one graph without breaks, when it is first called.

    Blocks of one kind share what was compiled.  The fused kernels round otherwise, so pictures differ in their last bits.
    """
    torch._dynamo.config.recompile_limit = LIMIT
    torch._inductor.config.deterministic = True  # what is chosen by timing would differ from run to run
    for model in models:
        declared = getattr(model, "_repeated_blocks", None) or ()
        for module in model.modules():
            if isinstance(module, _BLOCKS) or type(module).__name__ in declared:
                module.compile(fullgraph=True, dynamic=False, backend=backend)
