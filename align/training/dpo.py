"""Diffusion-DPO (Wallace et al., arXiv 2311.12908): the network shall denoise preferred pictures better than the reference does,
and rejected ones worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from align.sampling.host import send
from align.training.noised import Errors, Noised
from align.training.pairs import Pairs, visits
from align.training.ranks import Ranks


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """-ln sigmoid(-beta/2 [(e_w - e_w,ref) - (e_l - e_l,ref)]) of each pair, from errors (n,), see ``Errors``."""
    further = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(-beta / 2 * further)


class Dpo:
    """The lesson.

    Args:
        pairs: the data set.
        errors: of the policy and its reference.
        beta: how strongly pairs are told apart before the loss is content.
        a_round: pairs of a round.
        seed: of the order of pairs.
    """

    def __init__(self, pairs: Pairs, errors: Errors, beta: float, a_round: int, seed: int) -> None:
        self.pairs, self.errors = pairs, errors
        self.beta, self.a_round, self.seed = beta, a_round, seed

    @torch.no_grad()
    def collect(self, round_: int, ranks: Ranks) -> Sequence[Noised]:
        """The round's pairs, chosen before rejected."""
        first = round_ * self.a_round
        found = []
        for visit in ranks.share(visits(len(self.pairs), first, first + self.a_round, self.seed)):
            pair = self.pairs[visit.number]
            found.append(self.errors.drawn(pair.key, pair, (pair.chosen, pair.rejected), visit))
        return found

    def loss(self, examples: Sequence[Noised]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """``dpo_loss``; ``right`` is the share of pairs that are told apart, ``margin`` by how much errors are."""
        errors = torch.stack([self.errors(one) for one in examples])
        reference = send(torch.stack([one.reference for one in examples]), errors.device)
        losses = dpo_loss(errors[:, 0], errors[:, 1], reference[:, 0], reference[:, 1], self.beta)
        gained = (reference - errors).detach()
        margin = gained[:, 0] - gained[:, 1]
        figures = {
            "right": (margin > 0).float().mean(),
            "margin": margin.mean(),
            "gained": gained[:, 0].mean(),
        }
        return losses.mean(), figures
