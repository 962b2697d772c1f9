"""A regression network from noisy latents, their timestep and the prompt to the reward of the picture that will come of them.

The ``MC`` value of SVDD (arXiv 2408.08252) and DSearch (arXiv 2503.02039): trained on pairs (z_t, r(x_0)) of the
pre-trained sampler, one network for all timesteps.  The least squares answer is E[r(x_0) | z_t], so the value of a sum of
rewards is the sum of their values, and one network has a number for each reward that it was trained for.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from align.checkpoints.weight_files import build, fill, read_json, read_tensors, weights_of
from align.errors import WrongWeights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of a folder."""


@dataclass(frozen=True)
class ValueShape:
    """Sizes of a value network, and what its numbers mean.

    Attributes:
        latents: (C, h, w) of the latents.
        text_width: of the backbone's token embeddings.
        rewards: names of the R rewards, in the order of the network's numbers.
        mean, deviation: R numbers each: the network answers in deviations from the mean.
        patch: side of the square of latents that is one token; it divides h and w.
        width: of the transformer, a multiple of ``heads``.
        layers, heads: of the transformer.
    """

    latents: tuple[int, ...]
    text_width: int
    rewards: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    patch: int = 2
    width: int = 64
    layers: int = 3
    heads: int = 4


class ValueNetwork(nn.Module):
    """A transformer over tokens of latents and of the prompt, read out at a token of the timestep."""

    def __init__(self, shape: ValueShape) -> None:
        super().__init__()
        self.shape = shape
        channels, height, width = shape.latents
        places = (height // shape.patch) * (width // shape.patch)
        self.latents = nn.Conv2d(channels, shape.width, shape.patch, stride=shape.patch)
        self.place = nn.Parameter(0.02 * torch.randn(places, shape.width))
        self.text = nn.Sequential(nn.LayerNorm(shape.text_width), nn.Linear(shape.text_width, shape.width))
        self.time = nn.Sequential(
            nn.Linear(shape.width, shape.width), nn.SiLU(), nn.Linear(shape.width, shape.width)
        )
        self.layers = nn.ModuleList(Layer(shape.width, shape.heads) for _ in range(shape.layers))
        self.out = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, len(shape.rewards)))

    def forward(self, z: Tensor, fraction: Tensor, text: Tensor) -> Tensor:
        """(P, R) values in deviations from each reward's mean.

        Args:
            z: noisy latents (P, C, h, w).
            fraction: (P,) their t over the number of training timesteps, in [0, 1).
            text: (P, L, text_width) token embeddings of the prompts.
        """
        time = self.time(waves(fraction, self.shape.width))[:, None]
        seen = self.latents(z).flatten(2).transpose(1, 2) + self.place + time
        tokens = torch.cat([time, seen, self.text(text)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        found: Tensor = self.out(tokens[:, 0])
        return found


class Layer(nn.Module):
    """Self-attention and a perceptron, each on normalised tokens and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        tokens = tokens + self.merge(mixed.transpose(1, 2).flatten(2))
        more: Tensor = self.mlp(self.norm2(tokens))
        return tokens + more


def waves(fraction: Tensor, width: int) -> Tensor:
    """(P, width) sines and cosines of 1000 t/T at frequencies from 1 to 1/10000."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(width // 2, device=fraction.device) / (width // 2))
    angles = 1000 * fraction[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def save_value_network(network: ValueNetwork, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write a network in half precision, with its sizes and what else is worth telling."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**asdict(network.shape), **({"facts": facts} if facts else {})}
    (folder / CONFIG).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)


def read_shape(folder: Path) -> ValueShape:
    """The sizes of the network in a folder.

    Raises:
        MissingWeights: there is no such file.
        WrongWeights: it holds something else.
    """
    content = read_json(folder / CONFIG)
    names = [field.name for field in fields(ValueShape) if field.name in content]
    try:
        given = {name: content[name] for name in names}
        known: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in given.items()
        }
        shape = ValueShape(**known)
        if not len(shape.rewards) == len(shape.mean) == len(shape.deviation) > 0 or len(shape.latents) != 3:
            raise ValueError("its numbers do not belong together")
    except (TypeError, ValueError) as error:
        raise WrongWeights(f"{folder / CONFIG} is not of a value network: {error}") from None
    return shape


def load_value_network(folder: Path, device: torch.device) -> ValueNetwork:
    """The network in a folder, frozen, in float32.

    Raises:
        MissingWeights, WrongWeights: a file is not there, or holds something else.
    """
    shape = read_shape(folder)
    network = build(lambda: ValueNetwork(shape))
    path, _ = weights_of(folder, WEIGHTS)
    return fill(network, read_tensors(path), path).to(device)
