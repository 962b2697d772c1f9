"""A recorded run of the released DSearch or SVDD code (tiny random model), and our own parts fed with its random numbers.

A folder holds ``search/dsearch_*.safetensors`` and ``search/svdd_*.safetensors`` with ``.json`` beside, and ``tiny/tiny-sd``.
The released code lets particles of different prompts compete: here each particle is a picture of its own and all are one group.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from fakes import watching
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.rewards.base import Reward
from align.rewards.formulas import JpegReward
from align.rewards.preprocess import normalise
from align.runner.build import assemble
from align.sampling.batching import Calls
from align.sampling.ledger import Ledger
from align.sampling.loop import Loop, run
from align.sampling.noise import Draws
from align.sampling.parts import wants
from align.sampling.state import Pictures, State
from align.semantics.sources import no_pairs

from .replay import CPU, tiny_backbone

SIDE = 128


def traces(folder):
    """Names of the traces in a folder."""
    found = [
        path.stem for kind in ("dsearch", "svdd") for path in folder.glob(f"search/{kind}_*.safetensors")
    ]
    return sorted(found)


class RedBlue(Reward):
    """Mean of red minus mean of blue of the 8-bit picture, in its units."""

    name, differentiable = "redblue", False

    def score(self, pictures, prompts, step=None):
        means = (pictures * 255).round().double().mean(dim=(2, 3))
        return (means[:, 0] - means[:, 2]).float()


class Tensor224(Reward):
    """Red minus blue and left minus right green of what CLIP would see after a plain bilinear resize."""

    name = "tensor224"

    def score(self, pictures, prompts, step=None):
        y = normalise(F.interpolate(pictures, size=(224, 224), mode="bilinear", align_corners=False))
        means = y.mean(dim=(2, 3))
        green = y[:, 1]
        return (
            means[:, 0] - means[:, 2] + green[..., :112].mean(dim=(1, 2)) - green[..., 112:].mean(dim=(1, 2))
        )


REWARDS = {"redblue": RedBlue, "tensor224": Tensor224, "jpeg": lambda: JpegReward("jpeg_compressibility", -1)}


class Recorded:
    """The draws of one place in the population of a batch instead of a noise stream's.

    What the released code decides after a step, ours decides on the way into the next one.
    """

    def __init__(self, batch, place):
        self.batch, self.place = batch, place

    def normal(self, purpose, step, round, shape):
        assert round == 0
        name, _, candidate = purpose.partition(", candidate ")
        assert name == "step"
        recorded = self.batch.of(step, "noise")[int(candidate or 0)]
        return recorded[self.place % len(recorded)]  # one who should have been dropped has another's

    def uniform(self, purpose, step, round, shape):
        if purpose == "coin":
            return torch.full(shape, self.batch.steps[step]["coin"], dtype=torch.float64)
        assert purpose == "replace"
        draw = self.batch.of(step - 1, "replace_draw")
        # The middle of the uniform numbers that give the recorded survivor.
        chances = self.batch.of(step - 1, "replace_probs").double()
        middles = chances.cumsum(0) - chances / 2
        assert draw.shape == shape
        return middles[draw] / chances.sum()


class Batch:
    """One batch of a trace."""

    def __init__(self, trace, number):
        self.trace, self.number = trace, number
        self.facts = trace.facts["batches"][number]
        self.steps = self.facts["steps"]
        self.tensors = trace.tensors
        self.start = self.tensors[f"batch{number}.init_latents"]

    def of(self, step, name):
        """A tensor of a step, ``None`` where it was not kept."""
        return self.tensors.get(f"batch{self.number}.step{step}.{name}")

    def final(self, name):
        return self.tensors.get(f"batch{self.number}.final_{name}")

    def went_on(self, step):
        """Positions of the particles that went on after a step, in their new order."""
        facts = self.steps[step]
        if "replace_draw" in facts:
            return [*facts["remain"], *(facts["remain"][place] for place in facts["replace_draw"])]
        return facts.get("kept", list(range(facts["n_in"])))

    def streams(self, _picture, place):
        return Recorded(self, place)

    @cached_property
    def pictures(self):
        positive = self.tensors[f"batch{self.number}.pos_embeds"]
        negative = self.tensors[f"batch{self.number}.neg_embeds"]
        number, length = positive.shape[:2]
        return Pictures(
            self.facts["prompts"],
            Conditioning(positive, negative.expand_as(positive)),
            torch.zeros(number, length, length),
            torch.zeros(number, dtype=torch.bool),
        )

    def state(self, latents, drawn):
        """A population: (n, C, h, w) latents of particles whose prompts are those of the start's particles ``drawn``."""
        state = State.of(latents, torch.as_tensor(drawn))
        return replace(state, group=torch.zeros_like(state.picture))

    def drawn(self, step):
        """Which of the start's particles each particle that enters a step comes from."""
        rows = list(range(len(self.start)))
        for before in range(step):
            rows = [rows[place] for place in self.went_on(before)]
        return rows


