"""Weaker versions of a network for a further pass: blocks left out, or blind self-attention.

diffusers has hooks for the same, which are not used: in 0.42 the one that leaves blocks out swaps text and picture of Stable
Diffusion 3 and FLUX, the others do not know their attention, the one of smoothed energy guidance is never attached, and all of
them are put in and taken out by walking through the whole network at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import diffusers
import torch
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.layer_skip import AttentionScoreSkipFunctionMode
from diffusers.models.attention import AttentionModuleMixin, BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from align.backbones.guider import Weak

Forward = Callable[..., Any]
STACKS = (
    "mid_block.attentions.0.transformer_blocks",  # where arXiv 2403.17377 has it in a UNet
    "transformer_blocks",
    "blocks",
    "layers",
)
"""Where blocks are, in order: the first that a network has."""
USUAL = (7 / 24, 8 / 24, 9 / 24)
"""Blocks by their share of a transformer's depth: 7, 8 and 9 of the 24 that Stable Diffusion 3.5 medium has."""


class Weakened:
    """A network that can be a weaker one for a while; what is altered is found once, and is as it was afterwards."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.now: Weak | None = None
        self._known: dict[Weak, list[tuple[nn.Module, Forward]]] = {}
        self._kept: list[tuple[nn.Module, Forward | None]] = []

    def switched(self, weak: Weak | None) -> AbstractContextManager[None]:
        """While the context is open the network is that version, or itself; it can be entered again.

        Raises:
            ValueError: the network has no such blocks; see ``altered``.
        """
        return _Switched(self, weak)

    def switch(self, weak: Weak | None) -> None:
        for module, forward in self._kept:
            del module.forward
            if forward is not None:
                module.forward = forward
        self._kept = []
        self.now = weak
        if weak is None:
            return
        if weak not in self._known:
            self._known[weak] = list(altered(self.network, weak))
        for module, forward in self._known[weak]:
            self._kept.append((module, vars(module).get("forward")))
            module.forward = forward


class _Switched(AbstractContextManager[None]):
    def __init__(self, network: Weakened, weak: Weak | None) -> None:
        self.network, self.weak = network, weak
        self.before: list[Weak | None] = []

    def __enter__(self) -> None:
        self.before.append(self.network.now)
        self.network.switch(self.weak)

    def __exit__(self, *_: object) -> None:
        self.network.switch(self.before.pop())


def check_weak(stated: Mapping[str, Any], weak: Weak) -> None:
    """Whether a network, by its config, has the blocks. Raises ValueError; see ``altered``."""
    kind = getattr(diffusers, str(stated.get("_class_name", "UNet2DConditionModel")))
    with torch.device("meta"):
        empty = kind.from_config(stated)
    list(altered(empty, weak))


def altered(network: nn.Module, weak: Weak) -> Iterator[tuple[nn.Module, Forward]]:
    """The modules that the weaker version has otherwise, and what they do there.

    Raises:
        ValueError: there is no such stack, or not so many blocks in it, or they are of an unknown kind.
    """
    modules = dict(network.named_modules())
    stack = weak.stack or next((name for name in STACKS if name in modules), None)
    blocks = modules.get(stack or "")
    if not isinstance(blocks, nn.ModuleList):
        lists = [name for name, one in modules.items() if isinstance(one, nn.ModuleList) and _known(one)]
        raise ValueError(
            f"guider.stack={stack or 'null'} is no list of blocks that can be weakened: give {', '.join(lists) or 'guider=cfg'}"
        )
    if not _known(blocks):
        raise ValueError(
            f"guider.stack={stack}: blocks of kind {type(blocks[0]).__name__} cannot be weakened: give guider=cfg"
        )
    if (layers := weak.layers) is None:
        layers = tuple(range(len(blocks)))
        if stack != STACKS[0]:
            layers = tuple(dict.fromkeys(round(share * len(blocks)) for share in USUAL))
    if not layers or max(layers) >= len(blocks):
        raise ValueError(
            f"guider.layers=[{','.join(map(str, layers))}] are not all in {stack}: give some of 0 to {len(blocks) - 1}"
        )
    for layer in layers:
        yield from _BLOCKS[weak.kind](blocks[layer])


def _known(blocks: nn.ModuleList) -> bool:
    try:
        return len(blocks) > 0 and bool(TransformerBlockRegistry.get(type(blocks[0])))
    except ValueError:
        return False


def _skipped(block: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """A block whose output is its input, in the order in which it returns text and picture."""
    known = TransformerBlockRegistry.get(type(block))
    names = {known.return_hidden_states_index: known.hidden_states_argument_name}
    if known.return_encoder_hidden_states_index is not None:
        names[known.return_encoder_hidden_states_index] = known.encoder_hidden_states_argument_name

    def forward(*arguments: Any, **keywords: Any) -> Any:
        given = [
            known._get_parameter_from_args_kwargs(names[place], arguments, keywords)
            for place in sorted(names)
        ]
        return given[0] if len(given) == 1 else tuple(given)

    yield block, forward


def _self_attention(block: nn.Module) -> Iterator[nn.Module]:
    for module in block.modules():
        known = isinstance(module, Attention | AttentionModuleMixin)
        if known and not getattr(module, "is_cross_attention", False):
            yield module


def _blind(block: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """Self-attention whose every place takes its own value (arXiv 2403.17377)."""
    for module in _self_attention(block):

        def forward(*arguments: Any, own: Forward = module.forward, **keywords: Any) -> Any:
            with AttentionScoreSkipFunctionMode():
                return own(*arguments, **keywords)

        yield module, forward


def _even(block: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """Self-attention with the same query at every place of the picture, their mean: arXiv 2408.00760 with all blurred."""
    for module in _self_attention(block):
        if not isinstance(block, BasicTransformerBlock) and getattr(module, "add_q_proj", None) is None:
            raise ValueError(
                "guider=seg blurs the queries of pictures, and these blocks have those of the text among them: "
                "give guider=pag or slg, or another guider.stack"
            )
        query = module.get_submodule("to_q")

        def forward(states: Tensor, own: Forward = query.forward) -> Tensor:
            found: Tensor = own(states)
            return found.mean(dim=1, keepdim=True).expand_as(found)

        yield query, forward


_BLOCKS = {"skip": _skipped, "identity": _blind, "mean": _even}
