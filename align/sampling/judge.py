"""The pass from predictions to what they are worth: decoder, reward and maps; loss, gradient and value.

Gradients are staged.  Here the reward is differentiated by the picture, that vector is carried through the decoder, and what
comes out is the loss's gradient with respect to the *prediction* (x0 and attention maps), a constant; ``loop.py`` carries it
through the network to z.  Each stage frees its graph before the one below is walked back; a graph waits while those above
it are worked on, so the peak, at the reward, is the sum of the three stages' activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from align.backbones.base import Backbone, Prediction
from align.processes.base import Step
from align.rewards.base import Reward
from align.sampling.batching import Calls, Cut
from align.sampling.guidance import CleanGuidance
from align.sampling.host import send
from align.sampling.ledger import Ledger
from align.sampling.noise import Draws
from align.sampling.objective import Objective, Terms
from align.sampling.preference import picture_gradient, preference_loss, reward_gradient
from align.sampling.state import Estimate, Pictures, State, in_order, join, take
from align.sampling.values import Asked, Value
from align.sampling.views import ViewDraws
from align.semantics.attention_loss import semantic_loss

Scoring = Callable[[Tensor], Tensor]
"""From pictures to their rewards."""


@dataclass(frozen=True)
class Judgement:
    """What P predictions are worth; nothing holds a graph.

    Attributes:
        loss: (P,), the objective.
        value: (P,), the reward of the predicted picture; NaN where the preference has no part in the loss.
        by_x0: (P, ...), gradient of the loss with respect to x0, of the preference alone if nothing more is differentiated.
        by_attention: (P, R, R', L), with respect to the maps.  Either is ``None`` where the loss does not depend on it.
        clean_shift: (P, ...), how far clean guidance moves x0.
    """

    loss: Tensor
    value: Tensor
    by_x0: Tensor | None
    by_attention: Tensor | None
    clean_shift: Tensor


@dataclass(frozen=True)
class Judge:
    """The one holder of the reward, with all that reads it.

    Attributes:
        calls: how rows are cut into calls of the decoder and the reward.
        reward: of the objective, of values and of finished pictures, where something reads one.
        guide: of gradients, where that is another one.
        objective: what to differentiate; ``None`` for nothing.
        clean: how clean predictions are moved, if they are.
        value: how the expected reward of a particle is estimated, where it is asked for.
        views_together: altered copies that are scored in one call; ``None`` for all.
    """

    backbone: Backbone
    calls: Calls
    reward: Reward | None = None
    objective: Objective | None = None
    clean: CleanGuidance | None = None
    value: Value | None = None
    views_together: int | None = None
    guide: Reward | None = None

    def values_by_loss(self) -> bool:
        """Whether a preference loss scores just the picture that a value would."""
        assert self.objective is not None
        alike = self.value is not None and self.value.of_prediction and self.objective.clamp
        return alike and self.guide is None

    def __call__(
        self,
        prediction: Prediction,
        state: State,
        real: int,
        pictures: Pictures,
        step: Step,
        terms: Terms,
        draws: Draws,
        ledger: Ledger,
        *,
        differentiate: bool,
    ) -> Judgement:
        """The loss of one network call's predictions (P, ...), and its gradient with respect to them.

        Of the P rows the first ``real`` count, those behind fill the call up.  Unless the whole loss is ``differentiate``d
        there is the preference's gradient alone.
        """
        assert self.objective is not None
        number, shown = len(state.z), None
        if terms.preference and self.objective.copies:
            drawn = ViewDraws.of(draws.take(torch.arange(real)).uniform, self.objective.copies)
            shown = drawn.take(torch.arange(number).clamp(max=real - 1))
        parts = []
        for first in range(0, real, self.calls.most):
            rows = torch.arange(first, min(first + self.calls.most, number))
            some = state.take(rows)
            score = self._guiding(pictures.prompts_of(some), step.timestep, min(real - first, len(rows)))
            loss = partial(
                preference_loss,
                decode=self.backbone.decode,
                score=score,
                objective=self.objective,
                draws=None if shown is None else shown.take(rows),
                together=self.views_together,
                foreign=self._foreign,
            )
            weights = pictures.pair_weights[send(some.picture, pictures.pair_weights.device)]
            parts.append(
                self._losses(
                    take(prediction, rows), some.previous_x0, weights, step, terms, loss, differentiate
                )
            )
        if terms.preference:
            times = self.clean.iterations if self.clean is not None else 1
            for what, each in (("decoder", 1), ("reward", 1 + self.objective.copies)):
                for way in ("forward", "backward"):
                    ledger.charge(state.picture[:real].tolist(), f"{what}_{way}", times * each)
        judged = join(parts)  # without calls that would be padding alone
        return take(judged, torch.arange(number).clamp(max=len(judged.loss) - 1))

    def _losses(
        self,
        prediction: Prediction,
        previous: Tensor,
        pair_weights: Tensor,
        step: Step,
        terms: Terms,
        preference: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
        differentiate: bool,
    ) -> Judgement:
        assert self.objective is not None
        eps, correction = prediction.eps.detach(), prediction.correction.detach()
        leaves = [prediction.x0.detach().requires_grad_(differentiate)]
        if terms.semantic:
            assert prediction.attention is not None
            leaves.append(prediction.attention.detach().requires_grad_(differentiate))
        x0 = leaves[0]
        with torch.set_grad_enabled(differentiate):
            weight_a, weight_r = self.objective.weights(terms, x0, previous.detach())
            total = torch.zeros(len(x0), device=x0.device)
            value = torch.full_like(total, torch.nan)
            through = torch.zeros_like(x0)
            # ``surrogate`` has the total loss's gradient although decoder and reward are not in its graph:
            # their part is the inner product of x0 with the (constant) gradient that came through them.
            surrogate = total
            if terms.semantic:
                loss_a = semantic_loss(leaves[1], pair_weights)
                total = total + (weight_a * loss_a).detach()
                surrogate = surrogate + weight_a * loss_a
            if terms.preference:
                loss_r, through, value = preference(x0)
                total = total + (weight_r * loss_r).detach()
                pulled = (through * x0).flatten(1).sum(dim=1)
                surrogate = surrogate + weight_r * loss_r + weight_r.detach() * pulled
            whole = surrogate.sum()
        by_x0: Tensor | None = through
        by_attention: Tensor | None = None
        if differentiate:
            by_x0, *more = torch.autograd.grad(whole, leaves, allow_unused=True)
            by_attention = more[0] if more else None
        x0 = x0.detach()
        shift = torch.zeros_like(x0)
        if self.clean is not None and terms.preference:
            estimate = replace(Estimate.of(eps, x0, correction), loss=total)
            shift = self.clean.step(through, estimate, step)
            for _ in range(self.clean.iterations - 1):
                _, through, _ = preference(x0 + shift)
                shift = shift + self.clean.step(through, estimate, step)
        return Judgement(total, value, by_x0, by_attention, shift)

    def values(
        self,
        state: State,
        estimate: Estimate,
        pictures: Pictures,
        step: Step,
        draws: Draws,
        ledger: Ledger,
        cut: Cut,
    ) -> Tensor:
        """(P,) float32, the expected reward of all particles of a state, their predictions at hand."""
        assert self.value is not None
        parts = []
        for chunk in cut(state.group.tolist()):
            some, seen = state.take(chunk.rows), estimate.take(chunk.rows)
            texts = pictures.prompts_of(some)

            def score(shown: Tensor, time: int, texts: list[str] = texts, real: int = chunk.real) -> Tensor:
                return self._scoring(texts, time, real)(shown)

            asked = Asked(
                some.z,
                seen.x0,
                seen.eps,
                pictures.conditioning_of(some),
                step,
                draws.take(chunk.rows),
                score,
            )
            parts.append((chunk.rows[: chunk.real], self.value(asked)[: chunk.real].float()))
        for what, each in self.value.costs(step).items():
            ledger.charge(state.picture.tolist(), what, each)
        return in_order(parts)

    def decode(self, latents: Tensor, groups: Sequence[int], *, clamp: bool = True) -> Tensor:
        """Clean latents (P, ...), each of a group, to pictures (P, 3, H, W) in [0, 1], float32 on their device.

        Without ``clamp`` they are as the decoder has them, about [0, 1].
        """
        parts = []
        for chunk in self.calls(groups):
            decoded = self.backbone.decode(latents[send(chunk.rows, latents.device)])
            parts.append((chunk.rows[: chunk.real], decoded[: chunk.real]))
        pictures = in_order(parts)
        return pictures.clamp(0, 1).float() if clamp else pictures.float()

    def score(self, pictures: Tensor, prompts: Sequence[str], groups: Sequence[int]) -> Tensor:
        """(P,) float32 rewards of finished pictures (P, 3, H, W), each for its own prompt and of a group.

        Of what chooses by ranks (P, K); ``among`` tells what they come to in a choice.
        """
        parts = []
        for chunk in self.calls(groups):
            texts = [prompts[k] for k in chunk.rows.tolist()]
            shown = pictures[send(chunk.rows, pictures.device)]
            found = self._scoring(texts, 0, chunk.real)(shown)
            parts.append((chunk.rows[: chunk.real], found[: chunk.real].float()))
        return in_order(parts)

    def among(self, values: Tensor) -> Tensor:
        """(n,) what n scores are worth in a choice among them."""
        assert self.reward is not None
        return self.reward.among(values)

    def differentiate(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        groups: Sequence[int],
        slope: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finished pictures of clean latents (P, ...), their rewards (P,), and the gradient of minus the reward by the latents; what
        guides has a gradient in its place where that is another one.

        With ``slope`` the reward is not differentiated: from rows (n,), what they are decoded to and their rewards it makes what
        is carried through the decoder in place of the reward's gradient.
        """
        parts = []
        for chunk in self.calls(groups):
            texts = [prompts[k] for k in chunk.rows.tolist()]
            score = (
                self._guiding(texts, 0, chunk.real) if slope is None else self._scoring(texts, 0, chunk.real)
            )

            def judged(
                pictures: Tensor, score: Scoring = score, rows: Tensor = chunk.rows
            ) -> tuple[Tensor, Tensor]:
                if slope is None:
                    return reward_gradient(pictures, score, foreign=self._foreign)
                values = score(pictures.clamp(0, 1))
                return values, slope(rows, pictures, values)

            some = latents[send(chunk.rows, latents.device)]
            found = picture_gradient(some, self.backbone.decode, judged)
            parts.append((chunk.rows[: chunk.real], [one[: chunk.real] for one in found]))
        pictures, values, by_latents = (in_order([(rows, one[k]) for rows, one in parts]) for k in range(3))
        if self.guide is not None and slope is None:
            values = self.score(pictures, prompts, groups)
        return pictures, values.float(), by_latents

    @property
    def _foreign(self) -> bool:
        """Whether what gradients follow is a user's code."""
        followed = self.guide or self.reward
        return followed is not None and followed.foreign

    def _guiding(self, prompts: Sequence[str], time: int, real: int) -> Scoring:
        """``_scoring`` by what gradients follow."""
        judge = self if self.guide is None else replace(self, reward=self.guide)
        return judge._scoring(prompts, time, real)

    def _scoring(self, prompts: Sequence[str], time: int, real: int) -> Scoring:
        """What scores v pictures of each row, (P v, 3, H, W) one row after the other; the first ``real`` rows count."""
        reward = self.reward

        def score(shown: Tensor) -> Tensor:
            assert reward is not None
            each = len(shown) // len(prompts)
            texts = [prompt for prompt in prompts for _ in range(each)]
            times = torch.full((len(texts),), time, device=shown.device) if reward.takes_timestep else None
            return reward.score_rows(shown, texts, times, real * each)

        return score
