"""What plain sampling in finitely many steps arrives at: of a Gaussian in closed form, of anything else by quadrature.

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

from align.backbones.analytic import with_signal
from align.processes.base import Process, clean_and_noise
from align.toy.densities import Density, Mixture

HALF = 10.0
"""Grids reach from -10 to 10 along each axis: five deviations of the noise, three of any mode and more."""


def expectations(
    process: Process, density: Density, functions: Callable[[Tensor], Tensor], spacing: float = 0.1
) -> Tensor:
    """E[f(x)], (K,) float64, of the points x that plain sampling ends at, ``functions`` taking (N, D) to (K, N).

    The density's exact denoiser samples; parts of a product are independent chains.  The error is of sixth order in the grid's
    ``spacing`` where functions are smooth; at 0.1 it is below 1e-4 of the largest value for ``align.toy.problems``.

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
        seen = with_signal(step)
        noise = -seen.s * _score(density.noised(seen.a, seen.s), z)
        kernel = process.kernel(*clean_and_noise(noise, z, seen, "epsilon"), step)
        places = (kernel.mean / spacing + half).T.view(dimension, *shape).numpy()
        values = np.stack(
            [
                map_coordinates(_blurred(value, kernel.std / spacing), places, order=5, mode="nearest")
                for value in values
            ]
        )
    weights = torch.exp(-z.square().sum(dim=1) / 2)
    return torch.from_numpy(values).flatten(1) @ (weights / weights.sum())


def sampled_gaussian(process: Process, density: Mixture) -> Mixture:
    """What plain sampling of a single Gaussian arrives at with a process's steps, as they are finitely many.

    With the exact denoiser the chain is linear, so the result is a Gaussian too: a mean m and a variance v become
    c m + b and c^2 v + sigma^2 from step to step, from standard normal noise on.

    Raises:
        ValueError: the density is a mixture of several Gaussians.
    """
    if len(density.means) != 1:
        raise ValueError("only a single Gaussian stays one in finitely many steps")
    mean: Tensor = torch.zeros_like(density.means)
    variance: Tensor = torch.ones_like(density.variance)
    for step in process.steps:
        noisy = density.noised(step.a, step.s)
        # x0 = mu + a v (z - a mu) / noisy.variance and eps = s (z - a mu) / noisy.variance: both linear in z.
        by_x0, by_eps = step.a * density.variance / noisy.variance, step.s / noisy.variance
        factor = process.kernel(by_x0, by_eps, step).mean
        mean = factor * (mean - noisy.means) + step.a_next * density.means
        variance = factor.square() * variance + step.std**2
    return Mixture(density.log_weights, mean, variance)


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
