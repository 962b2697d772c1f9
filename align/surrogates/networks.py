"""Affine networks of several layers, one or several beside each other, and how they are fitted.

The form is that of the LAION head and of SEIKO's surrogates (arXiv 2402.16359): linear maps without activations, of which the
last but one's output h is what the bonus of ``ucb`` is computed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.surrogates.draws import Draws

Layers = Sequence[Tensor]
"""Weights (H, out, in) and biases (H, 1, out) of each layer in turn, of H networks."""


def hidden(layers: Layers, features: Tensor) -> Tensor:
    """(H, n, width) outputs of the last layer but one, of features (n, d), or (H, n, d) where each network has its own."""
    out = features if features.ndim == 3 else features.expand(len(layers[0]), *features.shape)
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        out = torch.baddbmm(bias, out, weight.transpose(1, 2))
    return out


def values(layers: Layers, features: Tensor) -> Tensor:
    """(H, n) values, likewise."""
    return last(layers, hidden(layers, features))


def last(layers: Layers, found: Tensor) -> Tensor:
    """(H, n) values of hidden outputs (H, n, width)."""
    return torch.baddbmm(layers[-1], found, layers[-2].transpose(1, 2))[..., 0]


@dataclass(frozen=True)
class Fitted:
    """Networks that were fitted, mean losses (epochs, batches), held-out mean absolute errors (epochs,), epoch of the weights."""

    layers: list[Tensor]
    losses: list[list[float]]
    errors: list[float]
    epoch: int


@dataclass(frozen=True)
class Fit:
    """Adam on the squared error, and the weights of the epoch with the least held-out error."""

    epochs: int = 3000
    batch: int = 512
    rate: float = 1e-3
    held_out: float = 0.1
    gradient_noise: float = 0.0
    """s: normal numbers times s sqrt(rate / batch) are added to every gradient, as SEIKO's Thompson-like variant does."""

    def __call__(self, layers: Layers, features: Tensor, targets: Tensor, draws: Draws) -> Fitted:
        """Fit networks to features (n, d) and targets (n,); each of several learns from rows of its own."""
        rows, held_out = self.split(draws, len(features))
        heads = len(layers[0])
        places = draws.resampled(heads, len(rows)) if heads > 1 else torch.arange(len(rows))[None]
        judged = self.judged(draws, heads, len(held_out))
        live = [one.detach().clone().requires_grad_() for one in layers]
        adam = torch.optim.Adam(live, lr=self.rate)
        best, epoch_of_best, step = live, 0, 0
        errors: list[float] = []
        losses: list[list[float]] = []
        for epoch in range(self.epochs):
            losses.append([])
            for part in torch.split(draws.order(epoch, len(rows)), self.batch):
                taken = rows[places[:, part]]
                found = self.training_values(live, features[taken], epoch, step, draws)
                loss = (found - targets[taken]).square().mean()
                gradients = torch.autograd.grad(loss, live)
                if self.gradient_noise:
                    size = self.gradient_noise * (self.rate / self.batch) ** 0.5
                    drawn = draws.gradient_noise(step, live)
                    gradients = tuple(g + size * d for g, d in zip(gradients, drawn, strict=True))
                for one, gradient in zip(live, gradients, strict=True):
                    one.grad = gradient
                adam.step()
                losses[-1].append(loss.item())
                step += 1
            with torch.no_grad():
                taken = held_out[judged]
                errors.append((values(live, features[taken]) - targets[taken]).abs().mean().item())
            if self.better(errors):
                best, epoch_of_best = [one.detach().clone() for one in live], epoch
        return Fitted([one.detach() for one in best], losses, errors, epoch_of_best)

    def split(self, draws: Draws, rows: int) -> tuple[Tensor, Tensor]:
        return draws.split(rows, self.held_out)

    def judged(self, draws: Draws, heads: int, rows: int) -> Tensor:
        """(heads, rows) places among the held-out rows that each network is judged by."""
        return torch.arange(rows).expand(heads, rows)

    def better(self, errors: Sequence[float]) -> bool:
        """Whether the last epoch's weights are kept."""
        return errors[-1] <= min(errors)

    def training_values(
        self, layers: Layers, features: Tensor, epoch: int, step: int, draws: Draws
    ) -> Tensor:
        """(H, n) values of a batch (H, n, d) that is learned from."""
        return values(layers, features)


def bonus(found: Tensor, root: Tensor, size: float, limit: float) -> Tensor:
    """(n,) ``min(size |root h|, limit)`` of rows h (n, k), see ``root_of``."""
    length = (found @ root.T).square().sum(-1).clamp(min=1e-20).sqrt()
    return (size * length).clamp(max=limit)


def root_of(found: Tensor, ridge: float, rule: str) -> Tensor:
    """(k, k) root R of the inverse R'R of what rows h (n, k) of all data say, so that |R h| is how little they say of h.

    ``gram``: of sum h h' + ridge I, so that what was asked about more counts as known better; ``covariance``: of h's own, centred,
    which stays as it is however much was asked (the released one).
    """
    rows = found.double()
    width = rows.shape[1]
    known = rows.T @ rows if rule == "gram" else torch.cov(rows.T).reshape(width, width)
    lower = torch.linalg.cholesky(known + ridge * torch.eye(width, dtype=torch.float64))
    unit = torch.eye(width, dtype=torch.float64)
    root: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False)
    return root.float().contiguous()
