"""Small differentiable stand-ins that count what is asked of them."""

import hashlib
import re
from collections import Counter
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F

from align.backbones.base import Encoded, Prediction
from align.backbones.guider import Guider
from align.processes.base import clean_and_noise, noise_slope
from align.rewards.base import Reward
from align.sampling.batching import Calls
from align.sampling.judge import Judge
from align.sampling.loop import Loop
from align.sampling.predict import Predict
from align.semantics.graph import Entity, Graph

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
TOKENS, WIDTH, CHANNELS, SIDE = 10, 6, 3, 4
CPU = torch.device("cpu")


def seeded(text, *shape):
    """Fixed numbers for a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:7], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(context, x, counts, what, share):
        context.counts, context.what, context.share = counts, what, share
        counts[f"{what}_forward"] += share * len(x)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        context.counts[f"{context.what}_backward"] += context.share * len(gradient)
        return gradient, None, None, None


def counted(x, counts, what, share=1):
    """``x`` itself; rows are counted on the way there and on the way back."""
    return _Count.apply(x, counts, what, share)


class FakeBackbone:
    """A convolution with cross-attention and a smooth decoder: 4x4 latents, 8x8 pictures, a token a word."""

    def __init__(self):
        self.scheduler_config = dict(SCHEDULE)
        self.counts = Counter()
        self.attention_asked = []
        self.batches = []
        self.conv = 0.3 * seeded("conv", CHANNELS, CHANNELS, 3, 3)
        self.query = seeded("query", CHANNELS, WIDTH)
        self.value = 0.5 * seeded("value", WIDTH, CHANNELS)
        self.up = 0.4 * seeded("up", CHANNELS, 3, 2, 2)

    def latent_shape(self):
        return CHANNELS, SIDE, SIDE

    def encode(self, prompt, negative):
        words = [found.span() for found in re.finditer(r"\S+", prompt)][: TOKENS - 2]
        offsets = ((0, 0), *words) + ((0, 0),) * (TOKENS - 1 - len(words))
        return Encoded(
            seeded(prompt, TOKENS, WIDTH),
            seeded(negative, TOKENS, WIDTH),
            offsets,
            len(words) + 1,
            len(prompt.split()) > len(words),
        )

    def predict(
        self,
        z,
        step,
        conditioning,
        guider,
        attention=None,
        correction=True,
    ):
        self.attention_asked.append(attention)
        self.batches.append(len(z))
        weak = None
        if guider.weakens(step) is not None:  # The weaker network sees neither text nor its neighbours.
            weak = 0.4 * counted(z, self.counts, "network")
        alone = guider.scale != 1 and not (guider.pairs(step) or correction or attention == "both")
        z = counted(z, self.counts, "network", 0.5 if alone else 1)
        base = torch.tanh(F.conv2d(z, self.conv, padding=1)) * (0.5 + step.fraction)
        query = z.flatten(2).transpose(1, 2) @ self.query
        halves = []
        for states in (conditioning.negative, conditioning.prompt):
            maps = torch.softmax(query @ states.transpose(1, 2), dim=-1)
            mixed = (maps @ (states @ self.value)).transpose(1, 2).unflatten(2, (SIDE, SIDE))
            halves.append((0.5 * z + base + 0.3 * mixed, maps.unflatten(1, (SIDE, SIDE))))
        (other, other_maps), (own, own_maps) = halves
        eps, kind = guider(step, own, other, weak), self.scheduler_config["prediction_type"]
        x0, eps = clean_and_noise(eps, z, step, kind)
        maps = {None: None, "both": (other_maps + own_maps) / 2, "prompt": own_maps}[attention]
        return Prediction(eps, x0, noise_slope(step, kind) * (own - other), maps)

    def decode(self, z0):
        z0 = counted(z0, self.counts, "decoder")
        return 0.5 + 0.6 * torch.tanh(F.conv_transpose2d(z0, self.up, stride=2))

    def describe(self, z0):
        return [{} for _ in z0]


class FakeFlow(FakeBackbone):
    """Of which the same numbers are velocities."""

    def __init__(self):
        super().__init__()
        self.scheduler_config = {"prediction_type": "velocity", "shift": 3.0, "shift_terminal": None}


class GaussianBackbone(FakeBackbone):
    """The exact denoiser of latents drawn from N(mean, deviation^2), with a constant guidance correction."""

    def __init__(self, mean, deviation, shape):
        super().__init__()
        self.mean, self.deviation, self.shape = mean, deviation, shape

    def latent_shape(self):
        return self.shape

    def predict(self, z, step, *_, **__):
        a, s = step.a, step.s
        eps = (z - a * self.mean) * s / ((a * self.deviation) ** 2 + s**2)
        x0, eps = clean_and_noise(eps, z, step, "epsilon")
        return Prediction(eps, x0, torch.ones_like(z))

    def decode(self, z0):
        return z0[:, :1].expand(-1, 3, -1, -1)


class FakeReward(Reward):
    """A smooth function of picture, prompt and timestep."""

    name = "fake"

    def __init__(self, takes_timestep=True, broken=(), flat=()):
        self.takes_timestep = takes_timestep
        self.broken, self.flat = broken, flat
        self.fingerprint = {}
        self.counts = Counter()
        self.times = []

    def score(self, pictures, prompts, step=None):
        assert len(pictures) == len(prompts)
        self.times.append(step)
        pictures = counted(pictures, self.counts, "reward")
        wanted = torch.stack([seeded(prompt, *pictures.shape[1:]) for prompt in prompts])
        score = 2 + torch.tanh(pictures * wanted).flatten(1).sum(dim=1)
        if step is not None:
            score = score * (1 + step / 1000)
        factor = torch.tensor([0.0 if prompt in self.flat else 1.0 for prompt in prompts])
        broken = torch.tensor([torch.nan if prompt in self.broken else 0.0 for prompt in prompts])
        return score * factor + broken


def words_graph(prompt):
    """ "cat" and "dog" as objects with the colours before them."""
    entities, attributes = [], []
    for found in re.finditer(r"\S+", prompt):
        if found[0] in ("cat", "dog"):
            entities.append(Entity(found.span(), tuple(attributes)))
            attributes = []
        elif found[0] in ("red", "blue"):
            attributes.append(found.span())
    return Graph(tuple(entities))


def passes(
    backbone, scale, size, objective=None, reward=None, clean=None, judged=None, rescale=0.0, **judging
):
    """The first two parts of a method: network calls of ``size`` rows, decoder calls of ``judged`` or as many."""
    judge = Judge(backbone, Calls(judged or size), reward, objective, clean, **judging)
    pair = scale if getattr(backbone, "guidance", "pair") == "pair" else 1.0
    return Predict(backbone, Guider(pair, rescale, scale), Calls(size)), judge


@contextmanager
def watching():
    """(step, state, estimate) of every evaluation: of particles that are alike once, of candidates too."""
    log, inner = [], Loop.evaluate

    def evaluate(self, state, step, *rest):
        alike = self.twins is not None
        found = inner(self, state, step, *rest)
        if not alike:
            log.append((step, state, found))
        return found

    with patch.object(Loop, "evaluate", evaluate):
        yield log


@contextmanager
def spied(seen, *watched):
    """Counts in ``seen`` the rows of every call of some modules, forward and back: each (module, what it is, halves)."""

    def watch(module, what, halves):
        def add(direction, rows):
            seen[f"{what}_{direction}"] += len(rows) // halves

        def forward(module, inputs, output):
            add("forward", inputs[0])
            if inputs[0].requires_grad:
                inputs[0].register_hook(lambda gradient: add("backward", gradient))

        return module.register_forward_hook(forward)

    handles = [watch(*one) for one in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
