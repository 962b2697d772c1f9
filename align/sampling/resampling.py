"""Resampling of weighted particles: which go on, and how often, so that weights can be made equal again.

Weights, uniforms and index maps are those of one group, the particles of one prompt: groups never compete.  Every
scheme is unbiased, E[offspring of k] = N W_k; they differ in variance.  Unnormalised log-weights go in and out in log
space; arithmetic is float64 on the CPU, where it is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Scheme = Literal["systematic", "stratified", "residual", "multinomial", "ssp", "residual_released"]
"""How offspring are drawn from N normalised weights W.

* ``systematic``: inverse CDF at (k + u) / N, one u; floor or ceil of N W offspring;
* ``stratified``: inverse CDF at (k + u_k) / N; offspring less than 2 away from N W;
* ``residual``: floor(N W) copies, the rest multinomial by what is left over;
* ``multinomial``: N independent draws; the largest variance;
* ``ssp``: Srinivasan sampling process (Gerber, Chopin, Whiteley 2019); floor or ceil of N W offspring, negatively
  associated, consistent in any order of the particles;
* ``residual_released``: DAS's published ``residual``, which can give leftovers to the first few particles alone: biased,
  kept for comparison.
"""

Uniforms = Callable[[int], Tensor]
"""n -> (n,) float64 of [0, 1). Asked at most once in a call, and for no more than is used."""


def normalised(log_weights: Tensor) -> Tensor:
    """Log-weights that sum to 1 as weights.

    Args:
        log_weights: (..., N) unnormalised, below infinity; -inf is weight 0.

    Returns:
        (..., N) float64.

    Raises:
        ValueError: one is NaN or +inf, or all of a group are -inf.
    """
    shifted = _shifted(log_weights)
    return shifted - shifted.logsumexp(dim=-1, keepdim=True)


def ess(log_weights: Tensor) -> Tensor:
    """Effective sample size (sum w)^2 / sum w^2, from 1 to N; exactly N where weights are equal.

    Args:
        log_weights: (..., N), as for :func:`normalised`.

    Returns:
        (...) float64.

    Raises:
        ValueError: as :func:`normalised`.
    """
    weights = _shifted(log_weights).exp()
    return weights.sum(dim=-1) ** 2 / weights.square().sum(dim=-1)


def resample(scheme: Scheme, weights: Tensor, uniforms: Uniforms) -> Tensor:
    """Draw ancestors.

    Args:
        scheme: how.
        weights: (N,) of one group, at least 0, summing to 1.
        uniforms: the draws.

    Returns:
        (N,) int64 indices into the group, on the CPU; none has weight 0.  Ascending, but for the residual schemes, whose
        leftovers follow the whole copies, as published.

    Raises:
        ValueError: weights are no probabilities.
    """
    weights = weights.detach().to("cpu", torch.float64)
    total = weights.sum().item() if weights.ndim == 1 else math.nan
    # NaN fails the comparison too; the tolerance admits weights normalised in float32.
    if not (abs(total - 1) < 1e-4 and weights.min() >= 0):
        raise ValueError(
            f"weights {weights.tolist()} are no probabilities: give (N,) of at least 0 that sum to 1"
        )
    return _RULES[scheme](weights / total, uniforms)


@dataclass(frozen=True)
class Resampled:
    """What became of a group of N particles.

    Attributes:
        index: (N,) int64 ancestors, see :func:`resample`; 0 ... N - 1 where all were kept.
        log_weights: (N,) float64, normalised; -log N after a draw.
        ess: of the weights that came in.
        happened: whether ancestors were drawn.
    """

    index: Tensor
    log_weights: Tensor
    ess: float
    happened: bool


def resample_when_low(
    scheme: Scheme, log_weights: Tensor, threshold: float | None, uniforms: Uniforms
) -> Resampled:
    """Draw ancestors if ESS < threshold N, otherwise carry the weights on.

    Args:
        scheme: how.
        log_weights: (N,) of one group, unnormalised.
        threshold: share of N; ``None`` draws always.
        uniforms: the draws; asked for none when particles are kept.

    Raises:
        ValueError: as :func:`normalised`.
    """
    number = len(log_weights)
    carried = normalised(log_weights)
    size = ess(log_weights).item()
    if threshold is not None and size >= threshold * number:
        return Resampled(torch.arange(number), carried, size, happened=False)
    index = resample(scheme, carried.exp(), uniforms)
    return Resampled(index, torch.full_like(carried, -math.log(number)), size, happened=True)


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


def _inverse_cdf(weights: Tensor, points: Tensor) -> Tensor:
    """First index whose cumulative weight lies above each ascending point of [0, 1).

    Above, not at: a point of exactly 0 must not choose a first particle without weight.
    """
    cumulative = weights.cumsum(0)
    # (k + u) / N can round up to 1, above which there is no particle.
    points = points.clamp(max=1 - 2**-53)
    return torch.searchsorted(cumulative / cumulative[-1], points, right=True)


def _ordered(number: int, uniforms: Uniforms) -> Tensor:
    """Independent uniforms of [0, 1) in ascending order: sums of exponential spacings over one spacing more."""
    sums = -uniforms(number + 1).clamp(min=2**-60).log().cumsum(0)
    return sums[:-1] / sums[-1]


def _systematic(weights: Tensor, uniforms: Uniforms) -> Tensor:
    number = len(weights)
    return _inverse_cdf(weights, (torch.arange(number) + uniforms(1)) / number)


def _stratified(weights: Tensor, uniforms: Uniforms) -> Tensor:
    number = len(weights)
    return _inverse_cdf(weights, (torch.arange(number) + uniforms(number)) / number)


def _multinomial(weights: Tensor, uniforms: Uniforms) -> Tensor:
    return _inverse_cdf(weights, _ordered(len(weights), uniforms))


def _whole_and_rest(weights: Tensor) -> tuple[Tensor, Tensor]:
    """floor(N W) as int64, and what is left over, from 0 to 1.

    N W that rounding put just below a whole number counts as whole: N equal weights leave nothing over.
    """
    expected = len(weights) * weights
    whole = (expected + 1e-9).floor()
    return whole.long(), (expected - whole).clamp(min=0)


def _residual(weights: Tensor, uniforms: Uniforms) -> Tensor:
    return _with_leftovers(weights, uniforms, last=len(weights) - 1)


def _residual_released(weights: Tensor, uniforms: Uniforms) -> Tensor:
    """The published search stops at the index that is the number of leftovers less one."""
    return _with_leftovers(weights, uniforms, last=len(weights) - int(_whole_and_rest(weights)[0].sum()) - 1)


def _with_leftovers(weights: Tensor, uniforms: Uniforms, last: int) -> Tensor:
    """Whole copies, then leftovers drawn by what is left over, none with an index above ``last``."""
    whole, rest = _whole_and_rest(weights)
    index = torch.arange(len(weights)).repeat_interleave(whole)
    if leftover := len(weights) - len(index):
        drawn = _inverse_cdf(rest, _ordered(leftover, uniforms)).clamp(max=last)
        index = torch.cat([index, drawn])
    return index


def _ssp(weights: Tensor, uniforms: Uniforms) -> Tensor:
    """Two open particles at a time trade their fractions xi until one has none or a whole child."""
    number = len(weights)
    whole, rest = _whole_and_rest(weights)
    children, xi = whole.tolist(), rest.tolist()
    i, j = 0, 1
    for following, u in enumerate(uniforms(number - 1).tolist() if number > 1 else [], start=2):
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
    return torch.arange(number).repeat_interleave(torch.tensor(children))


_RULES: dict[Scheme, Callable[[Tensor, Uniforms], Tensor]] = {
    "systematic": _systematic,
    "stratified": _stratified,
    "residual": _residual,
    "multinomial": _multinomial,
    "ssp": _ssp,
    "residual_released": _residual_released,
}
