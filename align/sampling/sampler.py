"""From requests to pictures: encode, run the loop, decode, choose."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.rewards.base import Reward
from align.sampling.batching import chunks
from align.sampling.evaluate import Pictures
from align.sampling.ledger import Cost, Ledger
from align.sampling.loop import Info, Parts, run, start
from align.sampling.noise import Draws, NoiseStream
from align.sampling.selection import by_value
from align.sampling.state import State
from align.semantics.attention_loss import pair_weights
from align.semantics.tokens import PairSource

Choice = Literal["first", "best", "draw", "weight"]
"""Which of a group's particles are returned: the first, those of the highest reward as finished pictures, draws by weight,
those of the largest weight."""


@dataclass(frozen=True)
class Request:
    """One picture to make; equal requests give equal bytes."""

    prompt: str
    negative: str = ""
    seed: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Population:
    """The particles that a picture is chosen from.

    Attributes:
        particles: P in a group at the start.
        returned: how many of a group become pictures: samples k * returned to (k + 1) * returned - 1 of a prompt share
            a group.
        choose: which.
    """

    particles: int = 1
    returned: int = 1
    choose: Choice = "first"


@dataclass
class Outcome:
    """One picture made.

    Attributes:
        picture: (3, H, W) float32 in [0, 1] on the CPU; ``None`` if it failed.
        cost: evaluations spent on it; where a group returns several pictures, its equal share.
        info: further figures for its row (``rounds``, ``nonfinite_gradients``, ``prompt_truncated``...).
        error: why it failed, if it did.
        seconds: its share of the wall-clock time of what it was made with.
    """

    picture: Tensor | None
    cost: Cost
    info: dict[str, int | float | str] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Particles of one prompt that pictures are chosen from."""

    prompt: str
    negative: str
    seed: int
    number: int


