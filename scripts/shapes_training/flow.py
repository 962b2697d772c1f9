"""Stage ``flow``: a flow transformer on the latents and the text encoder of the denoiser.

Rectified flow, z = (1 - sigma) x0 + sigma eps, with the network's output the velocity eps - x0.  The denoiser teaches: its
prediction at the level of equal signal-to-noise ratio is the mean of what a rendered picture's own velocity is a single sample
of, so that far fewer pictures do.  What sampling uses is taught: the velocity after guidance, at latents of the network's own
samplings.  As in the denoiser, attention is taught where each phrase's objects are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from align.backbones.joint_attention import SD3Recorder
from align.processes.base import clean_and_noise, kernel
from align.processes.flow import flow as flow_process
from align.shapes.grammar import Caption
from scripts.shapes_training.data import MASK_SIDE
from scripts.shapes_training.denoiser import (
    ATTENTION_WEIGHT,
    BATCH,
    CPU,
    OBJECT_WEIGHT,
    WIDTH,
    Denoiser,
    attention_loss,
    words,
)
from scripts.shapes_training.denoiser import scheduler as denoiser_scheduler
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.tokenizer import MAX_LENGTH

HEADS, HEAD_WIDTH, BLOCKS = 5, 32, 6
TIME_MEAN, TIME_SPREAD = 0.8, 1.2
WALKS, STEPS, SCALE, NOISY = 10, 25, 4.0, 0.6
"""Rows of a batch that are samplings under way; how they sample; the share of them that does so with new noise."""
STRANGE = 0.25
"""Share of the other rows that have another's caption."""
DECIDES = (0.5, 0.97)
"""Levels at which it is settled what is drawn where."""
WITHOUT, GUIDED, SCALES = 0.3, 0.2, (2.0, 6.0)
"""Weights of the errors without a caption and after guidance, whose scale is drawn from a range."""
CERTAIN = 0.59
"""Below this level the places of objects are certain, and cells that they cover weigh more in the loss."""


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Levels equally spaced: 64 places of a latent are few enough that no shift helps."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def network(latent_channels: int, side: int = 8) -> SD3Transformer2DModel:
    """A small one of Stable Diffusion 3's, whose blocks begin as the identity."""
    width = HEADS * HEAD_WIDTH
    model = SD3Transformer2DModel(
        sample_size=side,
        patch_size=1,
        in_channels=latent_channels,
        out_channels=latent_channels,
        num_layers=BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=side,
        qk_norm="rms_norm",
    )
    for name, parameter in model.named_parameters():
        if (".linear." in name and "norm" in name) or name.startswith("proj_out"):
            nn.init.zeros_(parameter)
    return model


def teach(model: SD3Transformer2DModel) -> list[Tensor]:
    """Make every block record which words its cells look at; returns the list that the maps are appended to."""
    maps: list[Tensor] = []
    for block in model.transformer_blocks:
        block.attn.set_processor(SD3Recorder(maps.append, block.attn.processor))
    return maps


class Teacher:
    """The denoiser as a velocity."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.unet = denoiser.unet.eval().requires_grad_(False)
        abar = denoiser_scheduler().alphas_cumprod.double()
        self.sigmas = (1 - abar).sqrt() / ((1 - abar).sqrt() + abar.sqrt())
        """(1000,) the flow's level of each of its timesteps."""

    @torch.no_grad()
    def velocity(self, z: Tensor, sigma: Tensor, states: Tensor) -> Tensor:
        """(b, c, h, w) for latents at levels ``sigma`` (b,), at the largest timestep where its process ends before."""
        right = torch.searchsorted(self.sigmas, sigma.double()).clamp(1, len(self.sigmas) - 1)
        low, high = self.sigmas[right - 1], self.sigmas[right]
        share = ((sigma.double() - low) / (high - low)).clamp(0, 1)
        t = (right - 1 + share).float()
        level = (low + share * (high - low)).float().view(-1, 1, 1, 1)
        a, s = ((x / (level**2 + (1 - level) ** 2).sqrt()) for x in (1 - level, level))
        level = sigma.view(-1, 1, 1, 1)
        z = z / (level**2 + (1 - level) ** 2).sqrt()
        v = self.unet(z.contiguous(memory_format=torch.channels_last), t, states, return_dict=False)[0]
        velocity: Tensor = (a * v + s * z) - (a * z - s * v)
        return velocity


