"""DyMO's semantic objective on cross-attention maps (equation 6 of arXiv 2412.00759).

Maps of an object's words should look at the same place, maps of two objects at different places.  All
pairs of a batch are one Gram matrix: no loop, no host synchronisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from align.semantics.tokens import TokenPairs

MAP_EPSILON = 1e-8
COUNT_EPSILON = 1e-6


def pair_weights(pairs: Sequence[TokenPairs], tokens: int, parts: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Weight of every token pair's distance: (P, tokens, tokens) float32.

    ``1 / (|positive| + 1e-6)`` at positive pairs, ``-1 / (|negative| + 1e-6)`` at negative ones.  A pair of a
    token that has no map (``released/matching.py`` makes such) has no weight but is counted.  Where tokens are of several
    encoders, each with its own ``parts`` of them, these are the means of each, and what counts is the average of those.
    """
    weights = torch.zeros(len(pairs), tokens, tokens)
    for row, pair in enumerate(pairs):
        for indices, sign in ((pair.positive, 1.0), (pair.negative, -1.0)):
            inside = [[one for one in indices if start <= one[0] < end] for start, end in parts]
            groups = [one for one in inside or [list(indices)] if one]
            for group in groups:
                for one, two in group:
                    if max(one, two) < tokens:
                        weights[row, one, two] += sign / (len(group) + COUNT_EPSILON) / len(groups)
    return weights


def semantic_loss(maps: Tensor, weights: Tensor) -> Tensor:
    """Sum over pairs of weight times cosine distance, (P,) float32 in [-1, 1].

    It is small when attributes look where their object is and objects look apart. ``maps`` are attention (P, R, R, tokens),
    averaged over layers and heads, rows summing to 1 over tokens; ``weights`` (P, tokens, tokens) are of ``pair_weights``.
    """
    flat = 100 * maps.float().flatten(1, 2) + MAP_EPSILON  # (P, R*R, tokens)
    unit = flat / flat.norm(dim=1, keepdim=True)
    similarity = unit.transpose(1, 2) @ unit
    loss: Tensor = (weights * (1 - similarity)).sum(dim=(1, 2))
    return loss
