"""How much the pictures of one prompt differ from each other, and those of a whole run.

Two figures of the embeddings e_1, ..., e_n of n pictures (the evaluation of DAS, arXiv 2501.05803):

- distance: the mean over all pairs of 1 - cos(e_i, e_j), 0 for equal pictures, 1 for orthogonal embeddings;
- entropy: the truncated entropy of the Gaussian with their covariance (divisor n - 1), in nats,
  (K/2) ln(2 pi e) + 1/2 sum_{k <= K} ln lambda_k over its K largest eigenvalues.

n pictures span n - 1 directions, so K is the smaller of 20 and n - 1: eigenvalues beyond are rounding noise
whose logarithm would decide the figure. An entropy depends on n and K and is compared at equal ones only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from align.analysis.intervals import Floats, resampled

LARGEST = 20
"""Eigenvalues that the entropy counts where there are enough pictures."""


def unit(embeddings: Floats) -> Floats:
    """Embeddings (n, d) at length 1, float64; NaN where one has none."""
    embeddings = numpy.asarray(embeddings, dtype=numpy.float64)
    with numpy.errstate(invalid="ignore"):
        along: Floats = embeddings / numpy.linalg.norm(embeddings, axis=1, keepdims=True)
    return along


def distance(embeddings: Floats) -> float:
    """Mean over pairs of 1 - cosine, 0 to 2; NaN of fewer than two embeddings (n, d)."""
    if len(embeddings) < 2:
        return math.nan
    along = unit(embeddings)
    first, second = numpy.triu_indices(len(along), 1)
    # Of unit vectors |u - v|^2 / 2 = 1 - cos, which is exactly 0 for equal ones and never below.
    return float(numpy.square(along[first] - along[second]).sum(axis=1).mean() / 2)


def dimensions(number: int, largest: int = LARGEST) -> int:
    """K for a number of pictures."""
    return max(0, min(largest, number - 1))


def entropy(embeddings: Floats, largest: int = LARGEST) -> float:
    """Truncated entropy in nats over ``dimensions(n, largest)`` eigenvalues.

    NaN of fewer than two embeddings (n, d), and where they span fewer directions than K, as they do when some
    are equal: the entropy is minus infinity then, whatever the others are.
    """
    count = dimensions(len(embeddings), largest)
    if count == 0:
        return math.nan
    rows = numpy.asarray(embeddings, dtype=numpy.float64)
    size = numpy.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    noise = size[0] * max(rows.shape) * numpy.finfo(numpy.float64).eps
    if len(size) < count or not size[count - 1] > noise:
        return math.nan
    logs = 2 * numpy.log(size[:count]) - math.log(len(rows) - 1)
    return float(count / 2 * math.log(2 * math.pi * math.e) + logs.sum() / 2)


def run_distances(embeddings: Floats, groups: Sequence[int]) -> tuple[float, Floats]:
    """Mean over all pairs of a run's pictures of 1 - cosine, and of each bootstrap resample of prompts, (R,).

    A prompt that a resample draws twice counts twice; pairs of pictures of a prompt and of its copy are left
    out, or drawing with replacement would itself lower the distance. Embeddings are (n, d), ``groups`` the number
    of each picture's prompt, from 0.
    """
    along, group = unit(embeddings), numpy.asarray(groups)
    prompts = int(group.max()) + 1
    sums = numpy.zeros((prompts, along.shape[1]))
    numpy.add.at(sums, group, along)
    size = numpy.bincount(group, minlength=prompts).astype(float)
    pairs = numpy.outer(size, size)
    apart = pairs - sums @ sums.T
    within_pairs, within = size * (size - 1) / 2, numpy.diag(apart) / 2
    numpy.fill_diagonal(pairs, 0)
    numpy.fill_diagonal(apart, 0)

    def mean(weights: Floats) -> Floats:
        total = weights @ within + ((weights @ apart) * weights).sum(axis=1) / 2
        number = weights @ within_pairs + ((weights @ pairs) * weights).sum(axis=1) / 2
        with numpy.errstate(invalid="ignore", divide="ignore"):
            found: Floats = numpy.where(number > 0, numpy.maximum(total / number, 0), numpy.nan)
        return found

    return float(mean(numpy.ones((1, prompts)))[0]), numpy.concatenate([*map(mean, resampled(prompts))])
