"""From requests to pictures: encode, run the loop, decode, score, choose; each of these steps can be taken alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from align.backbones.base import Conditioning
from align.sampling.host import read, send
from align.sampling.ledger import Cost, Ledger
from align.sampling.loop import Info, run, start
from align.sampling.noise import Draws, Noise, NoiseStream, Streams
from align.sampling.parts import Parts
from align.sampling.selection import by_value
from align.sampling.state import Pictures, State
from align.semantics.attention_loss import pair_weights
from align.semantics.tokens import PairSource

Choice = Literal["first", "best", "draw", "weight"]
"""Which of a group's particles are returned: the first, those of the highest reward as finished pictures, draws by weight,
those of the largest weight."""


@dataclass(frozen=True)
class Request:
    """One picture to make; equal requests give equal bytes.

    Attributes:
        noise_key: what noise depends on beside seed and sample; ``None`` for the prompt, so that a rewritten prompt keeps
            its noise by having the first one's.
    """

    prompt: str
    negative: str = ""
    seed: int = 0
    sample: int = 0
    noise_key: str | None = None

    @property
    def key(self) -> str:
        """What its noise depends on beside seed and sample."""
        return self.prompt if self.noise_key is None else self.noise_key


def keyed(request: Request, particle: int) -> Noise:
    """The noise of a request's particle, which depends on nothing else."""
    return NoiseStream(request.seed, request.key, request.sample, particle)


@dataclass(frozen=True)
class Population:
    """The particles that a picture is chosen from, so many in a group at the start.

    ``returned`` of a group become pictures: samples k * returned to (k + 1) * returned - 1 of a prompt share a group.
    """

    particles: int = 1
    returned: int = 1
    choose: Choice = "first"


@dataclass
class Outcome:
    """One picture made.

    Attributes:
        picture: (3, H, W) float32 in [0, 1] on the CPU; ``None`` if it failed, and ``error`` says why.
        cost, seconds: evaluations and wall-clock time; where pictures were made together, its equal share.
        info: further figures for its row (``rounds``, ``nonfinite_gradients``, ``prompt_truncated``...).
    """

    picture: Tensor | None
    cost: Cost
    info: dict[str, int | float | str] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


class Samples(Protocol):
    """What makes the pictures of requests: a sampler, or a strategy that wraps one."""

    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """Make the pictures of some requests; none of them influences another.  ``on_step`` is told the share that is done."""

    def probe(self, request: Request, picture: Tensor) -> None:
        """Read a request's texts, and judge ``picture``, (1, 3, H, W), by its prompt: whatever is wrong with them is raised."""


