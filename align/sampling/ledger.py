"""What a picture costs, counted where the calls are made.

Rows that only pad a call to its fixed shape are not charged to any picture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

COUNTS = (
    "network_forward",
    "network_backward",
    "decoder_forward",
    "decoder_backward",
    "reward_forward",
    "reward_backward",
)


@dataclass
class Cost:
    """Evaluations spent on one picture.

    Attributes:
        network_forward: network calls; both halves of a guidance pair are one.
        network_backward: calls differentiated with respect to the latents.
        decoder_forward, decoder_backward: pictures decoded, and decoded with a gradient.
        reward_forward, reward_backward: pictures scored by the guiding reward, and with a gradient.
    """

    network_forward: int = 0
    network_backward: int = 0
    decoder_forward: int = 0
    decoder_backward: int = 0
    reward_forward: int = 0
    reward_backward: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Ledger:
    """Costs of a group of pictures, one :class:`Cost` each."""

    def __init__(self, pictures: int) -> None:
        self.costs = [Cost() for _ in range(pictures)]

    def charge(self, pictures: list[int], what: str, number: int = 1) -> None:
        """Add ``number`` to the count ``what`` of each picture listed (a picture may be listed repeatedly)."""
        for k in pictures:
            setattr(self.costs[k], what, getattr(self.costs[k], what) + number)
