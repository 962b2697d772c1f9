"""Resampling of weighted particles: which go on, and how often, so that weights can be made equal again.

Weights, uniforms and index maps are those of one group, the particles of one prompt: groups never compete.  Every
scheme is unbiased, E[offspring of k] = N W_k; they differ in variance.  Unnormalised log-weights go in and out in log
space; arithmetic is float64 on the CPU, where it is the same on every machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from align.sampling.noise import Draws

Scheme = Literal["systematic", "stratified", "residual", "multinomial", "ssp"]
"""How offspring are drawn from N normalised weights W.

* ``systematic``: inverse CDF at (k + u) / N, one u; floor or ceil of N W offspring;
* ``stratified``: inverse CDF at (k + u_k) / N; offspring less than 2 away from N W;
* ``residual``: floor(N W) copies, the rest multinomial by what is left over;
* ``multinomial``: N independent draws; the largest variance;
* ``ssp``: Srinivasan sampling process (Gerber, Chopin, Whiteley 2019); floor or ceil of N W offspring, negatively
  associated, consistent in any order of the particles.
"""

Uniforms = Callable[[int], Tensor]
"""n -> (n,) float64 of [0, 1). Asked at most once in a call, and for no more than is used."""


def normalised(log_weights: Tensor) -> Tensor:
    """(..., N) float64 log-weights that sum to 1 as weights, of (..., N) below infinity; -inf is weight 0.

    Raises:
        ValueError: one is NaN or +inf, or all of a group are -inf.
    """
    shifted = _shifted(log_weights)
    return shifted - shifted.logsumexp(dim=-1, keepdim=True)


def ess(log_weights: Tensor) -> Tensor:
    """Effective sample size (sum w)^2 / sum w^2 of (..., N) log-weights, (...) float64: 1 to N, exactly N where all are equal.

    Raises:
        ValueError: as ``normalised``.
    """
    weights = _shifted(log_weights).exp()
    return weights.sum(dim=-1) ** 2 / weights.square().sum(dim=-1)


def resample(scheme: Scheme, weights: Tensor, uniforms: Uniforms) -> Tensor:
    """Draw ancestors by the (N,) weights of one group, at least 0, summing to 1.

    Returns:
        (N,) int64 indices into the group, on the CPU; none has weight 0.  Ascending, but for ``residual``, whose
        leftovers follow the whole copies.

    Raises:
        ValueError: weights are no probabilities.
    """
    shares = weights.tolist() if weights.ndim == 1 else []
    # NaN fails both comparisons; the tolerance admits weights normalised in float32.
    if not (abs(sum(shares) - 1) < 1e-4 and all(share >= 0 for share in shares)):
        raise ValueError(
            f"weights {weights.tolist()} are no probabilities: give (N,) of at least 0 that sum to 1"
        )
    total = sum(shares)
    return torch.tensor(_RULES[scheme]([share / total for share in shares], uniforms))


@dataclass(frozen=True)
class Resampled:
    """What became of a group of N particles.

    Attributes:
        index: (N,) int64 ancestors, see ``resample``; 0 ... N - 1 where all were kept.
        log_weights: (N,) float64, which keep the group's log-sum-exp; equal after a draw.
        ess: of the weights that came in.
        happened: whether ancestors were drawn.
    """

    index: Tensor
    log_weights: Tensor
    ess: float
    happened: bool


@dataclass(frozen=True)
class Resampling:
    """How a group is resampled: with ``scheme`` where ESS < ``threshold`` N, without a threshold always."""

    scheme: Scheme = "systematic"
    threshold: float | None = 0.5

    def __call__(self, log_weights: Tensor, draws: Draws, row: int) -> Resampled:
        """Ancestors of a group by (N,) log-weights, float64 on the CPU; asks for no draws where particles are kept.

        A group in which no particle has any weight is left as it is, with an effective size of 0; ``row`` is its first.
        """
        number, total = len(log_weights), torch.logsumexp(log_weights, 0)
        if not bool(torch.isfinite(total)):
            return Resampled(torch.arange(number), log_weights, 0.0, happened=False)
        carried, size = normalised(log_weights), ess(log_weights).item()
        if self.threshold is not None and size >= self.threshold * number:
            return Resampled(torch.arange(number), carried + total, size, happened=False)
        index = resample(self.scheme, carried.exp(), draws.of_group(row, "resample"))
        equal = torch.full_like(carried, -math.log(number)) + total
        return Resampled(index, equal, size, happened=True)


def _shifted(log_weights: Tensor) -> Tensor:
    """Less the largest of each group, so that no exponential overflows and one is 1; float64 on the CPU."""
    log_weights = log_weights.detach().to("cpu", torch.float64)
    # NaN is the largest of a group that has one.
    largest = log_weights.amax(dim=-1, keepdim=True)
    if not largest.isfinite().all():
        raise ValueError(
            f"log-weights {log_weights.tolist()} leave a group without weights: one is NaN or inf, or all are -inf"
        )
    return log_weights - largest


def _inverse_cdf(weights: list[float], points: list[float]) -> list[int]:
    """First index whose cumulative share of the weights lies above each point of [0, 1).

    Above, not at: a point of exactly 0 must not choose a first particle without weight.
    """
    cumulative = list(accumulate(weights))
    shares = [sum_so_far / cumulative[-1] for sum_so_far in cumulative]
    # (k + u) / N can round up to 1, above which there is no particle.
    return [bisect_right(shares, min(point, 1 - 2**-53)) for point in points]


def _ordered(number: int, uniforms: Uniforms) -> list[float]:
    """Independent uniforms of [0, 1) in ascending order: sums of exponential spacings over one spacing more."""
    sums = list(accumulate(-math.log(max(u, 2**-60)) for u in _drawn(uniforms, number + 1)))
    return [sum_so_far / sums[-1] for sum_so_far in sums[:-1]]


def _drawn(uniforms: Uniforms, number: int) -> list[float]:
    return uniforms(number).tolist() if number else []


def _systematic(weights: list[float], uniforms: Uniforms) -> list[int]:
    number = len(weights)
    (u,) = _drawn(uniforms, 1)
    return _inverse_cdf(weights, [(k + u) / number for k in range(number)])


def _stratified(weights: list[float], uniforms: Uniforms) -> list[int]:
    number = len(weights)
    return _inverse_cdf(weights, [(k + u) / number for k, u in enumerate(_drawn(uniforms, number))])


def _multinomial(weights: list[float], uniforms: Uniforms) -> list[int]:
    return _inverse_cdf(weights, _ordered(len(weights), uniforms))


def _whole_and_rest(weights: list[float]) -> tuple[list[int], list[float]]:
    """floor(N W), and what is left over, from 0 to 1.

    N W that rounding put just below a whole number counts as whole: N equal weights leave nothing over.
    """
    expected = [len(weights) * weight for weight in weights]
    whole = [math.floor(each + 1e-9) for each in expected]
    return whole, [max(each - floor, 0.0) for each, floor in zip(expected, whole, strict=True)]


def _copies(children: list[int]) -> list[int]:
    return [parent for parent, number in enumerate(children) for _ in range(number)]


def _residual(weights: list[float], uniforms: Uniforms) -> list[int]:
    whole, rest = _whole_and_rest(weights)
    leftovers = len(weights) - sum(whole)
    # Without leftovers there is no rest to draw from.
    drawn = _inverse_cdf(rest, _ordered(leftovers, uniforms)) if leftovers else []
    return _copies(whole) + drawn


def _ssp(weights: list[float], uniforms: Uniforms) -> list[int]:
    """Two open particles at a time trade their fractions xi until one has none or a whole child."""
    number = len(weights)
    children, xi = _whole_and_rest(weights)
    i, j = 0, 1
    for following, u in enumerate(_drawn(uniforms, number - 1), start=2):
        # What i can take of j, and j of i; each happens with the other's share, so that neither mean moves.
        taken, given = min(xi[j], 1 - xi[i]), min(xi[i], 1 - xi[j])
        if taken + given > 0 and u < taken / (taken + given):
            i, j, taken = j, i, given
        if xi[j] < 1 - xi[i]:  # Nothing is left of j.
            xi[i] += taken
            j = following
        else:  # i is whole.
            children[i] += 1
            xi[j] -= taken
            i = following
    # The particle that is still open holds 0 or 1 up to rounding: whatever child is missing is its own.
    children[min(i, j)] += number - sum(children)
    return _copies(children)


_RULES: dict[Scheme, Callable[[list[float], Uniforms], list[int]]] = {
    "systematic": _systematic,
    "stratified": _stratified,
    "residual": _residual,
    "multinomial": _multinomial,
    "ssp": _ssp,
}
