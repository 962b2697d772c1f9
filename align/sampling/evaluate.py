"""Evaluating particles: network, and only if a weight needs it maps, decoder, reward and gradient.

Gradients are staged: first d reward / d picture, then that vector through the decoder, then through the
network together with the semantic loss.  Each stage frees its graph before the one below is walked back; a graph waits
while those above it are worked on, so the peak, at the reward, is the sum of the three stages' activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.processes.ddim import Step
from align.rewards.base import Reward
from align.sampling.batching import chunks
from align.sampling.ledger import Ledger
from align.sampling.objective import Objective, Terms
from align.sampling.state import Estimate, State
from align.semantics.attention_loss import semantic_loss

Need = Literal["prediction", "value", "gradient"]
"""What is wanted of an evaluation; each includes those before it."""


@dataclass(frozen=True)
class Pictures:
    """What is known of the pictures of a batch, by picture number.

    Attributes:
        prompts: n texts.
        conditioning: embeddings, n rows.
        pair_weights: (n, L, L) of :func:`align.semantics.attention_loss.pair_weights`.
        has_pairs: (n,) bool.
    """

    prompts: Sequence[str]
    conditioning: Conditioning
    pair_weights: Tensor
    has_pairs: Tensor


class Evaluator:
    """Turns particles into estimates.

    Args:
        backbone: the frozen model.
        guidance_scale: of classifier-free guidance.
        batch_size: rows of every call, padded to exactly this many.
        objective: what to differentiate; ``None`` for plain predictions.
        reward: of the preference loss; needed when the objective weighs it.
    """

    def __init__(
        self,
        backbone: Backbone,
        guidance_scale: float,
        batch_size: int,
        objective: Objective | None = None,
        reward: Reward | None = None,
    ) -> None:
        self.backbone = backbone
        self.guidance_scale = guidance_scale
        self.batch_size = batch_size
        self.objective = objective
        self.reward = reward

    def __call__(
        self, state: State, pictures: Pictures, step: Step, ledger: Ledger, need: Need = "gradient"
    ) -> Estimate:
        """Evaluate all particles of a state at a step: no more than is needed."""
        number = len(state.z)
        judged = torch.zeros(number, dtype=torch.bool)
        terms = Terms(0, False, False)
        if self.objective is not None and need != "prediction":
            terms = self.objective.terms(step)
            if terms.preference:
                judged[:] = True
            elif terms.semantic:
                judged = pictures.has_pairs[state.picture.cpu()]
        gradient = need == "gradient"
        parts, order = [], []
        # Apart, so that a particle's arithmetic never depends on whether another one is judged.
        for rows, judge in ((torch.nonzero(~judged)[:, 0], False), (torch.nonzero(judged)[:, 0], True)):
            for chunk in chunks(len(rows), self.batch_size):
                some = rows[chunk.rows]
                part = state.take(some)
                if judge:
                    estimate = self._judged(part, pictures, step, terms, gradient)
                else:
                    estimate = self._plain(part, pictures, step)
                real = torch.arange(chunk.real)
                parts.append(estimate.take(real))
                order.append(some[: chunk.real])
                self._charge(part.picture[: chunk.real].tolist(), ledger, terms if judge else None, gradient)
        return Estimate.join(parts).take(torch.argsort(torch.cat(order)))

    def _charge(self, rows: list[int], ledger: Ledger, terms: Terms | None, gradient: bool) -> None:
        used = ["network"]
        if terms is not None and terms.preference:
            used += ["decoder", "reward"]
        for what in used:
            ledger.charge(rows, f"{what}_forward")
            if terms is not None and gradient:
                ledger.charge(rows, f"{what}_backward")

    @torch.no_grad()
    def _plain(self, state: State, pictures: Pictures, step: Step) -> Estimate:
        prediction = self.backbone.predict(
            state.z, step, pictures.conditioning.take(state.picture), self.guidance_scale
        )
        number = len(state.z)
        return Estimate(
            eps=prediction.eps,
            x0=prediction.x0,
            correction=prediction.correction,
            gradient=torch.zeros_like(state.z),
            gradient_norm=torch.zeros(number, device=state.z.device),
            value=torch.full((number,), torch.nan, device=state.z.device),
            finite=torch.ones(number, dtype=torch.bool, device=state.z.device),
        )

    def _judged(
        self, state: State, pictures: Pictures, step: Step, terms: Terms, differentiate: bool
    ) -> Estimate:
        assert self.objective is not None
        z = state.z.detach().requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            prediction = self.backbone.predict(
                z,
                step,
                pictures.conditioning.take(state.picture),
                self.guidance_scale,
                attention=self.objective.attention_half if terms.semantic else None,
            )
            weight_a, weight_r = self.objective.weights(terms, prediction.x0, state.previous_x0)
            total = torch.zeros(len(z), device=z.device)
            # ``surrogate`` has the total loss's gradient although decoder and reward are not in its graph:
            # their part is the inner product of x0 with the (constant) gradient that came through them.
            surrogate = total
            if terms.semantic:
                assert prediction.attention is not None
                loss_a = semantic_loss(prediction.attention, pictures.pair_weights[state.picture])
                total = total + (weight_a * loss_a).detach()
                surrogate = surrogate + weight_a * loss_a
            if terms.preference:
                prompts = [pictures.prompts[k] for k in state.picture.tolist()]
                loss_r, through = self.preference(prediction.x0.detach(), prompts, step, differentiate)
                total = total + (weight_r * loss_r).detach()
                pulled = (through * prediction.x0).flatten(1).sum(dim=1)
                surrogate = surrogate + weight_r * loss_r + weight_r.detach() * pulled
            gradient = torch.autograd.grad(surrogate.sum(), z)[0] if differentiate else torch.zeros_like(z)
        norm = gradient.float().flatten(1).norm(dim=1)
        finite = torch.isfinite(norm)
        if differentiate:  # A broken value can have a finite gradient, which means nothing.
            finite &= torch.isfinite(total)
        keep = finite.view(-1, 1, 1, 1)
        return Estimate(
            eps=prediction.eps.detach(),
            x0=prediction.x0.detach(),
            correction=prediction.correction.detach(),
            gradient=torch.where(keep, gradient, torch.zeros_like(gradient)),
            gradient_norm=torch.where(finite, norm, torch.zeros_like(norm)),
            value=-total.detach(),
            finite=finite,
        )

    def preference(
        self, x0: Tensor, prompts: Sequence[str], step: Step, differentiate: bool
    ) -> tuple[Tensor, Tensor]:
        """L_R and its gradient with respect to clean latents, reward first, then decoder.

        Args:
            x0: predicted clean latents (P, C, h, w), without a graph.
            prompts: P texts.
            step: for rewards that take the timestep.
            differentiate: whether the gradient is wanted; zero otherwise.

        Returns:
            (P,) losses and (P, C, h, w) gradients, both without a graph.
        """
        assert self.objective is not None
        assert self.reward is not None
        with torch.set_grad_enabled(differentiate):
            leaf = x0.requires_grad_(differentiate)
            decoded = self.backbone.decode(leaf)
            picture = decoded.detach().requires_grad_(differentiate)
            times = torch.full((len(x0),), step.t, device=x0.device)
            scores = self.reward.score(picture, list(prompts), times if self.reward.takes_timestep else None)
            loss = self.objective.preference_loss(scores)
            if not differentiate:
                return loss, torch.zeros_like(leaf)
            (by_picture,) = torch.autograd.grad(loss.sum(), picture)
            (by_latents,) = torch.autograd.grad(decoded, leaf, by_picture)
        return loss.detach(), by_latents