class Sampler:
    """Runs one method on one backbone.

    Args:
        backbone: the frozen model.
        parts: the method's parts.
        pairs: from a prompt, and how the backbone reads it, to its token pairs.
        batch_size: rows of every decoder call, padded to exactly this many.
        device: where the latents live.
        population: particles of a picture.
        reward: what ranks or weighs finished pictures, where something does.
    """

    def __init__(
        self,
        backbone: Backbone,
        parts: Parts,
        pairs: PairSource,
        batch_size: int,
        device: torch.device,
        population: Population | None = None,
        reward: Reward | None = None,
    ) -> None:
        self.backbone = backbone
        self.parts = parts
        self.pairs = pairs
        self.batch_size = batch_size
        self.device = device
        self.population = population or Population()
        self.reward = reward
        self.on_evaluation: Callable[[Info], None] | None = None

    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """Make the pictures of some requests; none of them influences another.

        Args:
            requests: what to make.
            on_step: told the share of the work that is done.
        """
        returned = self.population.returned
        of = [_Group(r.prompt, r.negative, r.seed, r.sample // returned) for r in requests]
        groups = list(dict.fromkeys(of))
        together = max(1, 4 * self.batch_size // self.population.particles)
        made: dict[_Group, list[Outcome]] = {}
        for first in range(0, len(groups), together):
            some = groups[first : first + together]
            share = len(some) / len(groups)

            def told(done: float, first: int = first, share: float = share) -> None:
                if on_step is not None:
                    on_step(first / len(groups) + share * done)

            made |= zip(some, self._sample(some, told), strict=True)
        return [made[group][r.sample % returned] for group, r in zip(of, requests, strict=True)]

    def probe(self, request: Request, picture: Tensor) -> None:
        """Read a request's texts, and judge ``picture``, (1, 3, H, W), by its prompt: whatever is wrong with them is raised."""
        self._read([_Group(request.prompt, request.negative, request.seed, 0)])
        if self.reward is not None:
            time = (
                torch.zeros(1, dtype=torch.long, device=self.device) if self.reward.takes_timestep else None
            )
            with torch.no_grad():
                self.reward.score(picture.to(self.device), [request.prompt], time)

    def _sample(self, groups: Sequence[_Group], on_step: Callable[[float], None]) -> list[list[Outcome]]:
        """The pictures of some groups, made side by side."""
        began = time.perf_counter()
        pictures, truncated = self._read(groups)
        ledger = Ledger(len(groups))
        steps = len(self.parts.process.steps)
        log = _Log(len(groups), steps)

        def streams(picture: int, particle: int) -> NoiseStream:
            group = groups[picture]
            return NoiseStream(group.seed, group.prompt, group.number, particle)

        def record(info: Info) -> None:
            log.record(info)
            if self.on_evaluation is not None:
                self.on_evaluation(info)

        shape = self.backbone.latent_shape()
        state = start(streams, len(groups), self.population.particles, shape, self.device)
        state = run(
            self.parts,
            state,
            pictures,
            streams,
            ledger,
            on_evaluation=record,
            on_step=lambda step: on_step((step.index + 1) / steps),
        )
        finished = self._finish(state, pictures, Draws.of(streams, state, steps, 0), ledger)
        seconds = (time.perf_counter() - began) / (len(groups) * self.population.returned)
        for k, outcomes in enumerate(finished):
            for outcome in outcomes:
                outcome.cost = ledger.costs[k].over(self.population.returned)
                outcome.info = {**log.of(k), "prompt_truncated": int(truncated[k]), **outcome.info}
                outcome.seconds = seconds
        return finished

    def _finish(self, state: State, pictures: Pictures, draws: Draws, ledger: Ledger) -> list[list[Outcome]]:
        """The pictures of each group; one that is not finite, or whose reward is not where rewards decide, is never taken
        while there is another.
        """
        population, select = self.population, self.parts.select
        judged = population.choose == "best" or select.reads_end()
        if population.choose == "first":
            some = torch.cat([rows[: population.returned] for rows in state.groups()])
            state = state.take(some) if not judged else state
        decoded = self.decode(state.z)
        ledger.charge(state.picture.tolist(), "decoder_forward")
        whole = torch.isfinite(decoded).flatten(1).all(dim=1)
        value = torch.full((len(state.z),), torch.nan)
        if judged:
            value = self._scores(decoded, whole, [pictures.prompts[k] for k in state.picture.tolist()])
            ledger.charge(state.picture[whole.to(state.picture.device)].tolist(), "reward_forward")
            state = select.finish(state, value.to(self.device))
        described = self.backbone.describe(state.z)
        slots = state.slots().tolist()
        outcomes = []
        for rows in state.groups():
            rows = rows.cpu()
            usable = whole[rows] & (torch.isfinite(value[rows]) | (not judged))
            taken = self._choose(state, rows, value, usable, draws)
            weights = state.log_weights[rows.to(self.device)].double().cpu()
            group = []
            for row in taken:
                info: dict[str, int | float | str] = dict(described[row])
                info["latent_norm"] = root_mean_square(state.z[row])
                if population.particles > population.returned:
                    info["particle"] = slots[row]
                if judged:
                    info["value"] = float(value[row])
                if select.reads_end():
                    info["log_evidence"] = float(torch.logsumexp(weights, 0))
                error = None
                if not whole[row]:
                    error = "the picture is not finite"
                elif judged and not math.isfinite(float(value[row])):
                    error = "no particle has a finite reward"
                group.append(Outcome(decoded[row] if error is None else None, Cost(), info, error))
            outcomes.append(group)
        return outcomes

    def _choose(self, state: State, rows: Tensor, value: Tensor, usable: Tensor, draws: Draws) -> list[int]:
        """Which of a group's ``rows`` are returned; ``value`` is of all particles, ``usable`` of the group's."""
        choose, wanted = self.population.choose, self.population.returned
        if choose == "first":
            return rows[:wanted].tolist()
        weights = state.log_weights[rows.to(state.z.device)].double().cpu()
        weights = torch.where(usable, weights, -torch.inf)
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

    @torch.no_grad()
    def _scores(self, decoded: Tensor, whole: Tensor, prompts: Sequence[str]) -> Tensor:
        """(P,) rewards of finished pictures, at the end of the process; NaN for one that is not finite."""
        assert self.reward is not None
        scores = torch.full((len(decoded),), torch.nan)
        there = torch.nonzero(whole)[:, 0]
        for chunk in chunks(len(there), self.batch_size):
            rows = there[chunk.rows]
            times = torch.zeros(len(rows), dtype=torch.long, device=self.device)
            found = self.reward.score(
                decoded[rows].to(self.device),
                [prompts[k] for k in rows.tolist()],
                times if self.reward.takes_timestep else None,
            )
            scores[rows[: chunk.real]] = found[: chunk.real].float().cpu()
        return scores

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Clean latents (P, C, h, w) to pictures (P, 3, H, W) in [0, 1] on the CPU, in calls of one fixed shape."""
        parts = [
            self.backbone.decode(z[chunk.rows.to(z.device)])[: chunk.real]
            for chunk in chunks(len(z), self.batch_size)
        ]
        return torch.cat(parts).clamp(0, 1).float().cpu()

    def _read(self, groups: Sequence[_Group]) -> tuple[Pictures, list[bool]]:
        """Conditioning and token pairs of every group."""
        encoded = [self.backbone.encode(group.prompt, group.negative) for group in groups]
        pairs = [self.pairs(group.prompt, read) for group, read in zip(groups, encoded, strict=True)]
        pictures = Pictures(
            prompts=[group.prompt for group in groups],
            conditioning=Conditioning.of(encoded),
            pair_weights=pair_weights(pairs, len(encoded[0].offsets)).to(self.device),
            has_pairs=torch.tensor([bool(pair) for pair in pairs]),
        )
        return pictures, [read.truncated for read in encoded]


def root_mean_square(z: Tensor) -> float:
    """Norm of one picture's latents (C, h, w) over the square root of their number: 1 for pure noise.

    A method that leaves what the model knows shows here, whatever rewards say.
    """
    return float(z.detach().cpu().double().square().mean().sqrt())


class _Log:
    """What rows tell of the way to a picture, gathered while the loop runs."""

    def __init__(self, groups: int, steps: int) -> None:
        self.rounds = torch.zeros(groups, dtype=torch.long)
        self.nonfinite = torch.zeros(groups, dtype=torch.long)
        self.steps = steps
        self.traces: list[dict[str, list[float]]] = [{} for _ in range(groups)]

    def record(self, info: Info) -> None:
        """One evaluation."""
        if info.round:
            self.rounds[info.picture.unique().cpu()] += 1
        self.nonfinite.index_add_(0, info.picture.cpu(), (~info.finite).long().cpu())
        for name, figures in info.trace.items():
            for trace, figure in zip(self.traces, figures.tolist(), strict=True):
                if not math.isnan(figure):
                    trace.setdefault(name, [math.nan] * self.steps)[info.step.index] = figure

    def of(self, group: int) -> dict[str, int | float | str]:
        """Of one group; a trace is a text of numbers, one a step, nan where nothing was selected."""
        traces = {
            name: " ".join(f"{figure:.5g}" for figure in trace) for name, trace in self.traces[group].items()
        }
        return {
            "rounds": int(self.rounds[group]),
            "nonfinite_gradients": int(self.nonfinite[group]),
            **traces,
        }
