"""What plain sampling in finitely many steps arrives at, by quadrature.

Samplers are exact for the chain of their own steps, which ends a little away from the density itself: at 100 steps the evidence
of ``toy_gmm`` is 4 % above that of ``align.toy.target``.  Backwards from the last step, V(z) = E[V'(m(z) + sigma n)] is a
Gaussian blur and an interpolation on a grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates
from torch import Tensor

from align.processes.base import Process, clean_and_noise
from align.toy.densities import Density

HALF = 10.0
"""Grids reach from -10 to 10 along each axis: five deviations of the noise, three of any mode and more."""


def expectations(
    process: Process, density: Density, functions: Callable[[Tensor], Tensor], spacing: float = 0.1
) -> Tensor:
    """E[f(x)] of the points x that plain sampling ends at.

    Args:
        process: the steps.
        density: of at most two coordinates, whose exact denoiser samples; parts of a product are independent chains.
        functions: from points (N, D) to (K, N) values of K functions.
        spacing: of the grid. The error is of sixth order in it where functions are smooth; at 0.1 it is below 1e-4 of the
            largest value for the problems of ``align.toy.problems``.

    Returns:
        (K,) float64.

    Raises:
        ValueError: more than two coordinates.
    """
    dimension = density.dimension
    if dimension > 2:
        raise ValueError(f"a grid of {dimension} coordinates is too large: take the parts of the product")
    half = round(HALF / spacing)
    axis = torch.linspace(-half * spacing, half * spacing, 2 * half + 1, dtype=torch.float64)
    shape = (len(axis),) * dimension
    z = torch.stack(torch.meshgrid(*[axis] * dimension, indexing="ij"), dim=-1).view(-1, dimension)
    values = functions(z).view(-1, *shape).numpy()
    for step in reversed(process.steps):
        noise = -step.s * _score(density.noised(step.a, step.s), z)
        kernel = process.kernel(*clean_and_noise(noise, z, step, "epsilon"), step)
        places = (kernel.mean / spacing + half).T.view(dimension, *shape).numpy()
        values = np.stack(
            [
                map_coordinates(_blurred(value, kernel.std / spacing), places, order=5, mode="nearest")
                for value in values
            ]
        )
    weights = torch.exp(-z.square().sum(dim=1) / 2)
    return torch.from_numpy(values).flatten(1) @ (weights / weights.sum())


def _score(density: Density, z: Tensor) -> Tensor:
    """(N, D), in parts: a mixture needs memory for all points times all components."""
    return torch.cat([density.score(part) for part in torch.split(z, 4096)])


def _blurred(value: np.ndarray, deviation: float) -> np.ndarray:
    """Convolved with a Gaussian of that many grid spacings; mirrored at the edges."""
    spectrum = dctn(value, type=1)
    for axis, number in enumerate(value.shape):
        frequency = np.pi * np.arange(number) / (number - 1)
        damping = np.exp(-0.5 * (deviation * frequency) ** 2)
        spectrum = spectrum * damping.reshape([-1 if k == axis else 1 for k in range(value.ndim)])
    blurred: np.ndarray = idctn(spectrum, type=1)
    return blurred
