"""Diffusion-KTO (Li et al., arXiv 2404.04465): pictures that are liked or not, without pairs.

Of each, the implicit reward is how much better than the reference the network denoises it; people feel gains and losses against
a reference point, the policy's mean reward, by a utility that levels off.  Against the published program: the reference point is that
of a whole round and all processes, at the weights with which the round begins, where theirs is a mini-batch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from align.sampling.host import send
from align.sampling.noise import NoiseStream
from align.training.noised import Errors, Noised
from align.training.pairs import Pairs, Visit, visits
from align.training.ranks import Ranks

Utility = Literal["kahneman_tversky", "loss_averse", "risk_seeking"]


def utility(x: Tensor, kind: Utility) -> Tensor:
    """What a gain x is worth: sigmoid(x), ln sigmoid(x), or -ln sigmoid(-x)."""
    if kind == "kahneman_tversky":
        return x.sigmoid()
    return F.logsigmoid(x) if kind == "loss_averse" else -F.logsigmoid(-x)


def kto_loss(
    errors: Tensor,
    reference: Tensor,
    liked: Tensor,
    point: Tensor,
    beta: float,
    kind: Utility = "kahneman_tversky",
) -> Tensor:
    """1 - U(w beta [(e_ref - e) - point]) of each picture, from errors (n,), see ``Errors``; w = 1 where (n,) ``liked``, else -1.

    ``point`` is ``reference_point``'s.
    """
    sign = torch.where(liked, 1.0, -1.0)
    return 1 - utility(sign * beta * ((reference - errors) - point), kind)


def reference_point(gained: Tensor) -> Tensor:
    """The mean of (n,) implicit rewards e_ref - e as an estimate of a divergence: at least 0, without a gradient."""
    return gained.mean().clamp(min=0).detach()


@dataclass(frozen=True)
class Opinion(Noised):
    """One picture.

    Attributes:
        liked: whether it was preferred.
        point: the round's reference point.
    """

    liked: bool
    point: float


class Kto:
    """The lesson.

    Args:
        pairs: the data set; an example is one side of a pair.
        errors: of the policy and its reference.
        beta: how soon utilities level off.
        a_round: pictures of a round.
        seed: of the order of pairs and of the sides.
        liked: share of preferred pictures.
        kind: the utility.
    """

    def __init__(
        self,
        pairs: Pairs,
        errors: Errors,
        beta: float,
        a_round: int,
        seed: int,
        liked: float = 0.5,
        kind: Utility = "kahneman_tversky",
    ) -> None:
        self.pairs, self.errors = pairs, errors
        self.beta, self.a_round, self.seed = beta, a_round, seed
        self.liked, self.kind = liked, kind

    @torch.no_grad()
    def collect(self, round_: int, ranks: Ranks) -> Sequence[Opinion]:
        """The round's pictures, with the reference point of all of them."""
        first = round_ * self.a_round
        found = [
            self._opinion(visit)
            for visit in ranks.share(visits(len(self.pairs), first, first + self.a_round, self.seed))
        ]
        gained = [float(one.reference - self.errors(one).cpu()) for one in found]
        point = float(reference_point(torch.tensor(ranks.gather(gained))))
        return [replace(one, point=point) for one in found]

    def _opinion(self, visit: Visit) -> Opinion:
        pair = self.pairs[visit.number]
        side = float(NoiseStream(self.seed, pair.key, visit.epoch).uniform("side", 0, 0, (1,)))
        liked = side < self.liked
        key = f"{pair.key}\x1f{'liked' if liked else 'not liked'}"
        one = self.errors.drawn(key, pair, (pair.chosen if liked else pair.rejected,), visit)
        return Opinion(
            one.key,
            one.prompt,
            one.latents,
            one.noise,
            one.time,
            one.reference,
            liked,
            0.0,
            weight=one.weight,
        )

    def loss(self, examples: Sequence[Opinion]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """``kto_loss``; ``gained_liked`` and ``gained_other`` are its parts' implicit rewards before beta, over all examples."""
        errors = torch.cat([self.errors(one) for one in examples])
        reference = send(torch.cat([one.reference for one in examples]), errors.device)
        liked = send(torch.tensor([one.liked for one in examples]), errors.device)
        point = send(torch.tensor([one.point for one in examples]), errors.device)
        losses = kto_loss(errors, reference, liked, point, self.beta, self.kind)
        gained = (reference - errors).detach()
        sign = torch.where(liked, 1.0, -1.0)
        figures = {
            "right": (sign * (gained - point) > 0).float().mean(),
            "gained_liked": (gained * liked).mean(),
            "gained_other": (gained * ~liked).mean(),
            "point": point.mean(),
        }
        return losses.mean(), figures