class Walks:
    """Guided samplings of the network's own under way, a step further with every batch: latents as its errors leave them.

    Attributes:
        index: (w,) their captions.
        z: (w, c, h, w) their latents.
        place: (w,) how many steps they have done.
    """

    def __init__(self, latents: Tensor, draw: Callable[[int], np.ndarray]) -> None:
        self.draw, self.index = draw, draw(WALKS)
        self.processes = [flow_process(scheduler().config, STEPS, eta).steps for eta in (0.0, 1.0)]
        self.place, self.way = np.arange(WALKS) * STEPS // WALKS, np.arange(WALKS) % 2
        level = self.sigma(latents).view(-1, 1, 1, 1)
        clean = latents[torch.from_numpy(self.index).to(latents.device)]
        self.z = (1 - level) * clean + level * torch.randn_like(clean)

    def sigma(self, like: Tensor) -> Tensor:
        """(w,) their levels."""
        return like.new_tensor([self.processes[0][place].s for place in self.place])

    def advance(self, velocity: Tensor, rng: np.random.Generator) -> None:
        """A step along guided velocities (w, c, h, w); what has ended begins anew, with or without noise on its way."""
        for row in range(WALKS):
            step = self.processes[self.way[row]][self.place[row]]
            x0, eps = clean_and_noise(velocity[row], self.z[row], step, "velocity")
            self.z[row] = kernel(x0, eps, step).sample(torch.randn_like(x0))
            self.place[row] += 1
            if self.place[row] == STEPS:
                self.z[row] = torch.randn_like(x0)
                self.index[row], self.place[row], self.way[row] = self.draw(1)[0], 0, rng.random() < NOISY


class Pooled:
    """What of a pooled text the network is told: how much there is of it, not what.

    The denoiser reads words alone, and draws pairs of colour and shape that it was never shown; the pooled text of such a
    pair is new, too, and moves every layer.  So all are put on the line from the empty one to the mean of the captions'.
    """

    def __init__(self, empty: Tensor, captions: Tensor) -> None:
        along = captions.mean(dim=0) - empty[0]
        self.empty: Tensor = empty[0]
        self.along: Tensor = along / along.norm()

    def __call__(self, pooled: Tensor) -> Tensor:
        """(b, width)."""
        share: Tensor = (pooled - self.empty) @ self.along
        return self.empty + share[:, None] * self.along

    @torch.no_grad()
    def within(self, model: SD3Transformer2DModel) -> SD3Transformer2DModel:
        """The same in the weights of a copy, for pooled texts as they come."""
        model = copy.deepcopy(model)
        first = model.time_text_embed.text_embedder.linear_1
        first.bias += first.weight @ (self.empty - self.along * (self.along @ self.empty))
        first.weight.copy_(torch.outer(first.weight @ self.along, self.along))
        return model


def often(captions: list[Caption]) -> np.ndarray:
    """Shares (n,) of the batches: fewer objects are drawn more often, one small object most often."""
    single = np.array([len(c.phrases) == 1 for c in captions])
    small = np.array([any(p.size == "small" for p in c.phrases) for c in captions])
    weights = np.array([(1.5, 1.0, 0.5)[len(c.phrases) - 1] for c in captions]) * np.where(
        single & small, 2, 1
    )
    return np.asarray(weights / weights.sum())


