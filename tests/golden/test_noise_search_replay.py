"""Recorded runs of noise searches on tiny models, through our own parts, from the recorded draws.

Random and zero-order search (tt-scale-flux) are our strategy itself, in rounds.  EvoSearch is put together here as it was
released, of our loop, that goes on from given states, and our mutation of noise: its faults are its program's whole order (see
``Released``).  Slim copies come with the tests; ``--golden DIR`` replays every trace of a folder too.
"""

import json
import math
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from fakes import passes
from safetensors.torch import load_file

from align.processes.ddim import ddim
from align.released.noise_search import ForgetfulSearch
from align.rewards.base import Reward
from align.rewards.formulas import JpegReward
from align.sampling.noise import Given
from align.sampling.parts import Parts
from align.sampling.sampler import Request, Sampler
from align.sampling.state import Pictures, State
from align.semantics.sources import no_pairs
from align.strategies.noise_search import Mutated, NoiseSearch, neighbour

from .filters import pictures_of, tiny
from .replay import CPU, SLIM, parameters
from .search_replay import RedBlue

REWARDS = {"redblue": (RedBlue, 1e-3), "jpeg": (lambda: JpegReward("jpeg_compressibility", -1), 0.03)}
"""And how far a value may be off: kilobytes of a file jump where a pixel is rounded the other way."""
LATENTS, LEVEL = 2e-4, 1


def cases(given, *patterns):
    """(folder, name) of every trace that comes with the tests, and of those of a given folder."""
    folders = [folder for folder in (SLIM, given) if folder is not None]
    return [
        (folder, path.stem)
        for folder in folders
        for pattern in patterns
        for path in sorted((folder / "noise").glob(f"{pattern}*.safetensors"))
    ]


def pytest_generate_tests(metafunc):
    given = metafunc.config.getoption("--golden")
    for name, *patterns in (
        ("searched", "random_search", "zero_order"),
        ("evolved", "evosearch"),
    ):
        if name in metafunc.fixturenames:
            found = cases(given, *patterns)
            metafunc.parametrize(
                name, parameters(found, ("zero_order_small",)), indirect=True, scope="module"
            )


@pytest.fixture(scope="module")
def searched(request):
    return Searched(*request.param)


@pytest.fixture(scope="module")
def evolved(request):
    return Evolved(*request.param)


class Told(Sampler):
    """A sampler whose words are recorded embeddings."""

    def __init__(self, parts, noise, pictures):
        super().__init__(parts, no_pairs, CPU, noise=noise)
        self.pictures = pictures

    def encode(self, requests):
        return Pictures.join([self.pictures] * len(requests))


class Trace:
    """A recorded run: tensors, facts and our parts for it."""

    eta = 0.0

    def __init__(self, folder, name):
        self.tensors = load_file(folder / f"noise/{name}.safetensors")
        self.facts = json.loads((folder / f"noise/{name}.json").read_text())
        self.options = self.facts["options"]
        self.backbone = tiny(self.facts["pipeline"])
        self.reward, self.near = REWARDS[self.options.get("reward", "redblue")]
        negative, prompt = self.tensors["prompt_embeds"][:, None]
        # Where equal words of a batch are told apart by nothing.
        self.pictures = replace(
            pictures_of(self.facts["prompt"], prompt, negative), truncated=[False], cut_by=[""]
        )

    def sampler(self, noise):
        process = ddim(self.backbone.scheduler_config, self.options["steps"], self.eta)
        assert [step.time for step in process.steps] == self.facts["timesteps"]
        size = self.options.get("batch", max(self.options.get("sizes", [1])))
        parts = Parts(*passes(self.backbone, self.options["guidance"], size, reward=self.reward()), process)
        return Told(parts, noise, self.pictures)


def picture_difference(ours, recorded):
    """Of (3, H, W) in [0, 1] and an 8-bit (H, W, 3), in levels."""
    return int(((255 * ours).round().permute(1, 2, 0) - recorded.float()).abs().max())


class Draws:
    """Recorded start noise, and the direction of a neighbour."""

    def __init__(self, start, direction):
        self.of = {"initial": start, "direction": direction}

    def normal(self, purpose, step, round, shape):
        return self.of[purpose].view(shape)


class Snapped(Reward):
    """A reward's recorded values in the order of the candidates, where its own are near, which is kept.

    Where a pixel is rounded the other way a file is some bytes longer, and two candidates that were equal are not.
    """

    takes_timestep, fingerprint = False, {}

    def __init__(self, reward, recorded, near):
        self.reward, self.recorded, self.near = reward, recorded, near
        self.name, self.own = reward.name, []

    def score(self, pictures, prompts, step=None):
        found = self.reward.score(pictures, prompts)
        first = len(self.own)
        self.own += found.tolist()
        recorded = self.recorded[first : len(self.own)].float()
        return torch.where((found - recorded).abs() <= self.near, recorded, found)


