"""What every strategy shares: whole samplings of candidates, judged for their request, of which the best one ever seen is kept.

A strategy has ``sample(requests) -> outcomes`` and ``probe`` as the sampler that it wraps.  Requests are worked on side by side,
and so are a request's candidates: each is a picture of its own in the loop, and those of one request are a group, by which alone
calls are cut.  So no candidate influences another, and none depends on which other requests are there.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from align.sampling.host import read, send
from align.sampling.ledger import Cost, Ledger
from align.sampling.loop import Info
from align.sampling.noise import Noise
from align.sampling.sampler import Log, Outcome, Request, Sampler, root_mean_square
from align.sampling.state import Pictures, State

SUMMED = ("rounds", "nonfinite_gradients")
"""Figures of single samplings that add up over those of a request."""


@dataclass(frozen=True)
class Trial:
    """One candidate: which of the requests it is of, the words that it is drawn with, and its noise."""

    owner: int
    request: Request
    noise: Noise


@dataclass(frozen=True)
class Finished:
    """C whole samplings.

    Attributes:
        latents: (C, ...) clean ones, on the device.
        pictures: (C, 3, H, W) in [0, 1], on the device.
        scores: (C,) float32 rewards for the words of the owner's request, on the host, or (C, K) of what chooses by ranks; NaN
            where picture or reward is not finite.
        values: (C,) float32, what they are worth beside each other and the best so far of their owner: the rewards, or ranks.
    """

    latents: Tensor
    pictures: Tensor
    scores: Tensor
    values: Tensor


@dataclass
class Best:
    """The best picture ever seen of a request; one whose value is not finite never is.

    Attributes:
        value, picture, latents: of it; -inf and ``None`` before there is one.
        info: further figures for its row, as they were when it was made.
        seen: values of all candidates in their order.
        scores: of it, where later candidates are compared with it, which ranks do among them all.
    """

    value: float = -math.inf
    picture: Tensor | None = None
    latents: Tensor | None = None
    info: dict[str, int | float | str] = field(default_factory=dict)
    seen: list[float] = field(default_factory=list)
    scores: Tensor | None = None

    def offer(self, value: float, picture: Tensor, latents: Tensor, **info: int | float | str) -> bool:
        """Keep a candidate if it is strictly better than all before it, and tell whether it is."""
        self.seen.append(value)
        if not value > self.value:
            return False
        self.value, self.picture, self.latents, self.info = value, read(picture), read(latents), info
        return True


class Trials:
    """Samples, decodes and scores candidates of some requests, and counts what each request has cost."""

    def __init__(
        self, sampler: Sampler, requests: Sequence[Request], on_done: Callable[[float], None]
    ) -> None:
        self.sampler = sampler
        self.requests = requests
        self.costs = [Cost() for _ in requests]
        self.figures = [dict.fromkeys(SUMMED, 0) for _ in requests]
        self.best = [Best() for _ in requests]
        self._on_done = on_done
        self._done = 0.0
        self._read: dict[tuple[str, str], Pictures] = {}

    def candidate(self, owner: int, number: int) -> Trial:
        """Candidate ``number`` of a request, which draws all that is its own from the noise of the particle of that number."""
        request = self.requests[owner]
        return Trial(owner, request, self.sampler.noise(request, number))

    def __call__(
        self,
        trials: Sequence[Trial],
        watch: Callable[[Info], None] | None = None,
        arrived: State | None = None,
        first: int = 0,
        sampler: Sampler | None = None,
    ) -> Finished:
        """Make candidates, those of one request side by side; the rest as in ``run``."""
        ledger = Ledger(len(trials))
        latents = self.run(trials, ledger, watch, arrived, first, sampler)
        found = self.finish(latents, trials, ledger)
        self.charge(trials, ledger)
        return found

    def run(
        self,
        trials: Sequence[Trial],
        ledger: Ledger,
        watch: Callable[[Info], None] | None = None,
        arrived: State | None = None,
        first: int = 0,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """Clean latents (C, ...) of candidates, under the caller's grad mode; ``ledger`` has an account of each.

        ``watch`` is told of each evaluation.  With ``arrived``, one particle a candidate, they go on from step ``first``.  ``sampler``
        is one of the same backbone with other steps.
        """
        whole, sampler = len(self.sampler.parts.process.steps), sampler or self.sampler
        requests, steps = [trial.request for trial in trials], len(sampler.parts.process.steps)
        log = Log(len(trials), steps)
        share = len(trials) / len(self.requests) * (steps - first) / whole

        def record(info: Info) -> None:
            log.record(info)
            if watch is not None:
                watch(info)
            if self.sampler.on_evaluation is not None:
                self.sampler.on_evaluation(info)

        state = sampler.run(
            requests,
            self.encode(requests),
            ledger,
            record,
            lambda done: self._on_done(self._done + share * done),
            streams=lambda number, _: trials[number].noise,
            groups=torch.tensor([trial.owner for trial in trials]),
            arrived=arrived,
            first=first,
        )
        self._done += share
        for trial, told in zip(trials, log.figures(), strict=True):
            for name in SUMMED:
                self.figures[trial.owner][name] += int(told[name])
        return state.z

    def encode(self, requests: Sequence[Request]) -> Pictures:
        """Conditioning of candidates; equal words are read once."""
        for request in dict.fromkeys(requests):
            words = request.prompt, request.negative
            if words not in self._read:
                self._read[words] = self.sampler.encode([request])
        return Pictures.join([self._read[request.prompt, request.negative] for request in requests])

    def finish(self, latents: Tensor, trials: Sequence[Trial], ledger: Ledger) -> Finished:
        """Decode clean latents (C, ...) and score them, each for the words of its owner."""
        sampler, owners, every = self.sampler, [trial.owner for trial in trials], list(range(len(trials)))
        pictures = sampler.decode(latents, owners)
        ledger.charge(every, "decoder_forward")
        whole = torch.isfinite(pictures).flatten(1).all(dim=1)
        there = torch.nonzero(read(whole))[:, 0]
        scores = torch.full((len(trials),), torch.nan)
        if len(there):
            some = there.tolist()
            prompts = [self.requests[owners[k]].prompt for k in some]
            shown = pictures[send(there, pictures.device)]
            found = read(sampler.score(shown, prompts, [owners[k] for k in some]))
            scores = torch.full((len(trials), *found.shape[1:]), torch.nan)
            scores[there] = torch.where(torch.isfinite(found), found, torch.nan)
            ledger.charge(some, "reward_forward")
        return Finished(latents, pictures, scores, self._among(scores, owners))

    def _among(self, scores: Tensor, owners: Sequence[int]) -> Tensor:
        """As ``Finished.values``; what is the best so far is worth as much as it is beside them."""
        values, judge = torch.full((len(owners),), torch.nan), self.sampler.parts.judge
        for owner in dict.fromkeys(owners):
            rows = torch.tensor([row for row, one in enumerate(owners) if one == owner])
            best, together = self.best[owner], scores[rows]
            if best.scores is not None:
                together = torch.cat([best.scores[None], together])
            worth = judge.among(together)
            values[rows] = worth[-len(rows) :]
            if best.scores is not None:
                best.value = float(worth[0])
        return values

    def charge(self, trials: Sequence[Trial], ledger: Ledger) -> None:
        """Put what candidates cost on the accounts of their requests."""
        for trial, cost in zip(trials, ledger.costs, strict=True):
            self.costs[trial.owner] += cost

    def outcome(self, number: int) -> Outcome:
        """The best of a request as its picture."""
        best, sampler = self.best[number], self.sampler
        request = self.requests[number]
        read_ = self.encode([request])
        info: dict[str, int | float | str] = {
            **self.figures[number],
            "prompt_truncated": int(read_.truncated[0]),
            **({"prompt_cut_by": read_.cut_by[0]} if read_.cut_by[0] else {}),
            "values": " ".join(f"{value:.5g}" for value in best.seen),
        }
        if best.picture is None or best.latents is None:
            return Outcome(None, self.costs[number], info, "no candidate has a picture with a finite reward")
        described = sampler.parts.predict.backbone.describe(best.latents[None])[0]
        info |= {**described, "latent_norm": root_mean_square(best.latents), "value": best.value, **best.info}
        return Outcome(best.picture, self.costs[number], info)


class Strategy(ABC):
    """Runs a sampler as often as it takes.

    ``samplings`` of a request are made, counted in whole ones, ``width`` of them side by side at most.
    """

    samplings: float
    width: int = 1

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    @torch.no_grad()
    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """As ``Samples.sample``."""
        different = list(dict.fromkeys(requests))
        together = max(1, self.rows() // self.width)
        made: dict[Request, Outcome] = {}
        for first in range(0, len(different), together):
            some = different[first : first + together]

            def told(done: float, first: int = first, number: int = len(some)) -> None:
                if on_step is not None:
                    on_step(min(1.0, (first + number * done / self.samplings) / len(different)))

            began = time.perf_counter()
            trials = Trials(self.sampler, some, told)
            self.work(trials)
            outcomes = [trials.outcome(number) for number in range(len(some))]
            seconds = (time.perf_counter() - began) / len(some)
            for outcome in outcomes:
                outcome.seconds = seconds
            made |= zip(some, outcomes, strict=True)
        return [made[request] for request in requests]

    def rows(self) -> int:
        """Candidates that are worked on at once at most, where a request has no more."""
        return 4 * self.sampler.parts.predict.calls.most

    @torch.no_grad()
    def probe(self, request: Request, picture: Tensor) -> None:
        """As ``Samples.probe``."""
        self.sampler.probe(request, picture)

    @abstractmethod
    def work(self, trials: Trials) -> None:
        """Try candidates of all requests and offer them to ``trials.best``."""