def run(
    latents: Tensor,
    captions: list[Caption],
    regions: np.ndarray,
    tokenizer: CLIPTokenizer,
    denoiser: Denoiser,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device = CPU,
) -> SD3Transformer2DModel:
    """Train on scaled latents (n, c, 8, 8) and return the averaged network; for the arguments see ``denoiser.run``."""
    assert regions.shape[-1] == MASK_SIDE
    torch.manual_seed(seed)
    model = network(latents.shape[1], latents.shape[-1]).to(device)
    maps = teach(model)
    teacher, reader = Teacher(denoiser.to(device)), denoiser.text_encoder.eval().requires_grad_(False)
    read = words(captions, tokenizer)
    all_ids, all_phrases = read.ids.to(device), read.phrases.to(device)
    empty_ids = torch.tensor(tokenizer([""], padding="max_length", max_length=MAX_LENGTH)["input_ids"]).to(
        device
    )
    places = torch.from_numpy(regions).float().to(device)
    latents = latents.to(device)
    with torch.no_grad():
        nothing, empty = reader(empty_ids)[:2]
        pooled = Pooled(empty, torch.cat([reader(ids)[1] for ids in torch.split(all_ids[:1000], 100)]))
    until, drawn = np.cumsum(often(captions)), np.random.default_rng([seed, 78])

    def draw(number: int) -> np.ndarray:
        return np.searchsorted(until, drawn.random(number)).clip(max=len(until) - 1)

    walks = Walks(latents, draw)
    fresh = BATCH - WALKS
    first = torch.arange(BATCH, device=device) < fresh

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        index = torch.from_numpy(np.concatenate([draw(fresh), walks.index])).to(device)
        u = torch.from_numpy((rng.permutation(fresh) + rng.random(fresh)) / fresh).float()
        levels = torch.sigmoid(TIME_MEAN + TIME_SPREAD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
        sigma = torch.cat([levels.to(device), walks.sigma(latents)])
        level = sigma.view(-1, 1, 1, 1)
        clean = latents[index[:fresh]]
        z = (1 - level[:fresh]) * clean + level[:fresh] * torch.randn_like(clean)
        z = torch.cat([z, walks.z])
        # Some rendered latents are seen with another's caption: what a word does must not hang on what is there.
        off = torch.from_numpy(rng.random(BATCH) < STRANGE).to(device) & first
        with torch.no_grad():
            states, told = reader(all_ids[torch.where(off, index.roll(1), index)])[:2]
        both = torch.cat([states, nothing.expand_as(states)])
        told = torch.cat([pooled(told), empty.expand_as(told)])
        z2, sigma2 = torch.cat([z, z]), torch.cat([sigma, sigma])
        maps.clear()
        v = model(z2, both, told, 1000 * sigma2, return_dict=False)[0]
        own, other = v.chunk(2)
        error, wrong = (v - teacher.velocity(z2, sigma2, both)).chunk(2)
        scale = torch.from_numpy(rng.uniform(*SCALES, size=BATCH)).float().to(device).view(-1, 1, 1, 1)
        rendered = (first & ~off).float()
        there = (
            places[index].sum(dim=1, keepdim=True).clamp(max=1)
            * (level < CERTAIN)
            * rendered.view(-1, 1, 1, 1)
        )
        weight = 1 + OBJECT_WEIGHT * there
        deciding = torch.where((sigma > DECIDES[0]) & (sigma < DECIDES[1]), 1.25, 0.5)

        def mean(e: Tensor) -> Tensor:
            rows = (weight * e.square()).sum(dim=(1, 2, 3)) / (weight.sum(dim=(1, 2, 3)) * e.shape[1])
            return (deciding * rows).mean()

        caption, without, guided = mean(error), mean(wrong), mean(wrong + scale * (error - wrong))
        taught = attention_loss(
            [map[:fresh] for map in maps],
            all_phrases[index[:fresh]] * rendered[:fresh, None, None],
            places[index[:fresh]] * rendered[:fresh, None, None, None],
        )
        walks.advance((other + SCALE * (own - other)).detach()[fresh:], rng)
        figures = {"caption": caption, "without": without, "guided": guided, "attention": taught}
        total = caption + WITHOUT * without + GUIDED * guided + ATTENTION_WEIGHT * taught
        return total, {name: float(value.detach()) for name, value in figures.items()}

    recipe = Recipe(
        learning_rate=1e-3, budget=budget, average=0.998, warmup_steps=200, muon=("transformer_blocks",)
    )
    averaged = train("flow", model, loss, recipe, folder, seed)
    assert isinstance(averaged, SD3Transformer2DModel)
    return pooled.within(averaged)