class Searched(Trace):
    """Rounds of fresh noise, or of a pivot and its neighbours."""

    def __init__(self, folder, name):
        super().__init__(folder, name)
        self.random = self.options["search_args"]["search_method"] == "random"
        self.cosine = self.options["search_args"].get("threshold", 0.0)
        self.rounds = [self.round(k) for k in range(1, 1 + len(self.facts["rounds"]))]
        of, scores = self.reward, torch.cat([tensors["scores"] for tensors in self.rounds])
        self.reward = lambda: Snapped(of(), scores, self.near)

    def round(self, number):
        names = ("noises", "pivot", "directions", "scores", "best_image")
        return {name: self.tensors.get(f"round{number}.{name}") for name in names}

    @cached_property
    def draws(self):
        """Of every candidate in order: random numbers alone, no noise that the search made of them."""
        found = []
        for tensors in self.rounds:
            for place, noise in enumerate(tensors["noises"]):
                if self.random or place == 0:
                    found.append(Draws(noise, None))
                else:
                    found.append(Draws(None, tensors["directions"][place - 1]))
        return found

    def search(self):
        """A free run: the values by rounds, what was kept of each, and the noise of each."""
        sampler = self.sampler(lambda request, particle: self.draws[particle])
        numbers = [len(tensors["scores"]) for tensors in self.rounds]
        first, *later = numbers
        if self.random:
            rounds = [(first - 1, 0), *((number, 0) for number in later)]
            search = NoiseSearch(sampler, "random", rounds)
        else:
            rounds = [(number - 1, 0) for number in numbers]
            search = ForgetfulSearch(sampler, "neighbours", rounds, self.cosine)
        noises, inner = [], search.make

        def make(trials, born, *rest):
            shape = sampler.parts.predict.backbone.latent_shape()
            noises.append(torch.stack([one.noise.normal("initial", 0, 0, shape) for *_, one in born]))
            inner(trials, born, *rest)

        search.make = make
        (made,) = search.sample([Request(self.facts["prompt"])])
        values = torch.tensor(sampler.parts.judge.reward.own)
        return noises, values.split(numbers), made


def test_neighbours_of_recorded_pivots(searched):
    """Step by step, to the last bit."""
    for tensors in searched.rounds:
        if searched.random:
            continue
        noises, pivot = tensors["noises"], tensors["pivot"][0]
        assert torch.equal(noises[0], pivot)
        for direction, recorded in zip(tensors["directions"], noises[1:], strict=True):
            moved = neighbour(pivot, direction, searched.cosine)
            assert float((moved - recorded).abs().max()) <= 1e-6


def test_a_search_from_recorded_draws_makes_the_recorded_choices(searched):
    noises, values, made = searched.search()
    for facts, tensors, noise, value in zip(
        searched.facts["rounds"], searched.rounds, noises, values, strict=True
    ):
        assert float((noise - tensors["noises"]).abs().max()) <= 1e-6
        assert float((value - tensors["scores"]).abs().max()) <= searched.near
        # What a round chose shows in the noise of the next one.
        assert float(value[facts["best"]]) == pytest.approx(facts["best_score"], abs=searched.near)
        if facts["improved"] is not None:
            assert (facts["best"] > 0) is facts["improved"]
    best = max(tensors["scores"].max() for tensors in searched.rounds)
    assert made.info["value"] == pytest.approx(float(best), abs=searched.near)
    numbers = [len(tensors["scores"]) for tensors in searched.rounds]
    assert made.cost.network_forward == searched.options["steps"] * sum(numbers)
    # The best of all can be of a round whose picture was not kept.
    for tensors in searched.rounds:
        if tensors["best_image"] is not None and tensors["scores"].max() == best:
            assert picture_difference(made.picture, tensors["best_image"]) <= LEVEL


class _Enough(Exception):
    """As many steps as are wanted are done."""


