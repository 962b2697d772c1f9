"""Evaluating particles: network, and only if a weight needs it maps, decoder, reward and gradient.

Gradients are staged: first d reward / d picture, then that vector through the decoder, then through the
network together with the semantic loss.  Each stage frees its graph before the one below is walked back; a graph waits
while those above it are worked on, so the peak, at the reward, is the sum of the three stages' activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.processes.base import Step
from align.rewards.base import Reward
from align.sampling.batching import chunks
from align.sampling.guidance import CleanGuidance
from align.sampling.ledger import Ledger
from align.sampling.noise import Draws
from align.sampling.objective import Objective, Terms
from align.sampling.preference import PreferenceLoss
from align.sampling.state import Estimate, State
from align.sampling.values import Value
from align.sampling.views import ViewDraws
from align.semantics.attention_loss import semantic_loss

Need = Literal["value", "prediction", "loss", "clean_gradient", "gradient"]
"""What is wanted of an evaluation; each includes those before it.  ``value`` calls no network, which a value of noisy latents
alone allows: predictions are NaN.  ``clean_gradient`` stops at x0: the network is not differentiated."""


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
        clean: how clean predictions are moved, if they are.
        views_together: altered copies that are scored in one call beside each other; ``None`` for all.
        guidance_rescale: of classifier-free guidance.
        value: how the expected reward is estimated, where it is asked for.
        correction: whether anything reads the classifier-free correction of predictions.
    """

    def __init__(
        self,
        backbone: Backbone,
        guidance_scale: float,
        batch_size: int,
        objective: Objective | None = None,
        reward: Reward | None = None,
        clean: CleanGuidance | None = None,
        views_together: int | None = None,
        guidance_rescale: float = 0.0,
        value: Value | None = None,
        correction: bool = True,
    ) -> None:
        self.backbone = backbone
        self.correction = correction
        self.value = value
        self.guidance_scale = guidance_scale
        self.guidance_rescale = guidance_rescale
        self.batch_size = batch_size
        self.objective = objective
        self.clean = clean
        self.preference: PreferenceLoss | None = None
        if objective is not None and reward is not None:
            self.preference = PreferenceLoss(backbone, reward, objective, views_together)

    def __call__(
        self,
        state: State,
        pictures: Pictures,
        step: Step,
        ledger: Ledger,
        need: Need = "gradient",
        draws: Draws | None = None,
        valued: Tensor | bool = False,
    ) -> Estimate:
        """Evaluate all particles of a state at a step: no more than is needed.

        Args:
            state: P particles.
            pictures: what is known of their pictures.
            step: where in the process.
            ledger: where calls are charged.
            need: what is wanted of the objective.
            draws: random numbers of the particles; needed for altered copies and for values.
            valued: whose expected reward is wanted too, (P,) bool or all or none.
        """
        number = len(state.z)
        shown: ViewDraws | None = None
        judged = torch.zeros(number, dtype=torch.bool)
        terms = Terms(0, False, False)
        if self.objective is not None and need not in ("value", "prediction"):
            terms = self.objective.terms(step)
            if terms.preference:
                judged[:] = True
            elif terms.semantic:
                judged = pictures.has_pairs[state.picture.cpu()]
            if terms.preference and self.objective.copies:
                assert draws is not None
                shown = ViewDraws.of(draws.uniform, self.objective.copies)
        value = torch.as_tensor(valued).cpu().expand(number)
        parts, order = [], []
        # Apart, so that a particle's arithmetic never depends on whether another one is judged.
        for kind, judge in ((~judged, False), (judged, True)):
            for wanted in (False, True):
                rows = torch.nonzero(kind & (value == wanted))[:, 0]
                for chunk in chunks(len(rows), self.batch_size):
                    some = rows[chunk.rows]
                    part = state.take(some)
                    if judge:
                        views = shown.take(some) if shown is not None else None
                        estimate = self._judged(part, pictures, step, terms, need, views)
                    elif need == "value":
                        estimate = _undifferentiated(*[torch.full_like(part.z, torch.nan)] * 3)
                    else:
                        estimate = self._plain(part, pictures, step)
                    if wanted:
                        assert draws is not None
                        estimate = self._valued(
                            part, estimate, pictures, step, draws.take(some), judge and terms.preference
                        )
                    real = torch.arange(chunk.real)
                    parts.append(estimate.take(real))
                    order.append(some[: chunk.real])
                    told = part.picture[: chunk.real].tolist()
                    self._charge(told, ledger, terms if judge else None, need, valued=wanted)
        return Estimate.join(parts).take(torch.argsort(torch.cat(order)))

    def _charge(
        self, rows: list[int], ledger: Ledger, terms: Terms | None, need: Need, *, valued: bool
    ) -> None:
        if need != "value":
            ledger.charge(rows, "network_forward")
        preference = terms is not None and terms.preference
        if valued and self.value is not None and not (preference and self._scored):
            for what, each in self.value.costs.items():
                ledger.charge(rows, what, each)
        if terms is None:
            return
        if need == "gradient":
            ledger.charge(rows, "network_backward")
        if not preference:
            return
        assert self.objective is not None
        times = self.clean.iterations if self.clean is not None else 1
        for what, each in (("decoder", 1), ("reward", 1 + self.objective.copies)):
            ledger.charge(rows, f"{what}_forward", times * each)
            if need in ("clean_gradient", "gradient"):
                ledger.charge(rows, f"{what}_backward", times * each)

    @property
    def _scored(self) -> bool:
        """Whether a preference loss scores just what a value would."""
        assert self.value is not None
        assert self.objective is not None
        return self.value.of_prediction and self.objective.clamp

    def _valued(
        self,
        state: State,
        estimate: Estimate,
        pictures: Pictures,
        step: Step,
        draws: Draws,
        scored: bool,
    ) -> Estimate:
        """With the expected reward, unless the loss has scored the very same picture."""
        assert self.value is not None
        if scored and self._scored:
            return estimate
        prompts = [pictures.prompts[k] for k in state.picture.tolist()]
        conditioning = pictures.conditioning.take(state.picture)
        value = self.value(state.z, estimate.x0, prompts, conditioning, step, draws)
        return replace(estimate, value=value.to(estimate.value))

    @torch.no_grad()
    def _plain(self, state: State, pictures: Pictures, step: Step) -> Estimate:
        prediction = self.backbone.predict(
            state.z,
            step,
            pictures.conditioning.take(state.picture),
            self.guidance_scale,
            guidance_rescale=self.guidance_rescale,
            correction=self.correction,
        )
        return _undifferentiated(prediction.eps, prediction.x0, prediction.correction)

    def _judged(
        self,
        state: State,
        pictures: Pictures,
        step: Step,
        terms: Terms,
        need: Need,
        draws: ViewDraws | None,
    ) -> Estimate:
        assert self.objective is not None
        walk = need == "gradient"
        pair_weights = pictures.pair_weights[state.picture]
        z = state.z.detach().requires_grad_(walk)
        through = torch.zeros_like(z)
        with torch.set_grad_enabled(walk):
            prediction = self.backbone.predict(
                z,
                step,
                pictures.conditioning.take(state.picture),
                self.guidance_scale,
                attention=self.objective.attention_half if terms.semantic else None,
                guidance_rescale=self.guidance_rescale,
                correction=self.correction,
            )
            weight_a, weight_r = self.objective.weights(terms, prediction.x0, state.previous_x0)
            total = torch.zeros(len(z), device=z.device)
            value = torch.full_like(total, torch.nan)
            # ``surrogate`` has the total loss's gradient although decoder and reward are not in its graph:
            # their part is the inner product of x0 with the (constant) gradient that came through them.
            surrogate = total
            if terms.semantic:
                assert prediction.attention is not None
                loss_a = semantic_loss(prediction.attention, pair_weights)
                total = total + (weight_a * loss_a).detach()
                surrogate = surrogate + weight_a * loss_a
            if terms.preference:
                assert self.preference is not None
                prompts = [pictures.prompts[k] for k in state.picture.tolist()]
                slope = need in ("clean_gradient", "gradient")
                loss_r, through, value = self.preference(prediction.x0.detach(), prompts, step, slope, draws)
                total = total + (weight_r * loss_r).detach()
                pulled = (through * prediction.x0).flatten(1).sum(dim=1)
                surrogate = surrogate + weight_r * loss_r + weight_r.detach() * pulled
            gradient = torch.autograd.grad(surrogate.sum(), z)[0] if walk else torch.zeros_like(z)
        estimate = Estimate(
            eps=prediction.eps.detach(),
            x0=prediction.x0.detach(),
            correction=prediction.correction.detach(),
            gradient=gradient,
            gradient_norm=(gradient if walk else through).float().flatten(1).norm(dim=1),
            clean_shift=torch.zeros_like(z),
            loss=total.detach(),
            value=value,
            finite=torch.ones(len(z), dtype=torch.bool, device=z.device),
        )
        if self.clean is not None and terms.preference and need != "loss":
            shift = self._descend(self.clean, estimate, through, prompts, step, draws)
            estimate = replace(estimate, clean_shift=shift)
        return _without_nonfinite(estimate, differentiated=need != "loss")

    def _descend(
        self,
        clean: CleanGuidance,
        estimate: Estimate,
        through: Tensor,
        prompts: Sequence[str],
        step: Step,
        draws: ViewDraws | None,
    ) -> Tensor:
        """How far x0 moves, (P, C, h, w); the first gradient is there already."""
        assert self.preference is not None
        moved = clean.step(through, estimate)
        for _ in range(clean.iterations - 1):
            _, through, _ = self.preference(estimate.x0 + moved, prompts, step, True, draws)
            moved = moved + clean.step(through, estimate)
        return moved