class Chosen:
    """A selection that keeps what went in and what came out, by the step's index."""

    def __init__(self, select):
        self.select, self.seen = select, {}

    def __call__(self, state, estimate, step, draws):
        selected = self.select(state, estimate, step, draws)
        self.seen[step.index] = (state.z, selected)
        return selected

    def __getattr__(self, name):
        return getattr(self.select, name)


@dataclass
class Found:
    """What was found at a step: K x N values of the candidates, N chosen, who went on, and what they are."""

    values: torch.Tensor
    chosen: list
    went_on: list
    state: State


class _Enough(Exception):
    """The steps that were asked for are done."""


class Trace:
    """A recorded run by folder and name."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.tensors = load_file(folder / f"search/{name}.safetensors")
        self.facts = json.loads((folder / f"search/{name}.json").read_text())
        self.settings = self.facts["config"]
        self.kind = self.settings["reward"]
        self.batches = [Batch(self, number) for number in range(len(self.facts["batches"]))]

    @cached_property
    def backbone(self):
        return tiny_backbone(self.folder / "tiny/tiny-sd", SIDE, SIDE)

    @cached_property
    def config(self):
        """Our preset of the same method with the recorded settings."""
        settings, drop = self.settings, self.settings["drop_schudule"]  # the release's spelling
        options = [
            f"sampler.steps={self.facts['steps']}",
            f"sampler.eta={self.facts['eta']}",
            f"sampler.guidance_scale={self.facts['guidance_scale']}",
            f"method.search.candidates={settings['duplicate_size']}",
        ]
        if self.name.startswith("svdd"):
            method = "svdd_released"
        else:
            method = "dsearch_released" if drop else "dsearch_r_released"
            start = settings["bs"] * settings["oversamplerate"]
            options += [
                f"method.particles={start}",
                f"method.returned={settings['bs']}",
                f"method.search.widen={settings['w']}",
                f"method.search.schedule={settings['search_schudule']}",
                *(self._dropped if drop else ["method.search.drop=none"]),
                f"method.search.replace={settings['replacerate']}",
            ]
        command = ["backbone=sd15", "sampler=ddim_50", "reward=jpeg_compressibility", f"method={method}"]
        return jobs_of(parse([*command, *options]))[0].config

    @property
    def _dropped(self):
        """The recorded populations, whose last can be more than are returned: there the formula has the last word."""
        batch = self.batches[0]
        numbers = [len(batch.went_on(step)) for step in range(self.facts["steps"] - 1)]
        return ["method.search.drop=list", f"method.search.populations={numbers}"]

    def parts(self, batch_size):
        """The method's parts, with eyes on selections."""
        reward = REWARDS[self.kind]()
        parts = assemble(self.config, self.backbone, reward, no_pairs, Calls(batch_size), CPU).parts
        return replace(parts, select=Chosen(parts.select))

    def run(self, batch, batch_size=16, steps=None):
        """A batch from its start on.

        Args:
            batch: whose draws.
            batch_size: of every call.
            steps: how many selecting steps to take; ``None`` for the whole run.

        Returns:
            What was found at each selecting step, the final latents and the ledger.
        """
        parts = self.parts(batch_size)
        ledger = Ledger(len(batch.start))
        state = batch.state(batch.start, range(len(batch.start)))
        taken = steps or self.facts["steps"] - 1

        def watch(info):
            if steps is not None and info.step.index == steps:
                raise _Enough

        with suppress(_Enough), watching() as log, torch.no_grad():
            state = run(parts, state, batch.pictures, batch.streams, ledger, on_evaluation=watch)
        return [self._found(parts, index, log) for index in range(taken)], state.z, ledger

    def step(self, batch, index, batch_size=16):
        """What is found at one selecting step, from the recorded latents that enter it."""
        parts = self.parts(batch_size)
        loop = Loop(parts, batch.pictures, batch.streams, Ledger(len(batch.start)))
        state = batch.state(batch.of(index, "latents_in"), batch.drawn(index))
        step, following = parts.process.steps[index : index + 2]
        want = wants(parts, step, state, batch.pictures)
        once = torch.zeros(len(state.z), dtype=torch.bool)
        with torch.no_grad():
            estimate = loop.evaluate(state, step, want, Draws.of(batch.streams, state, index, 0))
            with watching() as log:
                state, estimate, *_ = loop.children(state, estimate, step, want, 0, once)
            parts.select(state, estimate, following, Draws.of(batch.streams, state, following.index, 0))
        return self._found(parts, index, log)

    def _found(self, parts, index, log):
        """What the loop did at a selecting step: candidates are evaluated, and selected among, at the following one."""
        children, selected = parts.select.seen[index + 1]
        seen = [(state.z, estimate.value) for step, state, estimate in log if step.index == index + 1]
        candidates = torch.cat([z for z, _ in seen]).unflatten(0, (-1, len(children)))
        values = torch.cat([value for _, value in seen]).view(candidates.shape[:2])
        same = (candidates == children).flatten(2).all(dim=2)
        assert bool(same.any(dim=0).all())
        return Found(values, same.int().argmax(dim=0).tolist(), selected.index.tolist(), selected.state)
