"""Ways in which a generator spoils a picture: soft, pale, noisy, speckled; and a look at it half-made."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from align.shapes.render import PICTURE

STEPS = 1000
"""Training timesteps of the diffusion model."""
CORRUPTIONS = ("blur", "contrast", "noise", "specks")


def gaussian_blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Blur (b, c, H, W) pictures, each by its own deviation (b,) in pixels (up to about 2.5)."""
    b, c, h, w = pictures.shape
    reach = max(1, int(np.ceil(2.5 * float(sigma.max()))))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(pictures.reshape(1, b * c, h, w), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=b * c)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=b * c)
    return flat.reshape(b, c, h, w)


def corrupt(
    pictures: Tensor, rng: np.random.Generator, share: float = 0.5, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Spoil pictures as a poor generator would.

    Args:
        pictures: (b, 3, 64, 64) float32 in [0, 1].
        rng: source of randomness.
        share: probability of each kind of corruption in a picture is half of this; colour jitter and a faint
            grain are always there.
        strength: scale of the corruptions.

    Returns:
        The pictures, clipped to [0, 1], and (b, 4) corruption levels in 0..1 in the order ``CORRUPTIONS``.
    """
    b = len(pictures)
    levels = torch.from_numpy((rng.random((b, 4)) * (rng.random((b, 4)) < share / 2)).astype(np.float32))
    torch_seed = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch_seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=torch_seed)

    column = levels[..., None, None, None]
    out = pictures + 0.02 * normal(b, 3, 1, 1)
    chosen = levels[:, 0] > 0
    if chosen.any():
        out[chosen] = gaussian_blur(out[chosen], 0.3 + 1.5 * strength * levels[chosen, 0])
    grey = out.mean(dim=(1, 2, 3), keepdim=True)
    out = grey + (1 - 0.6 * min(1.0, strength) * column[:, 1]) * (out - grey)
    chosen = levels[:, 2] > 0
    if chosen.any():
        n = int(chosen.sum())
        coarse = F.interpolate(normal(n, 3, 16, 16), scale_factor=4, mode="bilinear", align_corners=False)
        out[chosen] += 0.12 * strength * column[chosen, 2] * (coarse + 0.5 * normal(n, 3, PICTURE, PICTURE))
    for k in torch.nonzero(levels[:, 3] > 0).flatten().tolist():
        for _ in range(1 + int(8 * strength * float(levels[k, 3]))):
            y, x = rng.integers(0, PICTURE - 4, 2)
            tall, wide = rng.integers(1, 5, 2)
            colour = torch.from_numpy(rng.random((3, 1, 1)).astype(np.float32))
            patch = out[k, :, y : y + tall, x : x + wide]
            out[k, :, y : y + tall, x : x + wide] = patch + float(rng.uniform(0.3, 1)) * (colour - patch)
    grain = (0.03 * uniform(b, 1, 1, 1).square()) * normal(b, 3, PICTURE, PICTURE)
    return (out + grain).clamp(0, 1), levels


def to_float(pictures: np.ndarray) -> Tensor:
    """(b, H, W, 3) uint8 to (b, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def to_uint8(pictures: Tensor) -> np.ndarray:
    """(b, 3, H, W) floats in [0, 1] to (b, H, W, 3) uint8, rounded and clipped."""
    array = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    return np.ascontiguousarray(array.cpu().numpy())


def foresee(pictures: Tensor, steps: Tensor, rng: np.random.Generator) -> Tensor:
    """Make pictures look like one-step predictions: soft, mixed with the others, washed out.

    Args:
        pictures: (n, m, 3, 64, 64); the m pictures of a group are mixed with the next group's.
        steps: (n,) in 0..999.
        rng: source of randomness.
    """
    n, m = pictures.shape[:2]
    noise_level = (steps.float() / STEPS).square().view(n, 1, 1, 1, 1)
    strength = torch.from_numpy(rng.uniform(0.5, 1.2, (n, 1, 1, 1, 1)).astype(np.float32))
    share = (0.75 * noise_level * strength).clamp(max=0.9)
    mixed = (1 - share) * pictures + share * pictures.roll(1, 0).mean(dim=1, keepdim=True)
    sigma = (0.1 + 2.4 * noise_level * strength).expand(n, m, 1, 1, 1).flatten()
    soft = gaussian_blur(mixed.flatten(0, 1), sigma)
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    grain = F.interpolate(
        torch.randn(n * m, 3, 16, 16, generator=seed), scale_factor=4, mode="bilinear", align_corners=False
    )
    soft = soft + 0.12 * noise_level.expand(n, m, 1, 1, 1).flatten(0, 1) * grain
    return soft.clamp(0, 1).view_as(pictures)
