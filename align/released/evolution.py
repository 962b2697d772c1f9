"""DPO-Diff's evolutionary solver as it was released, for replays of its runs.

It looks at the budget only between its searches for new genomes, so that it spends more; mutants that use it up are forgotten,
and what was known before them counts twice; a search that used up its tries is the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

from align.sampling.evolution import Draw, Evolution, Genome, Kind, Sizes, best


class ReleasedEvolution(Evolution):
    """With a ``pool`` of survivors, which is what the program returns."""

    def __init__(self, choices: Sequence[int], sizes: Sizes, draw: Draw) -> None:
        super().__init__(choices, sizes, draw)
        self.pool: list[tuple[float, Genome]] = []
        self.candidates: list[tuple[float, Genome]] = []
        self._ends = self._forgets = False

    @property
    def done(self) -> bool:
        """Whether nothing is proposed any more; what is proposed before that may be nothing."""
        return self._ends or len(self.seen) >= self.sizes.budget

    def propose(self) -> list[Genome]:
        sizes = self.sizes
        found: list[Genome] = []
        if self.generation > 0:
            found = self._searched("mutant", sizes.mutants)
            self._forgets = len(self.seen) >= sizes.budget
            if self._forgets:
                return found
            found += self._searched("child", sizes.children)
        found += self._searched("fresh", sizes.population - len(found))
        self.generation += 1
        return found

    def learn(self, genomes: Sequence[Genome], values: Sequence[float]) -> None:
        if not self._forgets:
            self.candidates = list(zip(values, genomes, strict=True))
        self.top = best([*self.top, *self.candidates], self.sizes.parents)
        self.pool = best([*self.pool, *self.candidates], self.sizes.population)

    def _searched(self, kind: Kind, wanted: int) -> list[Genome]:
        found = self.new(kind, wanted)
        self._ends = self._ends or (wanted > 0 and self.dry)
        return found
