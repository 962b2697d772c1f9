"""What a picture costs, counted where the calls are made.

Rows that only pad a call to its fixed shape are not charged to any picture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Cost:
    """Evaluations spent on one picture.

    Attributes:
        network_forward: network calls; both halves of a guidance pair are one, as is a pass through a weaker version of the network.
            The prompt's half is one where all steps go without a pair, and half of one where others have it.
        network_backward: calls differentiated with respect to the latents.
        decoder_forward, decoder_backward: pictures decoded, and decoded with a gradient.
        reward_forward, reward_backward: pictures scored by the guiding reward, and with a gradient.
        value_forward: calls of a value network.
    """

    network_forward: float = 0
    network_backward: float = 0
    decoder_forward: float = 0
    decoder_backward: float = 0
    reward_forward: float = 0
    reward_backward: float = 0
    value_forward: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, what) + getattr(other, what) for what in COUNTS))

    def over(self, pictures: int) -> Cost:
        """An equal share for each of some pictures; whole numbers stay whole."""
        counts = [getattr(self, what) for what in COUNTS]
        return Cost(*(n // pictures if n % pictures == 0 else n / pictures for n in counts))


COUNTS = tuple(field.name for field in fields(Cost))


class Ledger:
    """Costs of a group of pictures, one ``Cost`` each."""

    def __init__(self, pictures: int) -> None:
        self.costs = [Cost() for _ in range(pictures)]

    def charge(self, pictures: list[int], what: str, number: float = 1) -> None:
        """Add ``number`` to the count ``what`` of each picture listed (a picture may be listed repeatedly)."""
        for k in pictures:
            setattr(self.costs[k], what, getattr(self.costs[k], what) + number)
