"""Recorded runs of released particle filters (tiny random models) and our own parts set up for them.

A folder holds ``das/*.safetensors`` and ``search/fk_*.safetensors`` with ``.json`` beside; the models come with the tests.
Draws and conditioning are those recorded.
"""

import json
from copy import copy
from dataclasses import replace
from functools import cache

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from fakes import watching
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.rewards.base import Reward
from align.sampling.ledger import Ledger
from align.sampling.noise import Draws
from align.sampling.sampler import Request, Sampler
from align.sampling.state import Pictures
from align.semantics.sources import no_pairs

from .replay import CPU, SLIM, parameters
from .tiny_lcm import tiny_lcm

PARTICLES = 4


def cases(kind, pattern, given):
    """(folder, name) of every trace that comes with the tests, and of those of a given folder."""
    folders = [folder for folder in (SLIM, given) if folder is not None]
    return [
        (folder, path.stem)
        for folder in folders
        for path in sorted((folder / kind).glob(f"{pattern}.safetensors"))
        if not path.stem.endswith("_calls")
    ]


def parametrize(metafunc, kind, pattern, soon):
    """One test for each trace, slow but for some."""
    found = cases(kind, pattern, metafunc.config.getoption("--golden"))
    metafunc.parametrize("trace", parameters(found, soon), indirect=True, scope="module")


@cache
def tiny(name):
    """A tiny pipeline by its name, for 128x128 pictures."""
    if name == "tiny-lcm":
        return tiny_lcm()
    folder = SLIM / "tiny" / name
    modules = Modules(
        network=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text=(),
        zero_empty=True,
        scheduler_config=dict(DDIMScheduler.from_pretrained(folder / "scheduler").config),
        device=CPU,
    )
    return UNetBackbone(modules, 128, 128)


class PictureReward(Reward):
    """A function of (P, 3, H, W) pictures alone."""

    name, takes_timestep = "picture", False

    def __init__(self, of):
        self.of = of
        self.fingerprint = {}

    def score(self, pictures, prompts, step=None):
        return self.of(pictures)


def redblue(pictures):
    return pictures[:, 0].mean(dim=(1, 2)) - pictures[:, 2].mean(dim=(1, 2))


class RecordedDraws:
    """One particle's draws of a trace in place of a noise stream."""

    def __init__(self, normals, uniforms, particle):
        self.normals, self.uniforms, self.particle = normals, uniforms, particle

    def normal(self, purpose, step, round, shape):
        drawn = self.normals(purpose, step)
        return torch.zeros(shape) if drawn is None else drawn[self.particle]

    def uniform(self, purpose, step, round, shape):
        assert (purpose, self.particle) == ("resample", 0)
        drawn = self.uniforms(step)
        if drawn is None:  # The recorded run did not resample here, which what is drawn will show.
            return torch.full(shape, 0.5, dtype=torch.float64)
        assert drawn.shape == shape
        return drawn


class Replay:
    """A free run of some parts from a trace's draws.

    Attributes:
        evaluated: (state, estimate) that went into each step's selection.
        selected: what came out of it.
        final: state at the end of the process.
        outcomes: the pictures.
    """

    def __init__(self, parts, pictures, draws, population, reward):
        self.selected = []
        chosen = self.selected

        class Selecting(type(parts.select)):
            def __call__(self, *arguments):
                chosen.append((arguments[0], super().__call__(*arguments)))
                return chosen[-1][1]

            def finish(self, state, value):
                chosen.append((state, super().finish(state, value)))
                return chosen[-1][1]

        select = copy(parts.select)
        object.__setattr__(select, "__class__", Selecting)
        parts = replace(parts, select=select, judge=replace(parts.judge, reward=reward))
        self.ledger = Ledger(1)
        sampler = Sampler(parts, no_pairs, CPU, population, lambda request, particle: draws(particle))
        with torch.no_grad(), watching() as log:
            self.final = sampler.run([Request("")], pictures, self.ledger)
            ends = Draws.of(sampler.streams([Request("")]), self.final, len(parts.process.steps), 0)
            (self.outcomes,) = sampler.finish(self.final, pictures, ends, self.ledger)
        self.evaluated = [(state, estimate) for _, state, estimate in log]


def pictures_of(prompt, own, other, pooled=None, size=None):
    """One picture's conditioning, (1, L, width) each; ``pooled`` of prompt and negative."""
    length = own.shape[1]
    more = () if pooled is None else (*pooled, size)
    return Pictures(
        [prompt], Conditioning(own, other, *more), torch.zeros(1, length, length), torch.tensor([False])
    )


class Trace:
    """A recorded run: its tensors by name, and what its file says of it."""

    def __init__(self, folder, kind, name):
        self.name = name
        self.tensors = load_file(folder / f"{kind}/{name}.safetensors")
        self.facts = json.loads((folder / f"{kind}/{name}.json").read_text())

    def get(self, key):
        return self.tensors.get(key)


class Differences:
    """The largest difference of each quantity over a trace; only what the trace holds is compared."""

    def __init__(self, trace):
        self.trace, self.worst = trace, {}

    def add(self, what, ours, key, relative=False):
        recorded = self.trace.get(key)
        if recorded is None:
            return
        ours = torch.as_tensor(ours).double()
        difference = (ours - recorded.double().view(ours.shape)).abs().max()
        if relative:
            difference = difference / recorded.double().abs().max().clamp(min=1e-30)
        self.worst[what] = max(float(difference), self.worst.get(what, 0.0))

    def beyond(self, limits):
        print(f"{self.trace.name}:", {name: f"{value:.1e}" for name, value in self.worst.items()})
        return {name: value for name, value in self.worst.items() if not value <= limits[name]}
