"""What the store needs to know of an item of the plan."""

from __future__ import annotations

from typing import Protocol


class PlannedItem(Protocol):
    """A picture that is to be made, or to be measured."""

    @property
    def key(self) -> str:
        """sha256 of the item's identity, 64 hex digits."""

    @property
    def seed(self) -> int:
        """Seed of the noise."""

    @property
    def sample(self) -> int:
        """Number of the picture among those of one prompt and seed."""
