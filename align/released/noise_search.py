"""Zero-order search as the reimplementation tt-scale-flux does it."""

from __future__ import annotations

from collections.abc import Sequence

from align.strategies.base import Trials
from align.strategies.noise_search import NoiseSearch, Tried


class ForgetfulSearch(NoiseSearch):
    """A round without a better neighbour is followed by one around fresh noise, and each makes its pivot again (quirk
    ``forgetful_pivot``).
    """

    def with_pivots(self, rounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(1 + number, first) for number, first in rounds]

    def child(
        self, trials: Trials, owner: int, pool: Sequence[Tried], number: int, place: int, first: int
    ) -> Tried:
        request = trials.requests[owner]
        pivot = pool[0].noise if pool else self.sampler.noise(request, number - place)
        return Tried(self.beside(pivot, self.sampler.noise(request, number)) if place else pivot)

    def make(
        self,
        trials: Trials,
        born: Sequence[tuple[int, int, Tried]],
        pools: Sequence[dict[int, list[Tried]]],
        first: int,
    ) -> None:
        for pool in pools:
            pool[first].clear()
        super().make(trials, born, pools, first)
        each = len(born) // len(pools)
        for owner, pool in enumerate(pools):
            if pool[first][0].noise is born[owner * each][2].noise:
                pool[first].clear()
