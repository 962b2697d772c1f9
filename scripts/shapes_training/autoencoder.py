"""Stage ``autoencoder``: diffusers' AutoencoderKL, factor 8, eight channels.

Without attention in the middle block it is fully convolutional, so it learns from crops.  Most of a picture
is plain background: crops without any edge are drawn again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from scripts.shapes_training.data import Rendered, to_tensor
from scripts.shapes_training.loop import Budget, Recipe, train

WIDTHS = (16, 32, 64, 96)
LATENT_CHANNELS = 8
CROP = 32
BATCH = 24
WHOLE_BATCH = 8
KL_WEIGHT = 3e-4
DECODER_NOISE = 0.15
CPU = torch.device("cpu")


def build() -> AutoencoderKL:
    """An untrained autoencoder."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)


def crops(data: Rendered, rng: np.random.Generator, number: int) -> np.ndarray:
    """(number, 32, 32, 3) uint8 crops, nearly all of them with an edge."""
    out = np.empty((number, CROP, CROP, 3), np.uint8)
    for k in range(number):
        for _ in range(6):
            picture = data.pictures[rng.integers(len(data))]
            y, x = rng.integers(0, 64 - CROP + 1, size=2)
            out[k] = picture[y : y + CROP, x : x + CROP]
            if (out[k] != out[k, 0, 0]).any(axis=-1).mean() > 0.1:
                break
    return out


def reconstruction_loss(error: torch.Tensor, pictures: torch.Tensor, absolute: float) -> torch.Tensor:
    """Mean of squared plus ``absolute`` times absolute error, (b, 3, h, w), of pictures in [-1, 1].

    Pixels in and near objects count four times: they are a small part of a picture and all that matters in it.
    """
    objects = (pictures != pictures[..., :1, :1]).any(dim=1, keepdim=True).float()
    weight = 1 + 3 * nn.functional.max_pool2d(objects, 5, stride=1, padding=2)
    return (weight * (error.square() + absolute * error.abs())).sum() / (3 * weight.sum())


def run(data: Rendered, budget: Budget, folder: Path, seed: int, device: torch.device = CPU) -> AutoencoderKL:
    """Train and return the averaged autoencoder, its ``scaling_factor`` set to one over the latents' deviation.

    The second half of the budget goes to whole pictures: group norms see other statistics there than in crops,
    and without it colours shift.
    """
    torch.manual_seed(seed)
    model = build().to(device)

    def loss(pictures: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        pictures = pictures.to(device).contiguous(memory_format=torch.channels_last)
        posterior = model.encode(pictures).latent_dist
        error = model.decode(posterior.sample()).sample - pictures
        value = reconstruction_loss(error, pictures, 0.2)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        psnr = -10 * torch.log10(error.detach().square().mean() / 4)
        return value + KL_WEIGHT * divergence, {"psnr": float(psnr), "kl": float(divergence)}

    half = budget.scaled(0.5)
    recipe = Recipe(learning_rate=2e-3, budget=half, average=0.995, weight_decay=1e-4)
    train(
        "autoencoder", model, lambda rng, step: loss(to_tensor(crops(data, rng, BATCH))), recipe, folder, seed
    )
    recipe = Recipe(learning_rate=1.5e-3, budget=half, average=0.995, weight_decay=1e-4)
    averaged = train(
        "autoencoder-whole",
        model,
        lambda rng, step: loss(data.tensor(rng.integers(len(data), size=WHOLE_BATCH))),
        recipe,
        folder,
        seed,
    )
    assert isinstance(averaged, AutoencoderKL)
    latents = encode(averaged, data.pictures[:500])
    averaged.register_to_config(scaling_factor=float(1 / latents.std()))
    return averaged


def polish(
    model: AutoencoderKL, data: Rendered, budget: Budget, folder: Path, seed: int, device: torch.device = CPU
) -> AutoencoderKL:
    """Train the decoder alone on, its latents a little noisy as generated ones are; the latents stay as they are."""
    model = model.to(device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)

    def loss(rng: np.random.Generator, spent: float) -> tuple[torch.Tensor, dict[str, float]]:
        pictures = data.tensor(rng.integers(len(data), size=WHOLE_BATCH)).to(device)
        with torch.no_grad():
            posterior = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        spread = float(rng.random()) * DECODER_NOISE / model.config.scaling_factor
        latents = posterior.mean + spread * torch.randn_like(posterior.mean)
        error = model.decode(latents).sample - pictures
        value = reconstruction_loss(error, pictures, 0.4)
        return value, {"psnr": float(-10 * torch.log10(error.detach().square().mean() / 4))}

    recipe = Recipe(learning_rate=1e-3, budget=budget, average=0.995, weight_decay=1e-4)
    scale = model.config.scaling_factor
    averaged = train("decoder", model, loss, recipe, folder, seed)
    assert isinstance(averaged, AutoencoderKL)
    averaged.requires_grad_(True)
    averaged.register_to_config(scaling_factor=scale)
    return averaged


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: np.ndarray, batch: int = 50) -> torch.Tensor:
    """Posterior means of (n, 64, 64, 3) uint8 pictures: (n, 8, 8, 8), not scaled."""
    parts = [
        model.encode(to_tensor(pictures[k : k + batch]).to(model.device)).latent_dist.mean.cpu()
        for k in range(0, len(pictures), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def psnr(model: AutoencoderKL, pictures: np.ndarray, batch: int = 50) -> float:
    """Mean peak signal-to-noise ratio in dB over pictures, posterior mean through the decoder, clipped."""
    values = []
    for k in range(0, len(pictures), batch):
        target = to_tensor(pictures[k : k + batch]).to(model.device)
        decoded = model.decode(model.encode(target).latent_dist.mean).sample.clamp(-1, 1)
        square = ((decoded - target) / 2).square().mean(dim=(1, 2, 3))
        values.append(-10 * torch.log10(square))
    return float(torch.cat(values).mean())
