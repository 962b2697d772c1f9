"""A recorded run of the released DNO or ReNO programs (tiny random models), and our own strategy set up for it.

A folder holds ``noise/dno_*.safetensors`` and ``noise/reno_*.safetensors`` with ``.json`` beside, ``tiny/<pipeline>``, ``dymo/spm_tiny``, and
``dymo/trace_sdxl_full.safetensors``, which has the embeddings of ReNO's runs on Stable Diffusion XL.
"""

import json
from dataclasses import replace
from functools import cached_property

import torch
from fakes import passes
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.config.strategy import NoiseGradientConfig
from align.processes.ddim import ddim
from align.processes.few import few
from align.released.noise_gradient import LostGradient
from align.rewards.base import Reward
from align.rewards.formulas import JpegReward
from align.rewards.preprocess import fit, normalise
from align.rewards.step_aware import load_step_aware
from align.sampling.parts import Parts
from align.sampling.sampler import Request, Sampler
from align.sampling.state import Pictures
from align.semantics.sources import no_pairs
from align.strategies.base import Trials
from align.strategies.noise_gradient import NoiseGradient

from .replay import CPU, tiny_backbone

SIDE = 128


def traces(folder, kind):
    """Names of the traces of a kind in a folder."""
    return sorted(path.stem for path in folder.glob(f"noise/{kind}_*.safetensors"))


class White(Reward):
    """Mean of the picture in [-1, 1]."""

    name = "white"

    def score(self, pictures, prompts, step=None):
        return (2 * pictures - 1).mean(dim=(1, 2, 3))


class Black(White):
    name = "black"

    def score(self, pictures, prompts, step=None):
        return -super().score(pictures, prompts)


class RedBlue(Reward):
    """Red minus blue, of what ``see`` makes of a picture."""

    name = "redblue"

    def __init__(self, see=lambda pictures: pictures):
        self.see = see

    def score(self, pictures, prompts, step=None):
        means = self.see(pictures).mean(dim=(2, 3))
        return means[:, 0] - means[:, 2]


class Contrastive(Reward):
    """Scale times the cosine of the tiny preference model."""

    name = "contrastive"

    def __init__(self, model, see, scale):
        self.model, self.see, self.scale = model, see, scale

    def score(self, pictures, prompts, step=None):
        seen = self.model.see(self.see(pictures), torch.zeros(len(pictures), dtype=torch.long))
        cosine = (torch.nn.functional.normalize(seen, dim=-1) * self.model.texts(prompts)).sum(-1)
        return self.scale * cosine


class Sum(Reward):
    """Weighed losses, each a constant less a reward; the sum's negative is the reward."""

    name = "sum"

    def __init__(self, terms):
        self.terms = terms

    def score(self, pictures, prompts, step=None):
        return -sum(weight * (offset - one.score(pictures, prompts)) for weight, offset, one in self.terms)


class Recorded:
    """A trace's draws in place of a noise stream's."""

    def __init__(self, trace):
        self.trace = trace

    def normal(self, purpose, step, round, shape):
        kind, _, told = purpose.partition(", neighbour ")
        if told:
            number, _, iteration = told.partition(" of ")
            slot = self.trace.slots.index((kind, step))
            return self.trace.nearby(int(iteration))[slot, int(number)]
        return self.trace.first(kind, step)

    def uniform(self, purpose, step, round, shape):
        raise AssertionError(purpose)


class Encoded(Sampler):
    """Of recorded embeddings."""

    trace = None

    def encode(self, requests):
        assert len(requests) == 1
        return self.trace.pictures


class Replayed(NoiseGradient):
    """With the recorded orders of the penalty, and what it was given at each iterate."""

    trace = None

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.seen, self.found = [], []

    def orders(self, noise, iteration, number):
        return self.trace.orders(iteration, number)

    def walk_back(self, trials, noises, leaves, iteration):
        before = leaves[0].detach().clone()
        gradients, finite = super().walk_back(trials, noises, leaves, iteration)
        self.seen.append((before, gradients[0]))
        return gradients, finite

    def offer(self, trials, found, leaves, iteration):
        super().offer(trials, found, leaves, iteration)
        self.found.append(found)


