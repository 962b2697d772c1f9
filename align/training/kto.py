"""Diffusion-KTO (Li et al., arXiv 2404.04465): pictures that are liked or not, without pairs.

Of each, the implicit reward is how much better than the reference the network denoises it; people feel gains and losses against
a reference point, the policy's mean reward, by a utility that levels off.  Against the published program: the reference point is that
of a whole round and all processes, at the weights with which the round begins, where theirs is a mini-batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from align.sampling.host import read, send
from align.sampling.noise import NoiseStream
from align.training.noised import Errors, Noised
from align.training.pairs import Pair, Pairs
from align.training.ranks import Ranks
from align.training.rounds import Rounds

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


@dataclass
class Kto:
    """The lesson.

    Attributes:
        pairs: the data set; an example is one side of a pair.
        places: which of them a round takes.
        errors: of the policy and its reference.
        beta: how soon utilities level off.
        liked: share of preferred pictures.
        kind: the utility.
    """

    pairs: Pairs
    places: Rounds[int]
    errors: Errors
    beta: float
    liked: float = 0.5
    kind: Utility = "kahneman_tversky"

    @torch.no_grad()
    def collect(self, round_: int, ranks: Ranks) -> Sequence[Opinion]:
        """The round's pictures, with the reference point of all of them."""
        epoch, places = self.places(round_)
        sides = [self._side(self.pairs[place], epoch) for place in ranks.share(places)]
        examples = self.errors.with_reference([one for one, _ in sides])
        gained: list[float] = []
        if examples:
            reference = torch.stack([one.reference for one in examples])
            gained = (reference - read(self.errors(examples)))[:, 0].tolist()
        point = float(reference_point(torch.tensor(ranks.gather(gained))))
        return [
            Opinion(**vars(one), liked=liked, point=point)
            for one, (_, liked) in zip(examples, sides, strict=True)
        ]

    def _side(self, pair: Pair, epoch: int) -> tuple[Noised, bool]:
        """One of a pair's pictures, and whether it is the preferred one."""
        share = float(NoiseStream(self.errors.seed, pair.key, epoch).uniform("side", 0, 0, (1,)))
        liked = share < self.liked
        return self.errors.drawn(pair, (pair.chosen if liked else pair.rejected,), epoch), liked

    def loss(self, examples: Sequence[Opinion]) -> tuple[Tensor, dict[str, Tensor]]:
        """``kto_loss``; ``gained_liked`` and ``gained_other`` are its parts' implicit rewards before beta, over all examples."""
        errors = self.errors(examples)[:, 0]
        reference = send(torch.cat([one.reference for one in examples]), errors.device)
        liked = send(torch.tensor([one.liked for one in examples]), errors.device)
        point = send(torch.tensor([one.point for one in examples]), errors.device)
        losses = kto_loss(errors, reference, liked, point, self.beta, self.kind)
        gained = (reference - errors).detach()
        return losses.mean(), {
            "right": ((gained > point) == liked).float().mean(),
            "gained_liked": (gained * liked).mean(),
            "gained_other": (gained * ~liked).mean(),
            "point": point.mean(),
        }
