"""Stage ``flow``: a flow transformer on the latents and the text encoder of the denoiser.

Rectified flow, z = (1 - sigma) x0 + sigma eps, with the network's output the velocity eps - x0.  The denoiser teaches: its
prediction at the level of equal signal-to-noise ratio is the mean of what a rendered picture's own velocity is a single sample
of, so that far fewer pictures do.  As in the denoiser, attention is taught where each phrase's objects are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from align.backbones.joint_attention import SD3Recorder
from align.shapes.grammar import Caption
from scripts.shapes_training.data import MASK_SIDE
from scripts.shapes_training.denoiser import (
    ATTENTION_WEIGHT,
    BATCH,
    CPU,
    DROP_CAPTION,
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
TIME_MEAN, TIME_SPREAD = 0.5, 1.2
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
    def velocity(self, clean: Tensor, noise: Tensor, sigma: Tensor, states: Tensor) -> Tensor:
        """(b, c, h, w) at levels ``sigma`` (b,), at the largest timestep where its process ends before."""
        right = torch.searchsorted(self.sigmas, sigma.double()).clamp(1, len(self.sigmas) - 1)
        low, high = self.sigmas[right - 1], self.sigmas[right]
        share = ((sigma.double() - low) / (high - low)).clamp(0, 1)
        t = (right - 1 + share).float()
        level = (low + share * (high - low)).float().view(-1, 1, 1, 1)
        a, s = ((x / (level**2 + (1 - level) ** 2).sqrt()) for x in (1 - level, level))
        z = a * clean + s * noise
        v = self.unet(z.contiguous(memory_format=torch.channels_last), t, states, return_dict=False)[0]
        velocity: Tensor = (a * v + s * z) - (a * z - s * v)
        return velocity


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
    empty = torch.tensor(tokenizer([""], padding="max_length", max_length=MAX_LENGTH)["input_ids"]).to(device)
    places = torch.from_numpy(regions).float().to(device)
    latents = latents.to(device)

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        index = torch.from_numpy(rng.integers(len(captions), size=BATCH)).to(device)
        dropped = torch.from_numpy(rng.random(BATCH) < DROP_CAPTION).to(device)
        ids = torch.where(dropped[:, None], empty, all_ids[index])
        u = torch.from_numpy((rng.permutation(BATCH) + rng.random(BATCH)) / BATCH).float()
        sigma = torch.sigmoid(TIME_MEAN + TIME_SPREAD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))).to(
            device
        )
        clean = latents[index]
        noise = torch.randn_like(clean)
        with torch.no_grad():
            found = reader(ids)
        level = sigma.view(-1, 1, 1, 1)
        target = teacher.velocity(clean, noise, sigma, found[0])
        own = noise - clean
        gap = (target - own).square().mean()
        maps.clear()
        z = (1 - level) * clean + level * noise
        v = model(z, found[0], found[1], 1000 * sigma, return_dict=False)[0]
        there = places[index].sum(dim=1, keepdim=True).clamp(max=1) * (level < CERTAIN)
        weight = 1 + OBJECT_WEIGHT * there
        error = (weight * (v - target).square()).sum(dim=(1, 2, 3)) / (weight.sum(dim=(1, 2, 3)) * v.shape[1])
        kept = (~dropped).float()
        taught = attention_loss(
            maps, all_phrases[index] * kept[:, None, None], places[index] * kept[:, None, None, None]
        )
        figures = {
            "v": float(error.mean().detach()),
            "own": float((v - own).square().mean().detach()),
            "teacher": float(gap),
            "attention": float(taught.detach()),
        }
        return error.mean() + ATTENTION_WEIGHT * taught, figures

    recipe = Recipe(learning_rate=1e-3, budget=budget, average=0.999, weight_decay=0.01, warmup_steps=200)
    averaged = train("flow", model, loss, recipe, folder, seed)
    assert isinstance(averaged, SD3Transformer2DModel)
    return averaged