class Evolved(Trace):
    """Generations at steps of an ancestral chain."""

    eta = 1.0

    def __init__(self, folder, name):
        super().__init__(folder, name)
        self.schedule, self.sizes = self.options["schedule"], self.options["sizes"]

    @cached_property
    def steps(self):
        return self.sampler(None).parts.process.steps

    def run(self, latents, first, noise, until=None):
        """States that arrive at each step after ``first`` by its index, from latents (P, ...) with the noise of each step.

        With ``until`` only as far as there; else the last are clean.
        """
        requests = [Request(self.facts["prompt"])] * len(latents)
        arrived = {}

        def watch(info):
            arrived[info.step.index] = info.state.z
            if info.step.index == until:
                raise _Enough

        def own(number, _):
            return Given({("step", step): drawn[number] for step, drawn in noise.items()}, None)

        sampler = self.sampler(None)
        state = State.of(latents, torch.arange(len(latents)))
        with suppress(_Enough), torch.no_grad():
            end = sampler.run(
                requests,
                sampler.encode(requests),
                on_evaluation=watch,
                streams=own,
                arrived=state,
                first=first,
            )
            arrived[len(self.steps)] = end.z
        return arrived

    def judge(self, latents):
        """Pictures and values of clean latents."""
        sampler = self.sampler(None)
        with torch.no_grad():
            pictures = sampler.decode(latents)
            return pictures, sampler.score(pictures, [self.facts["prompt"]] * len(latents))

    def roll_out(self, number, latents):
        """A generation made to its end: what arrived on the way, pictures and values."""
        first, noise = self.schedule[number], self.tensors[f"gen{number}.noise"]
        arrived = self.run(latents, first, {first + k: drawn for k, drawn in enumerate(noise)})
        return arrived, *self.judge(arrived[len(self.steps)])

    def advance(self, number, latents):
        """On from a generation to where the next one is, or to the end."""
        last = len(self.steps)
        first, until = self.schedule[number], [*self.schedule, last][number + 1]
        noise = {step: self.tensors[f"main.noise{step}"] for step in range(first, until)}
        noise[until] = torch.zeros_like(latents)  # a step is told of when it is done
        return self.run(latents, first, noise, until if until < last else None)[until]

    def children(self, number, population, values):
        """The best, then winners of tournaments among a random 90 percent each, with new noise.

        At the first generation it is our mutation of start noise, at the others noise on top of what there is.
        """
        elites = torch.sort(values, descending=True, stable=True).indices[: self.options["elite"]]
        perms, drawn = (self.tensors[f"gen{number}.{name}"] for name in ("perms", "mutation"))
        children = [*population[elites]]
        for order, noise in zip(perms.long(), drawn, strict=True):
            rivals = order[: int(0.9 * len(population))]
            parent = population[rivals[values[rivals].argmax()]]
            if number == 0:
                new = Mutated(Draws(parent, None), Draws(noise, None), self.options["mutation"])
                children.append(new.normal("initial", 0, 0, tuple(parent.shape)))
            else:
                children.append(parent + self.steps[self.schedule[number]].std * noise)
        return torch.stack(children)


def generations(trace, free):
    """What each generation is given, what its roll-out is worth, and the children, as released; each from recorded states, or free.

    What arrived after a scheduled step is taken for what is fed to that same step.
    """
    last = len(trace.schedule)
    pools = {number: ([], []) for number in range(last)}
    latents = trace.tensors["init"]
    for number in range(last):
        if not free:
            latents = trace.tensors[f"gen{number}.in"]
        arrived, pictures, values = trace.roll_out(number, latents)
        for later in range(number, last):
            states, known = pools[later]
            states.append(arrived[trace.schedule[later] + 1])
            known.append(values)
        states, known = (torch.cat(part) for part in pools[number])
        assert len(states) == trace.facts["generations"][number]["population"]
        children = trace.children(number, states, known)
        yield latents, pictures, values, children
        latents = trace.advance(number, children if free else trace.tensors[f"gen{number}.children"])
    yield latents, *trace.judge(latents), None


@pytest.mark.parametrize("free", [False, True], ids=["step by step", "free"])
def test_evolution_as_released(evolved, free):
    best, shown = -math.inf, None
    for number, (given, pictures, values, children) in enumerate(generations(evolved, free)):
        assert float((values - evolved.tensors[f"rewards{number}"]).abs().max()) <= evolved.near
        if float(values.max()) > best:
            best, shown = float(values.max()), pictures[values.argmax()]
        if children is None:
            continue
        assert float((given - evolved.tensors[f"gen{number}.in"]).abs().max()) <= LATENTS
        assert float((children - evolved.tensors[f"gen{number}.children"]).abs().max()) <= LATENTS
        assert best == pytest.approx(evolved.facts["generations"][number]["best_reward"], abs=1e-3)
    assert best == pytest.approx(evolved.facts["best_reward"], abs=1e-3)
    assert picture_difference(shown, evolved.tensors["best_image"]) <= LEVEL
