"""A recorded run of the released DNO or ReNO programs (tiny random models), and our own strategy set up for it.

A folder holds ``noise/dno_*.safetensors`` and ``noise/reno_*.safetensors`` with ``.json`` beside, ``tiny/<pipeline>``, ``dymo/spm_tiny``, and
``dymo/trace_sdxl_full.safetensors``, which has the embeddings of ReNO's runs on Stable Diffusion XL.
"""

import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import SimpleNamespace
from unittest.mock import patch

import torch
from fakes import passes
from safetensors.torch import load_file
from transformers import CLIPModel

from align.backbones.base import Conditioning
from align.config.strategy import NoiseGradientConfig
from align.processes.base import Gaussian, Process
from align.processes.ddim import ddim
from align.processes.few import few
from align.released.noise_gradient import LostGradient
from align.rewards.base import Reward
from align.rewards.clip import clip_config, load_tokenizer, token_ids
from align.rewards.formulas import JpegReward
from align.rewards.preprocess import normalise
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


PALE = 8
"""By how much pictures are nearer to grey where a reward sees them as they are decoded: nothing of them is cut off."""


class White(Reward):
    """Mean of the decoded picture in [-1, 1], of a pale one."""

    name = "white"

    def score(self, pictures, prompts, step=None):
        return PALE * (2 * pictures - 1).mean(dim=(1, 2, 3))


class Pale:
    """A backbone whose pictures are pale."""

    def __init__(self, backbone):
        self.backbone = backbone

    def decode(self, latents):
        return 0.5 + (self.backbone.decode(latents) - 0.5) / PALE

    def __getattr__(self, name):
        return getattr(self.backbone, name)


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
        return (means[:, 0] - means[:, 2]).float()


class Contrastive(Reward):
    """Scale times the cosine of the tiny preference model."""

    name = "contrastive"

    def __init__(self, model, see, scale):
        self.model, self.see, self.scale = model, see, scale

    def score(self, pictures, prompts, step=None):
        seen = self.model.see(self.see(pictures))
        cosine = (torch.nn.functional.normalize(seen, dim=-1) * self.model.texts(prompts)).sum(-1)
        return self.scale * cosine


def plain_clip(folder, tokenizer_folder):
    """The tiny preference model as a PickScore: no timestep modulates it."""
    config, tokenizer = clip_config(folder), load_tokenizer(tokenizer_folder)
    model = CLIPModel(config).eval().requires_grad_(False)
    tensors = load_file(folder / "spm.safetensors")
    told = {key.removeprefix("model."): value for key, value in tensors.items()}
    left = model.load_state_dict(told, strict=False)
    assert not [key for key in left.missing_keys if "position_ids" not in key]
    assert all("adaLN" in key or "t_embedder" in key for key in left.unexpected_keys)

    @cache
    def read(prompt):
        ids = token_ids(tokenizer, prompt, config.text_config.max_position_embeddings)
        pooled = model.text_projection(model.text_model(input_ids=ids).pooler_output)[0]
        return torch.nn.functional.normalize(pooled, dim=-1)

    return SimpleNamespace(
        see=lambda pixels: model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
        texts=lambda prompts: torch.stack([read(prompt) for prompt in prompts]),
        scale=float(model.logit_scale.exp()),
        size=config.vision_config.image_size,
    )


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

    def neighbourhood(self, trials, noises, leaves, iteration):
        """By the recorded sizes of files: another library's differ by a few bytes, and so do the neighbours'."""
        if not isinstance(self.trace.reward, JpegReward):
            return super().neighbourhood(trials, noises, leaves, iteration)
        number = range(1, self.trace.workers + 1)
        losses = [self.trace.of(iteration, f"worker{worker}.losses") for worker in number]
        told = iter(-torch.cat([one[:-1] for one in losses]))
        recorded = lambda reward, pictures, *_: torch.stack([next(told) for _ in pictures])  # noqa: E731
        with patch.object(JpegReward, "score", recorded):
            slope = super().neighbourhood(trials, noises, leaves, iteration)
        return lambda some, shown, base: slope(some, shown, -losses[0][-1:])

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

    pale = False

    @cached_property
    def backbone(self):
        backbone = tiny_backbone(
            self.folder / "tiny" / self.facts["pipeline"], SIDE, SIDE, guidance=self.guidance
        )
        return Pale(backbone) if self.pale else backbone

    def shown(self, pictures):
        """Pictures as they would be without being pale."""
        return (0.5 + (pictures - 0.5) * PALE).clamp(0, 1) if self.pale else pictures

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
        return plain_clip(self.folder / "dymo/spm_tiny", self.folder / "tiny/tiny-sd/tokenizer")

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


@dataclass(frozen=True)
class Listed(Process):
    """z' = cx z + cd eps + std noise, with coefficients for each step."""

    of_z: list[float]
    of_eps: list[float]

    def kernel(self, x0, eps, step):
        z = step.a * x0 + step.s * eps
        return Gaussian(self.of_z[step.index] * z + self.of_eps[step.index] * eps, step.std)


class DNO(Trace):
    guidance = "pair"

    @property
    def pale(self):
        return self.facts["reward"] in ("white", "black")

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
        """DDIM whose last step draws no noise, with the recorded coefficients: of float32, which Adam tells apart."""
        process = ddim(self.backbone.scheduler_config, self.steps, self.options["eta"])
        told = self.facts["coefficients"]
        steps = [
            replace(step, std=std) for step, std in zip(process.steps, reversed(told["nl"]), strict=True)
        ]
        return Listed(tuple(steps), told["cx"][::-1], told["cd"][::-1])

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
                model, lambda pictures: normalise(_resized(pictures, model.size, "bilinear")), model.scale
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
    guidance = "none"
    scale = 1.0
    slots = (("initial", 0),)
    quirks: dict = {}  # noqa: RUF012

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

    @property
    def halved(self):
        """Whether losses are of a picture in float16."""
        return "float16" in self.facts["scheduler"]

    @cached_property
    def reward(self):
        size = int(self.facts["preprocess"].removeprefix("shorter side to ").partition(",")[0])

        def see(pictures):
            if self.halved:
                pictures = pictures.half()
            return normalise(_resized(pictures, size, "bicubic"))

        def kind(name):
            if name == "RedBlue":
                return 2, RedBlue(see)
            offset = {"PickScore": 30, "CLIP": 100, "HPS": 1}[name]
            model = self.judge_model
            return offset, Contrastive(model, see, 1 if name == "HPS" else model.scale)

        return Sum([(weight, *kind(name)) for name, weight in self.options["losses"]])

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


def _resized(pictures, size, mode):
    """As torchvision's Resize, which computes in float32 and does not clamp."""
    resized = torch.nn.functional.interpolate(
        pictures.float(), size=(size, size), mode=mode, antialias=True, align_corners=False
    )
    return resized.to(pictures.dtype)


def trace_of(folder, name):
    return (DNO if name.startswith("dno") else ReNO)(folder, name)


def trials_of(trace, strategy):
    return Trials(strategy.sampler, [trace.request], lambda done: None)