def _undifferentiated(eps: Tensor, x0: Tensor, correction: Tensor) -> Estimate:
    """Predictions (P, C, h, w) alone."""
    number, device = len(eps), eps.device
    return Estimate(
        eps=eps,
        x0=x0,
        correction=correction,
        gradient=torch.zeros_like(eps),
        gradient_norm=torch.zeros(number, device=device),
        clean_shift=torch.zeros_like(eps),
        loss=torch.full((number,), torch.nan, device=device),
        value=torch.full((number,), torch.nan, device=device),
        finite=torch.ones(number, dtype=torch.bool, device=device),
    )


def _without_nonfinite(estimate: Estimate, *, differentiated: bool) -> Estimate:
    """Rows whose gradients, or with them their loss, are not finite are marked, and not guided."""
    finite = torch.isfinite(estimate.gradient_norm) & torch.isfinite(estimate.clean_shift).flatten(1).all(
        dim=1
    )
    if differentiated:  # A broken loss can have a finite gradient, which means nothing.
        finite &= torch.isfinite(estimate.loss)
    keep = finite.view(-1, 1, 1, 1)
    return replace(
        estimate,
        gradient=torch.where(keep, estimate.gradient, torch.zeros_like(estimate.gradient)),
        gradient_norm=torch.where(finite, estimate.gradient_norm, torch.zeros_like(estimate.gradient_norm)),
        clean_shift=torch.where(keep, estimate.clean_shift, torch.zeros_like(estimate.clean_shift)),
        finite=finite,
    )