class Sampler:
    """Runs one method on one backbone.

    ``noise`` is that of a request's particle, where a request's ``sample`` is the number of its group; another one samples from
    given or learnt noise.
    """

    def __init__(
        self,
        parts: Parts,
        pairs: PairSource,
        device: torch.device,
        population: Population | None = None,
        noise: Callable[[Request, int], Noise] = keyed,
    ) -> None:
        self.parts = parts
        self.pairs = pairs
        self.device = device
        self.population = population or Population()
        self.noise = noise
        self.on_evaluation: Callable[[Info], None] | None = None

    @torch.no_grad()
    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """As ``Samples.sample``."""
        returned = self.population.returned
        of = [replace(request, sample=request.sample // returned) for request in requests]
        groups = list(dict.fromkeys(of))
        together = max(1, 4 * self.parts.predict.calls.most // self.population.particles)
        made: dict[Request, list[Outcome]] = {}
        for first in range(0, len(groups), together):
            some = groups[first : first + together]
            share = len(some) / len(groups)

            def told(done: float, first: int = first, share: float = share) -> None:
                if on_step is not None:
                    on_step(first / len(groups) + share * done)

            made |= zip(some, self._sample(some, told), strict=True)
        return [made[group][r.sample % returned] for group, r in zip(of, requests, strict=True)]

    @torch.no_grad()
    def probe(self, request: Request, picture: Tensor) -> None:
        """As ``Samples.probe``."""
        self.encode([request])
        judge = self.parts.judge
        for reward in filter(None, (judge.reward, judge.guide)):
            replace(judge, reward=reward).score(send(picture, self.device), [request.prompt], [0])

    def encode(self, requests: Sequence[Request]) -> Pictures:
        """Conditioning and token pairs of some requests."""
        read = [self.parts.predict.backbone.encode(request.prompt, request.negative) for request in requests]
        pairs = [self.pairs(request.prompt, one) for request, one in zip(requests, read, strict=True)]
        return Pictures(
            prompts=[request.prompt for request in requests],
            conditioning=Conditioning.of(read),
            pair_weights=send(pair_weights(pairs, len(read[0].offsets), read[0].parts), self.device),
            has_pairs=torch.tensor([bool(pair) for pair in pairs]),
            truncated=[one.truncated for one in read],
            cut_by=["" if one.truncated else " ".join(one.cut) for one in read],
        )

    def streams(self, requests: Sequence[Request]) -> Streams:
        return lambda number, particle: self.noise(requests[number], particle)

    def run(
        self,
        requests: Sequence[Request],
        pictures: Pictures,
        ledger: Ledger | None = None,
        on_evaluation: Callable[[Info], None] | None = None,
        on_step: Callable[[float], None] | None = None,
        *,
        streams: Streams | None = None,
        groups: Tensor | None = None,
        arrived: State | None = None,
        first: int = 0,
    ) -> State:
        """The population of each request at the end of the process: clean latents and their weights.

        Under ``torch.enable_grad`` the latents can be differentiated by noise that requires a gradient.  Each request's
        ``sample`` is the number of its group; ``pictures`` is what ``encode`` made of them; ``on_step`` is told the share of
        the steps that is done.  ``streams`` are other noise than the requests' own, and ``groups``, (requests,) on the host and
        rising, which requests share calls of one particle each.  With ``arrived``, its population goes on from step ``first``,
        where it was when ``on_evaluation`` told of it.
        """
        streams, process = streams or self.streams(requests), self.parts.process
        number = len(process.steps) - first
        shape, particles = self.parts.predict.backbone.latent_shape(), self.population.particles
        state = arrived or start(streams, len(requests), particles, shape, self.device, process.initial)
        return run(
            self.parts,
            state if groups is None else replace(state, group=groups),
            pictures,
            streams,
            ledger or Ledger(len(requests)),
            on_evaluation,
            None if on_step is None else lambda step: on_step((step.index + 1 - first) / number),
            first,
        )

    def decode(self, latents: Tensor, groups: Sequence[int] | None = None) -> Tensor:
        """Clean latents (P, ...) to pictures (P, 3, H, W) in [0, 1], float32 on the device; ``groups`` where some share one."""
        return self.parts.judge.decode(latents, range(len(latents)) if groups is None else groups)

    def score(self, pictures: Tensor, prompts: Sequence[str], groups: Sequence[int] | None = None) -> Tensor:
        """As ``Judge.score``, on the device; without ``groups`` each is a group of its own."""
        return self.parts.judge.score(pictures, prompts, range(len(prompts)) if groups is None else groups)

    def _sample(self, groups: Sequence[Request], on_step: Callable[[float], None]) -> list[list[Outcome]]:
        began = time.perf_counter()
        pictures = self.encode(groups)
        ledger, steps = Ledger(len(groups)), len(self.parts.process.steps)
        log = Log(len(groups), steps)

        def record(info: Info) -> None:
            log.record(info)
            if self.on_evaluation is not None:
                self.on_evaluation(info)

        state = self.run(groups, pictures, ledger, record, on_step)
        finished = self.finish(state, pictures, Draws.of(self.streams(groups), state, steps, 0), ledger)
        told = log.figures()
        seconds = (time.perf_counter() - began) / (len(groups) * self.population.returned)
        for k, outcomes in enumerate(finished):
            for outcome in outcomes:
                outcome.cost = ledger.costs[k].over(self.population.returned)
                cut = {"prompt_cut_by": pictures.cut_by[k]} if pictures.cut_by[k] else {}
                outcome.info = {
                    **told[k],
                    "prompt_truncated": int(pictures.truncated[k]),
                    **cut,
                    **outcome.info,
                }
                outcome.seconds = seconds
        return finished

    def finish(self, state: State, pictures: Pictures, draws: Draws, ledger: Ledger) -> list[list[Outcome]]:
        """The pictures of each group; one that is not finite, or whose reward is not where rewards decide, is never taken
        while there is another.
        """
        population, select = self.population, self.parts.select
        judged = population.choose == "best" or select.reads_end()
        if population.choose == "first" and not judged:
            state = state.take(torch.cat([rows[: population.returned] for rows in state.groups()]))
        decoded = self.decode(state.z, state.group.tolist())
        ledger.charge(state.picture.tolist(), "decoder_forward")
        shown = read(decoded)
        whole = torch.isfinite(shown).flatten(1).all(dim=1)
        value = torch.full((len(state.picture),), torch.nan)
        if judged:
            there = torch.nonzero(whole)[:, 0]
            some = state.take(there)
            if len(there):
                texts = pictures.prompts_of(some)
                shown_there = decoded[send(there, decoded.device)]
                scores = read(self.score(shown_there, texts, some.group.tolist()))
                for rows in some.groups():
                    value[there[rows]] = self.parts.judge.among(scores[rows])
            ledger.charge(some.picture.tolist(), "reward_forward")
            state = select.finish(state, send(value, self.device))
        described = self.parts.predict.backbone.describe(state.z)
        latents, weights, slots = read(state.z), read(state.log_weights).double(), state.slots().tolist()
        outcomes = []
        for rows in state.groups():
            usable = whole[rows] & (torch.isfinite(value[rows]) | (not judged))
            taken = self._choose(weights, rows, value, usable, draws)
            group = []
            for row in taken:
                info: dict[str, int | float | str] = dict(described[row])
                info["latent_norm"] = root_mean_square(latents[row])
                if population.particles > population.returned:
                    info["particle"] = slots[row]
                if judged:
                    info["value"] = float(value[row])
                if select.reads_end():
                    info["log_evidence"] = float(torch.logsumexp(weights[rows], 0))
                error = None
                if not whole[row]:
                    error = "the picture is not finite"
                elif judged and not math.isfinite(float(value[row])):
                    error = "no particle has a finite reward"
                group.append(Outcome(shown[row] if error is None else None, Cost(), info, error))
            outcomes.append(group)
        return outcomes

    def _choose(
        self, log_weights: Tensor, rows: Tensor, value: Tensor, usable: Tensor, draws: Draws
    ) -> list[int]:
        """Which of a group's ``rows`` are returned; ``usable`` is of these, all else of all particles, and on the host."""
        choose, wanted = self.population.choose, self.population.returned
        if choose == "first":
            return rows[:wanted].tolist()
        weights = torch.where(usable, log_weights[rows], -torch.inf)
        if choose == "draw" and bool(torch.isfinite(weights).any()):
            cumulative = torch.softmax(weights, 0).cumsum(0)
            uniform = draws.of_group(int(rows[0]), "choose")(1)
            # Systematic: n pictures of a group differ as far as the weights let them.
            points = (torch.arange(wanted) + uniform) / wanted * cumulative[-1]
            at = torch.searchsorted(cumulative, points, right=True).clamp(max=len(rows) - 1)
            return rows[at].tolist()
        ranked = by_value(value[rows]).double() if choose == "best" else weights
        ranked = torch.where(usable, ranked, -torch.inf)
        return rows[torch.sort(ranked, descending=True, stable=True).indices[:wanted]].tolist()


def root_mean_square(z: Tensor) -> float:
    """Norm of one picture's latents over the square root of their number: 1 for pure noise.

    A method that leaves what the model knows shows here, whatever rewards say.
    """
    return float(z.double().square().mean().sqrt())


class Log:
    """What rows tell of the way to a picture, gathered while the loop runs; the device is read once, at the end."""

    def __init__(self, groups: int, steps: int) -> None:
        self.rounds = [0] * groups
        self.judged: list[tuple[Tensor, Tensor]] = []
        self.steps = steps
        self.traces: list[dict[str, list[float]]] = [{} for _ in range(groups)]

    def record(self, info: Info) -> None:
        picture = info.state.picture
        if info.round:
            for group in set(picture.tolist()):
                self.rounds[group] += 1
        self.judged.append((picture, info.estimate.finite))
        for group, figures in info.trace.items():
            for name, figure in figures.items():
                if not math.isnan(figure):
                    trace = self.traces[group].setdefault(name, [math.nan] * self.steps)
                    trace[info.step.index] = figure

    def figures(self) -> list[dict[str, int | float | str]]:
        """Of each group; a trace is a text of numbers, one a step, nan where nothing was selected."""
        broken = ~read(torch.cat([finite for _, finite in self.judged]))
        picture = torch.cat([picture for picture, _ in self.judged])
        nonfinite = torch.bincount(picture[broken], minlength=len(self.rounds))
        return [
            {
                "rounds": self.rounds[group],
                "nonfinite_gradients": int(nonfinite[group]),
                **{name: " ".join(f"{figure:.5g}" for figure in trace) for name, trace in traces.items()},
            }
            for group, traces in enumerate(self.traces)
        ]