class Trace:
    """A recorded run by folder and name."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.tensors = load_file(folder / f"noise/{name}.safetensors")
        self.facts = json.loads((folder / f"noise/{name}.json").read_text())
        self.options = self.facts["options"]

    @cached_property
    def backbone(self):
        return tiny_backbone(self.folder / "tiny" / self.facts["pipeline"], SIDE, SIDE)

    @property
    def request(self):
        return Request(self.facts.get("prompt") or self.options.get("prompt") or "", seed=0)

    def conditioning(self, prompt, negative, pooled=None, size=None):
        more = (None, None) if pooled is None else (pooled[-1:], pooled[:1])
        return Conditioning(prompt, negative, *more, size)

    @cached_property
    def pictures(self):
        length = self.embeddings.prompt.shape[1]
        return Pictures(
            [self.request.prompt],
            self.embeddings,
            torch.zeros(1, length, length),
            torch.zeros(1, dtype=torch.bool),
            [False],
            [""],
        )

    @cached_property
    def judge_model(self):
        folder = self.folder / "dymo/spm_tiny"
        tokenizer = self.folder / "tiny/tiny-sd/tokenizer"
        return load_step_aware("spm_tiny", folder, tokenizer, weights=folder / "spm.safetensors")

    @cached_property
    def sampler(self):
        parts = Parts(*passes(self.backbone, self.scale, 1, reward=self.reward), self.process)
        sampler = Encoded(parts, no_pairs, CPU, noise=lambda request, particle: Recorded(self))
        sampler.trace = self
        return sampler

    def strategy(self):
        strategy = Replayed(self.sampler, self.config, **self.quirks)
        strategy.trace = self
        return strategy

    def iterates(self):
        return range(sum(f"it{k}.z" in self.tensors for k in range(1000)))

    def of(self, iteration, name):
        return self.tensors[f"it{iteration}.{name}"]


class DNO(Trace):
    @property
    def scale(self):
        return self.options["guidance_scale"]

    @property
    def steps(self):
        return self.options["num_steps"]

    @cached_property
    def slots(self):
        return [*(("step", self.steps - 1 - slot) for slot in range(self.steps)), ("initial", 0)]

    @cached_property
    def process(self):
        """Whose last step draws no noise."""
        process = ddim(self.backbone.scheduler_config, self.steps, self.options["eta"])
        return replace(process, steps=(*process.steps[:-1], replace(process.steps[-1], std=0.0)))

    @cached_property
    def embeddings(self):
        both = self.tensors["prompt_embeds"]
        size = self.tensors.get("add_time_ids")
        return self.conditioning(
            both[1:], both[:1], self.tensors.get("add_text_embeds"), None if size is None else size[:1]
        )

    @cached_property
    def reward(self):
        kind = self.facts["reward"]
        if kind == "pick":
            model = self.judge_model
            return Contrastive(
                model, lambda pictures: normalise(_bilinear(pictures, model.size)), model.scale
            )
        return {
            "white": White,
            "black": Black,
            "redblue": RedBlue,
            "jpeg": lambda: JpegReward("jpeg_compressibility", -1),
        }[kind]()

    @cached_property
    def hybrid(self):
        return any(".worker" in key for key in self.tensors)

    @cached_property
    def workers(self):
        return sum(f"it0.worker{k}.xi" in self.tensors for k in range(1, 100))

    @cached_property
    def config(self):
        options = self.options
        last = None if options["opt_time"] >= self.steps else options["opt_time"] + 1
        gamma = options["gamma"]
        return NoiseGradientConfig(
            iterations=options["opt_steps"],
            over="all",
            last=last,
            optimiser="adamw",
            rate=options["lr"],
            decay=self.facts["weight_decay"],
            clip=self.facts["grad_clip"],
            penalty="gaussian" if gamma else "none",
            weight=gamma,
            subsample=options.get("subsample", 1),
            estimate="hybrid" if self.hybrid else "exact",
            neighbours=self.workers * options["batch_per_device"] if self.hybrid else 1,
            radius=options["mu"] if self.hybrid else 1,
        )

    @property
    def quirks(self):
        lost = {"differentiable": LostGradient} if "network_gradient" in self.facts else {}
        return {"keep_last": True, "idle": True, **lost}

    def first(self, purpose, step):
        return self.of(0, "z")[self.slots.index((purpose, step))]

    def nearby(self, iteration):
        return torch.cat([self.of(iteration, f"worker{k}.xi") for k in range(1, self.workers + 1)], dim=1)

    def orders(self, iteration, number):
        if f"it{iteration}.perms" in self.tensors:
            return self.of(iteration, "perms").long()
        return self._drawn_orders(number)[iteration]

    def _drawn_orders(self, number):
        """As released: they follow the start noise on torch's global generator."""
        generator = torch.Generator().manual_seed(self.options["seed"])
        assert torch.equal(torch.randn(self.of(0, "z").shape, generator=generator), self.of(0, "z"))
        return [
            torch.stack(
                [torch.randperm(number, generator=generator) for _ in range(self.facts["permutations"])]
            )
            for _ in self.iterates()
        ]


