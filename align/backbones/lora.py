"""Merging low-rank updates into a UNet: W + (alpha / r) up down (Hu et al., arXiv 2106.09685).

Reads the names that diffusers has written over time: ``<layer>.lora_A.weight`` of peft, ``<layer>.lora.down.weight``,
and ``<attention>.processor.to_q_lora.down.weight`` of the old attention processors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_FACTOR = re.compile(
    r"(?:unet\.)?(?P<layer>.+?)\.(?:lora_(?P<peft>[AB])(?:\.default)?|lora\.(?P<plain>down|up))\.weight"
)
_PROCESSOR = re.compile(
    r"(?:unet\.)?(?P<attention>.+)\.processor\.(?P<name>to_[a-z]+)_lora\.(?P<kind>down|up)\.weight"
)
_ALPHA = re.compile(r"(?:unet\.)?(?P<layer>.+)\.alpha")


@torch.no_grad()
def merge(unet: nn.Module, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Add low-rank updates to the weights of a network, in float32.

    Args:
        unet: the network.
        state: tensors of a file, by name.
        metadata: of the file; diffusers keeps rank and alpha there if they differ.

    Raises:
        ValueError: a name or shape does not belong to an update of this network.
    """
    factors, alphas = _factors(state)
    if not factors:
        raise ValueError("the LoRA file holds no low-rank updates in diffusers' names")
    default = _default_scale(metadata or {})
    layers = dict(unet.named_modules())
    for name, pair in factors.items():
        layer = layers.get(name)
        weight = getattr(layer, "weight", None)
        if weight is None or set(pair) != {"down", "up"}:
            what = "is no layer of the UNet" if weight is None else "has one factor of two"
            raise ValueError(f"the LoRA's layer {name} {what}")
        scale = alphas[name] / len(pair["down"]) if name in alphas else default
        weight.copy_((weight.float() + scale * update(weight, **pair).to(weight.device)).to(weight.dtype))


def update(weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """The product up down in the shape of a weight (out, in, ...), float32; down is (r, in, ...), up (out, r, ...).

    Raises:
        ValueError: the shapes do not fit.
    """
    flat_down, flat_up = down.float().flatten(1), up.float().flatten(1)
    rank = len(flat_down)
    if flat_up.shape != (len(weight), rank) or flat_down.shape != (rank, weight[0].numel()):
        raise ValueError(
            f"a LoRA of {tuple(up.shape)} by {tuple(down.shape)} does not fit a weight of {tuple(weight.shape)}"
        )
    return (flat_up @ flat_down).reshape(weight.shape)


def _factors(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """Both factors by layer, and alphas where the file has them."""
    factors: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, value in state.items():
        if found := _PROCESSOR.fullmatch(key):
            layer = f"{found['attention']}.{found['name']}{'.0' if found['name'] == 'to_out' else ''}"
            factors.setdefault(layer, {})[found["kind"]] = value
        elif found := _FACTOR.fullmatch(key):
            kind = found["plain"] or {"A": "down", "B": "up"}[found["peft"]]
            factors.setdefault(found["layer"], {})[kind] = value
        elif found := _ALPHA.fullmatch(key):
            alphas[found["layer"]] = float(value)
        else:
            raise ValueError(f"the LoRA's tensor {key} has no name that diffusers gives a UNet's")
    return factors, alphas


def _default_scale(metadata: Mapping[str, str]) -> float:
    """The scale alpha / r from the file's metadata; 1 where there is none, as diffusers takes it."""
    facts = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    rank, alpha = facts.get("unet.r"), facts.get("unet.lora_alpha")
    return float(alpha) / float(rank) if rank and alpha is not None else 1.0
