"""Flows with the noise of published programs: Euler-Maruyama steps of dx = [u + g^2/(2b) eps] dr + g dw along x = a x0 + b eps.

u = a' x0 + b' eps is the path's velocity, r goes from 1 to 0 and g(r) is free: every one has the same marginals, but in the limit
only.  A step of length d leaves noise of variance b'^2 + g^2 d^2/b + ... where there should be b'^2, so few steps leave grain, which
the kernel of ``base`` does not (``docs/flows.md`` has the figures).  They are here for comparison with those programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from torch import Tensor

from align.processes.base import Gaussian, Level, Process, Step, chain
from align.processes.flow import Phases, levels, placed

Coefficient = Literal["square", "sigma", "constant", "sin", "linear", "clipping", "exp", "tan", "psi"]
Grid = Literal["exp", "linear"]


class Point(NamedTuple):
    """A place on a path: shares of signal and noise, and how they change with r."""

    a: float
    b: float
    a_slope: float
    b_slope: float


def straight(r: float) -> Point:
    """The flow's own path."""
    return Point(1 - r, r, -1.0, 1.0)


def preserving(r: float) -> Point:
    """The variance-preserving path of RBF and Psi-Sampler: abar = exp(-9.95 r^2 - 0.1 r)."""
    abar, slope = math.exp(-9.95 * r**2 - 0.1 * r), 19.9 * r + 0.1
    a, b = math.sqrt(abar), math.sqrt(1 - abar)
    return Point(a, b, -slope * a / 2, slope * abar / (2 * b) if b else math.inf)


def diffusion(coefficient: Coefficient, r: float, b: float) -> float:
    """The shape of g, without its factor, where noise has the share ``b``; ``psi`` is Psi-Sampler's, the others are RBF's."""
    shapes: dict[Coefficient, Callable[[], float]] = {
        "square": lambda: r**2,
        "sigma": lambda: b,
        "constant": lambda: 1.0,
        "sin": lambda: math.sin(math.pi * r / 2),
        "linear": lambda: r,
        "clipping": lambda: max(0.0, 2 * r - 1),
        "exp": lambda: math.exp(-(((r - 1) / 0.1) ** 2)),
        "tan": lambda: math.tan(math.pi * min(r, 0.95) / 2),
        "psi": lambda: 1 - (1 - r) ** 2,
    }
    return shapes[coefficient]()


def move(here: Point, length: float, g: float) -> tuple[float, float, float]:
    """How much of x0 and of eps is in the mean of a step, and its deviation, all in the path's own frame."""
    return (
        here.a - length * here.a_slope,
        here.b - length * (here.b_slope + g**2 / (2 * here.b)),
        g * math.sqrt(length),
    )


@dataclass(frozen=True)
class EulerMaruyama(Process):
    """Attributes: weights: of x0 and of eps in the mean of each step."""

    weights: tuple[tuple[float, float], ...]

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        of_x0, of_eps = self.weights[step.index]
        return Gaussian(of_x0 * x0 + of_eps * eps if of_eps else of_x0 * x0, step.std)


def flow_grpo(schedule: Mapping[str, Any], steps: int, noise: float, phases: Phases = "snr") -> Process:
    """Flow-GRPO's steps (arXiv 2505.05470): g = ``noise`` sqrt(s / (1 - s)), with the second level's 1 - s at the first step.

    Every step draws noise, the last one too; the levels are those of ``flow``.
    """
    found = levels(schedule, steps)
    second = found[1].s
    moves = [
        move(straight(here.s), here.s - there.s, grpo_noise(noise, here.s, second))
        for here, there in pairwise(found)
    ]
    return _process(found, moves, phases)


def grpo_noise(noise: float, s: float, second: float) -> float:
    """Flow-GRPO's g at level s of a schedule's ``second`` level."""
    return noise * math.sqrt(s / (1 - (s if s < 1 else second)))


def vp_converted(
    steps: int,
    noise: float,
    coefficient: Coefficient = "square",
    grid: Grid = "exp",
    phases: Phases = "snr",
) -> Process:
    """RBF's sampler (arXiv 2503.19385): a flow's network along a variance-preserving path, g = ``noise`` times ``coefficient``.

    r is u = 1, 1 - 1/N, ..., 1/N itself (``linear``) or sqrt(1 - (1 - u)^2) (``exp``).  No step ends at r = 0, where the path's slope
    is infinite: the last returns the prediction of clean latents.  Latents are those of the flow, x / (a + b), of equal
    signal-to-noise ratio; the checkpoint's own schedule has no part.
    """
    places = [1 - k / steps for k in range(steps)]
    if grid == "exp":
        places = [math.sqrt(1 - (1 - u) ** 2) for u in places]
    points = [preserving(r) for r in places]
    found, moves = [], []
    for k, (r, here) in enumerate(zip(places, points, strict=True)):
        whole = here.a + here.b
        found.append(Level(1000 * here.b / whole, here.a / whole, here.b / whole))
        if k + 1 < steps:
            there = points[k + 1].a + points[k + 1].b
            g = noise * diffusion(coefficient, r, here.b)
            of_x0, of_eps, std = move(here, r - places[k + 1], g)
            moves.append((of_x0 / there, of_eps / there, std / there))
    moves.append((1.0, 0.0, 0.0))
    found.append(Level(0.0, 1.0, 0.0))
    return replace(_process(found, moves, phases), initial=1 / (points[0].a + points[0].b))


def _process(found: list[Level], moves: list[tuple[float, float, float]], phases: Phases) -> EulerMaruyama:
    steps = placed(chain(found, 1000, lambda here, there: 0.0), phases)
    steps = tuple(replace(step, std=std) for step, (*_, std) in zip(steps, moves, strict=True))
    return EulerMaruyama(steps, tuple((of_x0, of_eps) for of_x0, of_eps, _ in moves))
