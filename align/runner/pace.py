"""How many pictures are made together before they are kept: what a kill or a lost machine costs."""

from __future__ import annotations

SECONDS = 300.0
"""Longest time of work between two commits, where a picture does not take longer."""
MOST = 32
"""Most pictures of a group, beyond which nothing gets faster."""


class Pace:
    """The size of the next group, by how long the last one took; bytes of pictures do not depend on it.

    Always ``in_flight``, unless that is None; else a multiple of ``call``, the pictures of one network call.
    """

    def __init__(self, in_flight: int | None, call: int) -> None:
        self.in_flight = in_flight
        self.call = max(1, call)
        self._next = min(self.call, MOST)

    @property
    def size(self) -> int:
        return self._next if self.in_flight is None else self.in_flight

    def took(self, pictures: int, seconds: float) -> None:
        fit = int(min(SECONDS * pictures / max(seconds, 1e-9), MOST))
        self._next = max(1, fit if fit < self.call else fit - fit % self.call)
