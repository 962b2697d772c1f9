"""Which part of what there is to learn from a round takes: epochs in orders of their own, cut into rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


def keyed_order(items: Sequence[T], key: Callable[[T], str], *for_what: object) -> list[T]:
    """A shuffle that depends on what the items are and what it is for, and not on the order in which they come."""
    told = "\x1f".join(map(str, for_what))

    def place(item: T) -> bytes:
        return hashlib.sha256(f"{told}\x1f{key(item)}".encode("utf-8", "surrogatepass")).digest()

    return sorted(items, key=place)


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """``each`` different items a round, the last of an epoch fewer; an epoch takes every item once, in an order by ``seed``."""

    items: Sequence[T]
    each: int
    seed: int
    key: Callable[[T], str] = str

    @property
    def of_epoch(self) -> int:
        """Rounds of an epoch."""
        return -(-len(self.items) // self.each)

    def __call__(self, round_: int) -> tuple[int, list[T]]:
        """The epoch that a round is in, and its items."""
        epoch, part = divmod(round_, self.of_epoch)
        ordered = keyed_order(self.items, self.key, self.seed, "epoch", epoch)
        return epoch, ordered[part * self.each : (part + 1) * self.each]
