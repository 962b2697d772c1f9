"""A surrogate: fitted layers, how sure they are, and where their features begin; as a file of safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from align import writing
from align.errors import WrongWeights
from align.surrogates.draws import Draws
from align.surrogates.frame import Asked, Frame, framed
from align.surrogates.networks import Fit, Layers, bonus, hidden, last, root_of

KEY = "align"
"""Of a file's only entry of metadata: several would be written in any order, and equal surrogates shall be equal files."""


@dataclass(frozen=True)
class Surrogate:
    """Values of unit image features.

    Attributes:
        layers: see ``networks``; a single layer is a linear function, whose h are the features themselves.
        frame: where features begin.
        root: (k, k), see ``networks.root_of``; None for no bonus.
        size, limit: of the bonus.
        optimistic: the largest of several networks and the bonus; without it their mean alone.
        features: name of the features.
        released: whether pictures are shown to it as by the release.
    """

    layers: Layers
    frame: Frame
    features: str
    root: Tensor | None = None
    size: float = 0.0
    limit: float = 0.0
    optimistic: bool = True
    released: bool = False

    def __call__(self, features: Tensor, prompts: Sequence[str]) -> Tensor:
        """(P,) values of unit features (P, d) of pictures of P prompts."""
        layers = [one.to(features.device) for one in self.layers]
        found = hidden(layers, self.frame(features, prompts))
        heads = last(layers, found)
        if not self.optimistic:
            return heads.mean(0)
        if self.root is None:
            return heads.max(0).values
        return heads[0] + bonus(found[0], self.root.to(features.device), self.size, self.limit)

    def plain(self) -> Surrogate:
        """Without optimism: what is expected."""
        return replace(self, optimistic=False)

    def save(self, path: Path, **more: Any) -> None:
        """Write it, and ``more`` plain values that its metadata shall hold. Raises OSError."""
        names = ("weight", "bias")
        tensors = {f"layers.{k // 2}.{names[k % 2]}": one.contiguous() for k, one in enumerate(self.layers)}
        tensors |= {"frame.centre": self.frame.centre, "frame.centres": self.frame.centres}
        if self.root is not None:
            tensors["root"] = self.root.contiguous()
        facts = {name: getattr(self, name) for name in _FACTS}
        told = {**facts, "scale": self.frame.scale, "prompts": self.frame.prompts, **more}
        writing.write_bytes(path, save(tensors, {KEY: json.dumps(told, sort_keys=True)}))


_FACTS = ("features", "size", "limit", "optimistic", "released")


def told_by(path: Path) -> dict[str, Any]:
    """The metadata of a surrogate's file, without its tensors. Raises WrongWeights: it is none."""
    try:
        with safe_open(path, "numpy") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
        return told
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WrongWeights(f"{path} is no surrogate that python -m align online saved") from error


def read_surrogate(path: Path) -> Surrogate:
    """A saved surrogate. Raises WrongWeights."""
    told = told_by(path)
    tensors = load(path.read_bytes())
    number = sum(key.endswith(".weight") for key in tensors)
    layers = [tensors[f"layers.{k}.{name}"] for k in range(number) for name in ("weight", "bias")]
    frame = Frame(tensors["frame.centre"], tensors["frame.centres"], tuple(told["prompts"]), told["scale"])
    return Surrogate(layers, frame, root=tensors.get("root"), **{name: told[name] for name in _FACTS})


def fit_ridge(
    asked: Asked, features: str, *, centre: str, scale: str, a: float, limit: float, ridge: float | None
) -> Surrogate:
    """The linear function of least squares with a penalty ``ridge |w|^2``, and the deviation of its posterior as a bonus.

    By default the penalty that leaves each row out best.
    """
    frame, rows, values = framed(asked, centre, scale)
    x, y = rows.double(), values.double()
    left, size, right = torch.linalg.svd(x, full_matrices=False)
    ridges = (
        size.max().square().clamp(min=1e-12) * torch.logspace(-5, 1, 25, dtype=torch.float64)
        if ridge is None
        else [ridge]
    )
    errors = [_left_out(left, size, y, float(one)) for one in ridges]
    best = min(range(len(errors)), key=errors.__getitem__)
    chosen = float(ridges[best])
    weight = right.T @ (size / (size**2 + chosen) * (left.T @ y))
    layers = [weight.float()[None, None], torch.zeros(1, 1, 1)]
    root = root_of(x, chosen, "gram")
    return Surrogate(layers, frame, features, root, a * errors[best] ** 0.5, limit)


def _left_out(left: Tensor, size: Tensor, y: Tensor, ridge: float) -> float:
    """Mean squared error of each row by all others, of a ridge regression with the singular value decomposition of its rows."""
    kept = size**2 / (size**2 + ridge)
    own = (left**2 * kept).sum(1).clamp(max=1 - 1e-9)
    return float((((y - left @ (kept * (left.T @ y))) / (1 - own)) ** 2).mean())


def fit_networks(
    asked: Asked,
    features: str,
    fit: Fit,
    start: Layers,
    draws: Draws,
    *,
    centre: str,
    scale: str,
    rule: str | None,
    a: float,
    limit: float,
    ridge: float,
    released: bool = False,
) -> Surrogate:
    """Networks fitted from their ``start``; with a ``rule`` of ``root_of`` the first has a bonus."""
    frame, rows, values = framed(asked, centre, scale)
    layers = fit(start, rows, values, draws).layers
    root = None if rule is None else root_of(hidden(layers, rows)[0], ridge, rule)
    return Surrogate(layers, frame, features, root, a, limit, released=released)
