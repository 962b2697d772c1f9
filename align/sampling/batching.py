"""Calls whose size fits the work, and never the company.

A kernel may sum in another order when the batch has another size, so the last bits of a row depend on how many are computed
in its call.  That number is therefore decided by the row's own group of particles, and by one ``size`` that a run has from
its plan (``align.runner.calls``), never by which others happen to be there:

* a group that brings at least ``size`` rows to a pass has calls of its own, as few and as even as can be, without padding;
* rows of smaller groups share calls of exactly ``size``, of which the last is padded by repeating its last row;
* a group that travels back in time is one of few that still do: its calls are a quarter of ``size`` (``later``).

So equal requests give equal bytes in any order, shard or process of a run, and after any interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """One call: ``rows`` (size,) indices to compute, of which the first ``real`` count."""

    rows: Tensor
    real: int


def chunks(number: int, size: int) -> Iterator[Chunk]:
    """Cut ``number`` rows into calls of exactly ``size`` (at least 1)."""
    for start in range(0, number, size):
        rows = torch.arange(start, start + size).clamp(max=number - 1)
        yield Chunk(rows, min(size, number - start))


def calls(groups: Sequence[int], size: int) -> Iterator[Chunk]:
    """Cut the rows of a pass, each with the number of its group, into calls of at most ``size``."""
    counts = Counter(groups)
    shared = [row for row, group in enumerate(groups) if counts[group] < size]
    own: dict[int, list[int]] = {group: [] for group, count in counts.items() if count >= size}
    for row, group in enumerate(groups):
        if group in own:
            own[group].append(row)
    for rows in own.values():
        for part in torch.tensor(rows).tensor_split(-(-len(rows) // size)):
            yield Chunk(part, len(part))
    together = torch.tensor(shared, dtype=torch.long)
    for chunk in chunks(len(together), size):
        yield Chunk(together[chunk.rows], chunk.real)


def later(size: int, round: int) -> int:
    """Most rows of a call in a round of time travel, of which the first is 0."""
    return size if round == 0 else max(1, size // 4)


Cut = Callable[[Sequence[int]], Iterator[Chunk]]
"""From the group of each row of a pass to the calls that compute them."""


def one_call(size: int) -> Cut:
    """All rows, whatever their groups are, in calls of exactly ``size``: where a larger pass was cut already."""
    return lambda groups: chunks(len(groups), size)
