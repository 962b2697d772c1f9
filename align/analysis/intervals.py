"""Means with intervals, when several pictures share a prompt.

Pictures of one prompt resemble each other, so the bootstrap draws prompts, not pictures: each resample draws
as many prompts as there are, with replacement, and takes all pictures of each draw. The interval is from the
2.5th to the 97.5th percentile of the resampled means. Draws are seeded: the same rows give the same interval.
With more than ``MANY`` prompts the resampled means are normal to within a few percent of the interval's width, and
their deviation is known without drawing any: tables of 100,000 pictures take seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

RESAMPLES = 10_000
MANY = 2_000
_AT_ONCE = 2_000_000  # numbers drawn at a time: bounds memory to some 30 MB
_Z = 1.959963984540054  # 97.5th percentile of the normal distribution

Floats = NDArray[numpy.float64]


class Interval(NamedTuple):
    """Means of M columns with 95% intervals, each (M,).

    The bounds are NaN where fewer than two prompts have a value.
    """

    mean: Floats
    low: Floats
    high: Floats
    number: NDArray[numpy.int64]
    """Number of values, (M,)."""


def codes(groups: Sequence[Hashable]) -> NDArray[numpy.int64]:
    """Number the distinct values from 0 in order of appearance, (n,)."""
    seen: dict[Hashable, int] = {}
    return numpy.array([seen.setdefault(group, len(seen)) for group in groups], dtype=numpy.int64)


def resampled(groups: int) -> Iterator[Floats]:
    """How often each resample draws each group, (RESAMPLES, groups), in parts; always the same draws."""
    generator = numpy.random.default_rng(0)
    step = max(1, _AT_ONCE // groups)
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        yield generator.multinomial(groups, numpy.full(groups, 1 / groups), size=draws).astype(float)


def bootstrap(values: Floats, groups: Sequence[Hashable]) -> Interval:
    """Mean of each column of ``values`` (n, M) with its 95% bootstrap interval, resampled by the group of each row.

    NaN is a missing value and counts for nothing.
    """
    values = numpy.asarray(values, dtype=numpy.float64)
    present = ~numpy.isnan(values)
    count = present.sum(axis=0)
    if not len(values):
        nothing = numpy.full(values.shape[1], numpy.nan)
        return Interval(nothing, nothing, nothing, count)
    # Sums are taken around the first value of each column: equal values have an interval of zero width.
    first = values[present.argmax(axis=0), numpy.arange(values.shape[1])]
    pivot = numpy.where(present.any(axis=0), first, 0.0)
    group = codes(groups)
    size = int(group.max()) + 1
    sums, counts = numpy.zeros((2, size, values.shape[1]))
    numpy.add.at(sums, group, numpy.where(present, values - pivot, 0.0))
    numpy.add.at(counts, group, present)
    low, high = numpy.full((2, values.shape[1]), numpy.nan)
    known = (counts > 0).sum(axis=0) > 1
    with numpy.errstate(invalid="ignore", divide="ignore"):
        shift = sums.sum(axis=0) / count
        mean = pivot + shift
        if size > MANY:
            # The deviation of a ratio of sums over prompts that are drawn with replacement.
            deviation = numpy.sqrt(numpy.square(sums - shift * counts).sum(axis=0)) / count
            low[known], high[known] = (mean + _Z * numpy.array([[-1], [1]]) * deviation)[:, known]
            return Interval(mean, low, high, count)
        means = numpy.concatenate(
            [pivot + (weights @ sums) / (weights @ counts) for weights in resampled(size)]
        )
    if known.any():
        low[known], high[known] = numpy.nanpercentile(means[:, known], [2.5, 97.5], axis=0)
    return Interval(mean, low, high, count)
