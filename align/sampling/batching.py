"""Calls whose size fits the work, and never the company.

A kernel may sum in another order when the batch has another size, so the last bits of a row depend on how many are computed
in its call.  That number is therefore decided by the row's own group of particles, and by two numbers that a run has from its
plan (``align.runner.calls``), never by which other groups happen to be there:

* a group that brings at least ``most`` rows to a pass has calls of its own, as few and as even as can be, without padding;
* smaller groups share calls, of as many rows as all ``groups`` of the plan would bring together if each brought as many, at
  most ``most``; the last call of a pass is padded by repeating its last row.  So the only group of a plan never pays padding,
  at no pass, whatever it brings there;
* a group that travels back in time is one of few that still do: its calls are a quarter of ``most`` (``later``).

So equal requests give equal bytes in any order, shard or process of a run, and after any interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Calls:
    """How the rows of a pass are cut into calls.

    Attributes:
        most: rows of a call.
        groups: of particles in the whole plan; ``None`` where pictures shall not depend on how many there are.
    """

    most: int
    groups: int | None = None

    def shared(self, number: int) -> int:
        """Rows of the calls that groups share which bring ``number`` rows each; a plan of a few calls is cut evenly."""
        if self.groups is None or self.groups * number > 4 * self.most:
            return self.most
        rows = self.groups * number
        return -(-rows // -(-rows // self.most))

    def __call__(self, groups: Sequence[int]) -> Iterator[Chunk]:
        """Cut the rows of a pass, each with the number of its group."""
        counts = Counter(groups)
        alike: dict[tuple[int, int | None], list[int]] = {}
        for row, group in enumerate(groups):
            own = counts[group] >= self.most
            key = (self.most, group) if own else (self.shared(counts[group]), None)
            alike.setdefault(key, []).append(row)
        for (size, one), rows in alike.items():
            if one is not None:
                for part in torch.tensor(rows).tensor_split(-(-len(rows) // size)):
                    yield Chunk(part, len(part))
            else:
                for chunk in chunks(len(rows), size):
                    yield Chunk(torch.tensor(rows)[chunk.rows], chunk.real)

    def later(self, round: int) -> Calls:
        """Those of a round of time travel, of which the first is 0."""
        return self if round == 0 else replace(self, most=max(1, self.most // 4))


Cut = Callable[[Sequence[int]], Iterator[Chunk]]
"""From the group of each row of a pass to the calls that compute them."""


def one_call(size: int) -> Cut:
    """All rows, whatever their groups are, in calls of exactly ``size``: where a larger pass was cut already."""
    return lambda groups: chunks(len(groups), size)
