"""Search over words behind a prompt and over negative words: DPO-Diff's evolutionary solver over words of the user's.

Every candidate has the noise of the user's own prompt, and is judged for it; the first candidate is that prompt as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from align.sampling.evolution import Draw, Evolution, Genome, Kind, Sizes
from align.sampling.sampler import Request, Sampler, keyed
from align.strategies.base import Strategy, Trial, Trials
from align.strategies.words import Words


class PromptSearch(Strategy):
    """``images`` of each candidate are made, and the mean of their rewards counts; of the best one the first is kept."""

    def __init__(self, sampler: Sampler, words: Words, sizes: Sizes, images: int = 1) -> None:
        super().__init__(sampler)
        self.words = words
        self.sizes = sizes
        self.images = images
        self.samplings = sizes.budget * images
        self.width = min(sizes.budget, max(sizes.population, sizes.mutants + sizes.children)) * images

    def work(self, trials: Trials) -> None:
        searches = [Evolution(self.words.choices, self.sizes, _draws(one)) for one in trials.requests]
        while generation := [
            (owner, genome) for owner, search in enumerate(searches) for genome in search.propose()
        ]:
            spoken = [(owner, self._spoken(trials.requests[owner], genome)) for owner, genome in generation]
            values = offer(trials, spoken, self.images)
            for owner, search in enumerate(searches):
                mine = [at for at, (one, _) in enumerate(generation) if one == owner]
                search.learn([generation[at][1] for at in mine], [values[at] for at in mine])

    def _spoken(self, request: Request, genome: Genome) -> Request:
        """A candidate: the user's request in other words, with its noise."""
        prompt, negative = self.words.spoken(request.prompt, request.negative, genome)
        return reworded(request, prompt, negative)


def offer(trials: Trials, candidates: Sequence[tuple[int, Request]], images: int = 1) -> list[float]:
    """Make, judge and offer candidates, each with the number of its owner, those of one owner side by side; their values.

    Each has the noise of its owner's own prompt.
    """
    rows = [
        Trial(owner, request, keyed(trials.requests[owner], image))
        for owner, request in candidates
        for image in range(images)
    ]
    made = trials(rows)
    values: list[float] = made.values.view(-1, images).mean(dim=1).tolist()
    for first, ((owner, request), value) in enumerate(zip(candidates, values, strict=True)):
        read = trials.encode([request])
        trials.best[owner].offer(
            value,
            made.pictures[first * images],
            made.latents[first * images],
            prompt_truncated=int(read.truncated[0]),
            **({"prompt_cut_by": read.cut_by[0]} if read.cut_by[0] else {}),
            drawn_prompt=request.prompt,
            drawn_negative=request.negative,
        )
    return values


def reworded(request: Request, prompt: str, negative: str | None = None) -> Request:
    """A request in other words, with the noise of its own."""
    other = request.negative if negative is None else negative
    return replace(request, prompt=prompt, negative=other, noise_key=request.key)


def _draws(request: Request) -> Draw:
    """What a request's search is drawn by: its own noise, whatever else is searched beside it."""
    noise = keyed(request, 0)

    def draw(kind: Kind, generation: int, attempt: int, number: int) -> list[float]:
        drawn: list[float] = noise.uniform(f"words, {kind}", generation, attempt, (number,)).tolist()
        return drawn

    return draw