class ReNO(Trace):
    scale = 1.0
    slots = (("initial", 0),)
    quirks: dict = {}  # noqa: RUF012

    @cached_property
    def backbone(self):
        return tiny_backbone(self.folder / "tiny" / self.facts["pipeline"], SIDE, SIDE, guidance="none")

    @cached_property
    def process(self):
        schedule, times = self.backbone.scheduler_config, [int(time) for time in self.facts["timesteps"]]
        if self.facts["scheduler"].startswith("LCM"):
            return few(schedule, len(times), 1, "stochastic", "unit", times)
        return few(schedule, len(times), 1, times=times)

    @cached_property
    def embeddings(self):
        if self.facts["pipeline"] == "tiny-sdxl":
            embedded = load_file(self.folder / "dymo/trace_sdxl_full.safetensors")
            prompt, pooled = embedded["init/prompt_embeds"][1:], embedded["init/add_text_embeds"]
            size = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]], dtype=torch.float32)
            return self.conditioning(prompt, torch.full_like(prompt, torch.nan), pooled, size)
        prompt = self.tensors["prompt_embeds"]
        return self.conditioning(prompt, torch.full_like(prompt, torch.nan))

    @cached_property
    def reward(self):
        model = self.judge_model

        def see(pictures):
            if "float16" in self.facts["scheduler"]:
                pictures = pictures.half().float()
            return normalise(fit(pictures, model.size, "clip"))

        kinds = {
            "PickScore": (30, Contrastive(model, see, model.scale)),
            "CLIP": (100, Contrastive(model, see, model.scale)),
            "HPS": (1, Contrastive(model, see, 1)),
            "RedBlue": (2, RedBlue(see)),
        }
        return Sum([(weight, *kinds[name]) for name, weight in self.options["losses"]])

    @cached_property
    def config(self):
        options = self.options
        return NoiseGradientConfig(
            iterations=options["n_iters"] - 1,
            over="start",
            optimiser={"sgd": "sgd", "adam": "adamw"}[options["optim"]],
            rate=options["lr"],
            nesterov=options["nesterov"],
            epsilon=1e-2,
            clip=options["grad_clip"],
            penalty="norm" if options["reg"] else "none",
            weight=options["reg_weight"],
        )

    def first(self, purpose, step):
        return self.of(0, "z")[0] if purpose == "initial" else self.tensors[f"noise{step}"][0]


def _bilinear(pictures, size):
    return torch.nn.functional.interpolate(
        pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def trace_of(folder, name):
    return (DNO if name.startswith("dno") else ReNO)(folder, name)


def trials_of(trace, strategy):
    return Trials(strategy.sampler, [trace.request], lambda done: None)
