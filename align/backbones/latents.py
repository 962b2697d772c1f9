"""The scale of latents: a process has them of about unit deviation, an autoencoder as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def unscaled(z0: Tensor, autoencoder: Mapping[str, Any]) -> Tensor:
    """Clean latents (P, C, h, w) as the autoencoder has them: z0 std / scaling_factor + mean + shift_factor.

    Args:
        z0: as the process has them.
        autoencoder: its config; ``latents_mean`` and ``latents_std`` are (C,), what is not stated changes nothing.
    """
    mean, std = (autoencoder.get(key) for key in ("latents_mean", "latents_std"))
    if std is not None:
        z0 = z0 * z0.new_tensor(std).view(-1, 1, 1)
    z0 = z0 / autoencoder["scaling_factor"]
    if mean is not None:
        z0 = z0 + z0.new_tensor(mean).view(-1, 1, 1)
    shift = autoencoder.get("shift_factor")
    return z0 + shift if shift else z0
