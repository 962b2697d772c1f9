"""Diffusion-DPO (Wallace et al., arXiv 2311.12908): the network shall denoise preferred pictures better than the reference does,
and rejected ones worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from align.sampling.host import send
from align.training.noised import Errors, Noised
from align.training.pairs import Pairs
from align.training.ranks import Ranks
from align.training.rounds import Rounds


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """-ln sigmoid(-beta/2 [(e_w - e_w,ref) - (e_l - e_l,ref)]) of each pair, from errors (n,), see ``Errors``."""
    further = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(-beta / 2 * further)


@dataclass
class Dpo:
    """The lesson.

    Attributes:
        pairs: the data set.
        places: which of them a round takes.
        errors: of the policy and its reference.
        beta: how strongly pairs are told apart before the loss is content.
    """

    pairs: Pairs
    places: Rounds[int]
    errors: Errors
    beta: float

    @torch.no_grad()
    def collect(self, round_: int, ranks: Ranks) -> Sequence[Noised]:
        """The round's pairs, chosen before rejected."""
        epoch, places = self.places(round_)
        pairs = [self.pairs[place] for place in ranks.share(places)]
        return self.errors.with_reference(
            [self.errors.drawn(pair, (pair.chosen, pair.rejected), epoch) for pair in pairs]
        )

    def loss(self, examples: Sequence[Noised]) -> tuple[Tensor, dict[str, Tensor]]:
        """``dpo_loss``; ``right`` is the share of pairs that are told apart, ``margin`` by how much errors are."""
        errors = self.errors(examples)
        reference = send(torch.stack([one.reference for one in examples]), errors.device)
        losses = dpo_loss(errors[:, 0], errors[:, 1], reference[:, 0], reference[:, 1], self.beta)
        gained = (reference - errors).detach()
        margin = gained[:, 0] - gained[:, 1]
        return losses.mean(), {
            "right": (margin > 0).float().mean(),
            "margin": margin.mean(),
            "gained_chosen": gained[:, 0].mean(),
        }
