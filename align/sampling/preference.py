"""The preference loss of predicted clean latents: decoder, altered views, reward; and its gradient, staged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from align.backbones.base import Backbone
from align.processes.base import Step
from align.rewards.base import Reward
from align.sampling.objective import Objective
from align.sampling.views import ViewDraws, views


class PreferenceLoss:
    """L_R of an objective.

    Args:
        backbone: whose decoder makes pictures.
        reward: what judges them.
        objective: how scores become a loss, and how many views there are.
        views_together: altered copies scored in one call beside each other; ``None`` for all.
    """

    def __init__(
        self, backbone: Backbone, reward: Reward, objective: Objective, views_together: int | None = None
    ) -> None:
        self.backbone = backbone
        self.reward = reward
        self.objective = objective
        self.views_together = views_together

    def __call__(
        self,
        x0: Tensor,
        prompts: Sequence[str],
        step: Step,
        differentiate: bool,
        draws: ViewDraws | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss and its gradient with respect to clean latents, reward first, then decoder.

        Copies are scored in parts whose gradients add up, so memory does not grow with their number.

        Args:
            x0: predicted clean latents (P, C, h, w), without a graph.
            prompts: P texts.
            step: for rewards that take the timestep.
            differentiate: whether the gradient is wanted; zero otherwise.
            draws: of the altered copies that are scored too.

        Returns:
            (P,) losses, (P, C, h, w) gradients and the (P,) scores of the unaltered pictures, all without a graph.
        """
        number = len(x0)
        times = torch.full((number,), int(step.time), device=x0.device)
        with torch.set_grad_enabled(differentiate):
            leaf = x0.detach().requires_grad_(differentiate)
            decoded = self.backbone.decode(leaf)
            picture = decoded.detach().requires_grad_(differentiate)
            scores = torch.empty(0)
            total = torch.zeros(number, device=x0.device)
            by_picture = torch.zeros_like(picture)
            for shown in self._shown(picture, draws):
                seen = self._scores(shown, prompts, times)
                if not len(scores):
                    scores = seen[:, 0].detach()
                losses = self.objective.view_losses(seen).sum(dim=1)
                if differentiate:
                    by_picture = by_picture + torch.autograd.grad(losses.sum(), picture)[0]
                total = total + losses.detach()
            loss, slope = self.objective.over_views(total, 1 + self.objective.copies)
            if not differentiate:
                return loss, torch.zeros_like(leaf), scores
            (by_latents,) = torch.autograd.grad(decoded, leaf, slope.view(-1, 1, 1, 1) * by_picture)
        return loss, by_latents, scores

    def _shown(self, picture: Tensor, draws: ViewDraws | None) -> Iterator[Tensor]:
        """The picture (P, 3, H, W) and its altered copies, some at a time: (P, v, 3, H, W)."""
        if draws is None:
            yield self._seen(picture)[:, None]
            return
        number = draws.row.shape[1]
        together = self.views_together or 1 + number
        for first in range(0, 1 + number, together):
            copies = slice(max(first - 1, 0), first + together - 1)
            seen = self._seen(picture)  # anew, as the way back through a part frees its graph
            parts = [seen[:, None]] if first == 0 else []
            if copies.start < copies.stop:
                parts.append(views(seen, draws.copies(copies)))
            yield torch.cat(parts, dim=1)

    def _seen(self, picture: Tensor) -> Tensor:
        return picture.clamp(0, 1) if self.objective.clamp else picture

    def _scores(self, shown: Tensor, prompts: Sequence[str], times: Tensor) -> Tensor:
        """(P, v) scores of (P, v, 3, H, W) pictures, those of a row for the row's prompt and timestep."""
        number = shown.shape[1]
        texts = [prompt for prompt in prompts for _ in range(number)]
        at = times.repeat_interleave(number) if self.reward.takes_timestep else None
        return self.reward.score(shown.flatten(0, 1), texts, at).view(-1, number)
