"""The step-aware preference model that SPO follows (arXiv 2406.04314): PickScore's architecture that is told the timestep.

Of a pair of pictures both get the same noise at the same time, one guided evaluation of the frozen backbone predicts what they were,
and the model learns which prediction belongs to the preferred picture: two-way cross entropy of exp(scale) times the cosines.
Pictures are clamped before they are resized, and once more after it; where the model guides they are clamped after it alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from align import writing
from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.processes.base import Step, together
from align.processes.ddim import scheduler_of
from align.rewards.preprocess import fit, normalise
from align.rewards.step_aware import StepAwareModel
from align.sampling.noise import NoiseStream
from align.training.base import Example
from align.training.pairs import Pair, Pairs
from align.training.ranks import Ranks
from align.training.rounds import Rounds

TIMES = (0, 251, 501, 701, 951)
"""At which pairs are examined; 0 is clean pictures."""


@dataclass(frozen=True)
class Judged(Example):
    """A pair as it looks from a noise level.

    Attributes:
        prompt: of both.
        pictures: (2, 3, H, W) predictions, about [0, 1].
        time: training timestep.
        label: probability that the first is preferred; 0.5 for a tie.
    """

    prompt: str
    pictures: Tensor
    time: int
    label: float = 1.0


@dataclass(frozen=True)
class Looks:
    """A frozen backbone's predictions of pictures that noise was laid over."""

    backbone: Backbone
    guider: Guider
    conditioning: Callable[[Sequence[str]], Conditioning]
    device: torch.device

    def step(self, time: int) -> Step:
        """Where a training timestep is."""
        abar = float(scheduler_of(self.backbone.scheduler_config).alphas_cumprod[time].double())
        return Step(0, time, 0, abar**0.5, (1 - abar) ** 0.5, 1, 0, 0, 0, time)

    @torch.no_grad()
    def __call__(self, clean: Tensor, noise: Tensor, times: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """Pictures (P, 3, H, W) for clean latents and noise (P, C, h, w); the other rows of a call change nothing."""
        steps = together([self.step(time) for time in times], clean)
        z = steps.a * clean + steps.s * noise
        found = self.backbone.predict(z, steps, self.conditioning(prompts), self.guider, correction=False)
        return self.backbone.decode(found.x0)


@dataclass
class Spm:
    """The lesson.

    Attributes:
        data, places: pairs, and those of a round.
        model: float32; ``ids`` are a prompt's tokens, (length,).
        size: of its pictures.
    """

    data: Pairs
    places: Rounds[int]
    looks: Looks
    model: StepAwareModel
    ids: Callable[[str], Tensor]
    size: int
    seed: int

    def collect(self, round_: int, ranks: Ranks) -> list[Judged]:
        epoch, every = self.places(round_)
        found = []
        for number in ranks.share(every):
            pair = self.data[number]
            stream = NoiseStream(self.seed, pair.key, epoch)
            time = int(float(stream.uniform("time", 0, 0, (1,))) * 1000)
            noise = stream.normal("noise", 0, 0, tuple(pair.chosen.shape))
            found.append(self.look(f"{epoch}\x1f{pair.key}", pair, noise, time))
        return found

    def look(self, key: str, pair: Pair, noise: Tensor, time: int) -> Judged:
        """A pair under noise (C, h, w)."""
        clean = torch.stack([pair.chosen, pair.rejected]).to(self.looks.device)
        noises = noise.to(clean).expand_as(clean)
        return Judged(key, pair.prompt, self.looks(clean, noises, [time] * 2, [pair.prompt] * 2).cpu(), time)

    def loss(self, examples: Sequence[Judged]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.scores(examples)
        label = scores.new_tensor([one.label for one in examples])
        weight = scores.new_tensor([one.weight for one in examples])
        each = cross_entropy(scores, label)
        right = ((scores[:, 0] > scores[:, 1]) == (label > 0.5)).float()
        return (weight * each).sum() / weight.sum(), {"right": (weight * right).sum() / weight.sum()}

    def scores(self, examples: Sequence[Judged]) -> Tensor:
        """(n, 2) of both pictures of each."""
        device = self.looks.device
        pixels = torch.cat([one.pictures for one in examples]).to(device)
        pixels = normalise(fit(pixels.clamp(0, 1), self.size, "spo"))
        times = torch.tensor([one.time for one in examples for _ in range(2)], device=device)
        seen = F.normalize(self.model.see(pixels, times), dim=-1).view(len(examples), 2, -1)
        ids = torch.stack([self.ids(one.prompt) for one in examples]).to(device)
        read = F.normalize(self.model.read(ids), dim=-1)
        return self.model.logit_scale.exp() * (seen * read[:, None]).sum(dim=-1)


def cross_entropy(scores: Tensor, label: Tensor) -> Tensor:
    """Of (n, 2) scores with the probability (n,) that the first is better; 0 is its least for a tie too."""
    log_p = F.log_softmax(scores, dim=-1)
    each = -(label * log_p[:, 0] + (1 - label) * log_p[:, 1])
    return each - math.log(2) * (label == 0.5)


@torch.no_grad()
def from_clip(clip: Mapping[str, Tensor], model: StepAwareModel, seed: int) -> StepAwareModel:
    """Give a step-aware model the weights of a CLIP, in the state in which it judges as that, whatever the time.

    Gates are 1 and all other modulation is 0; the timestep's embedding has weights of deviation 0.02.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".adaLN_modulation." in f".{name}":
            parameter.zero_()
            if name.endswith("bias") and ".layers." in name:
                parameter.view(6, -1)[[2, 5]] = 1
        elif name.startswith("t_embedder."):
            parameter.zero_()
            if name.endswith("weight"):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        else:
            parameter.copy_(clip[name])
    return model


@dataclass(frozen=True)
class Saved:
    """The model as the loop trains it, and as ``align.rewards.step_aware`` reads it; ``tokenizer`` are further files."""

    model: StepAwareModel
    tokenizer: Mapping[str, bytes]

    def __post_init__(self) -> None:
        self.model.requires_grad_(True)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def save(self, folder: Path) -> None:
        """As a folder of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.model.named_parameters()}
        config = json.dumps(self.model.config.to_dict(), indent=1, sort_keys=True) + "\n"
        files = {**self.tokenizer, "config.json": config.encode(), "model.safetensors": save(tensors)}
        for name, data in files.items():
            writing.write_bytes(folder / name, data)


@dataclass(frozen=True)
class PairAccuracy:
    """The examiner: how often held-out pairs are in the right order, at all ``TIMES`` together and at each."""

    lesson: Spm
    held_out: Sequence[int]

    @property
    def names(self) -> Sequence[str]:
        return ("right", *(f"right_at_{time}" for time in TIMES))

    @torch.no_grad()
    def __call__(self, ranks: Ranks) -> list[tuple[float, ...]]:
        rows = []
        for number in ranks.share(self.held_out):
            pair = self.lesson.data[number]
            noise = NoiseStream(self.lesson.seed, pair.key, 0).normal(
                "held out", 0, 0, tuple(pair.chosen.shape)
            )
            clean = self.lesson.looks.backbone.decode(
                torch.stack([pair.chosen, pair.rejected]).to(self.lesson.looks.device)
            )
            judged = [Judged("", pair.prompt, clean, 0)]
            judged += [self.lesson.look("", pair, noise, time) for time in TIMES[1:]]
            scores = self.lesson.scores(judged)
            right = (scores[:, 0] > scores[:, 1]).double().tolist()
            rows.append((sum(right) / len(right), *right))
        return rows
