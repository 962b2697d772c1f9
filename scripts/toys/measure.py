"""Every method on every toy problem: how far what it returns is from what it should return, and at what cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from align.backbones.analytic import SCHEDULE
from align.processes.ddim import ddim
from align.toy.densities import Density, Mixture, Product
from align.toy.problems import DENSITIES
from align.toy.reward import Quadratic
from align.toy.target import expected_reward, tilted
from scripts.toys.chain import expectations
from scripts.toys.runs import Ensemble, ensemble, nearest, reward_of, sampler_of

PROBLEMS = ("gaussian", "gmm", "gmm2", "swiss_roll")
MODES = ("gmm", "gmm2")
STEPS = 100
PARTICLES = 16
RUNS = 250
POINTS = 500
"""Points of an EMD: draws of what is returned on one side, of the exact target on the other."""

METHODS: dict[str, tuple[str, ...]] = {
    "none": ("method=none",),
    "gradient": ("method=gradient",),
    "gradient, step 1": ("method=gradient", "method.guidance.rule=constant"),
    "best_of_n": ("method=best_of_n", f"method.particles={PARTICLES}"),
    "svdd": ("method=svdd", f"method.search.candidates={PARTICLES}"),
    "dsearch": ("method=dsearch", "method.particles=8", "method.search.candidates=2"),
    "fk": ("method=fk", f"method.particles={PARTICLES}"),
    "fk, diff, drawn": (
        "method=fk",
        "method.steering.potential=diff",
        "method.choose=draw",
        f"method.particles={PARTICLES}",
    ),
    "smc": ("method=smc", f"method.particles={PARTICLES}"),
    "tds": ("method=tds", f"method.particles={PARTICLES}"),
    "das": ("method=das", f"method.particles={PARTICLES}"),
    "das_released": ("method=das_released", f"method.particles={PARTICLES}"),
}
SWEEP = {4: 800, 16: RUNS, 64: 80, 100: 200, 256: 30}
"""Runs of a filter with so many particles."""
SHOWN = ("none", "best_of_n", "gradient", "smc", "das", "das_released")
"""Methods whose points are kept for the figure."""


def exact(problem: str) -> dict[str, Any]:
    """What the chain of 100 steps, tilted by exp r, has: evidence, mean reward, mean, masses of the modes."""
    density, reward = DENSITIES[problem](), reward_of(problem)
    target = tilted(density, reward)
    parts = density.parts if isinstance(density, Product) else (density,)
    z, of_reward, mean, masses, plain, start = 1.0, 0.0, [], [], 0.0, 0
    for part in parts:
        found = _tilted_chain(part, reward.axes(start, start + part.dimension), problem in MODES)
        start += part.dimension
        z *= found["z"]
        of_reward += found["reward"]
        plain += found["plain"]
        mean += found["mean"]
        masses = found["masses"]
    return {
        "z": z,
        "reward": of_reward,
        "plain_reward": plain,
        "mean": mean,
        "masses": masses,
        "continuous_z": float(np.exp(target.log_z)),
        "continuous_reward": expected_reward(target.density, reward),
    }


def _tilted_chain(density: Density, reward: Quadratic, modes: bool) -> dict[str, Any]:
    def functions(x: Tensor) -> Tensor:
        value = reward(x)
        parts = [torch.ones_like(value)[None], value[None], x.T, *([nearest(density, x)] if modes else [])]
        return torch.cat([value[None], torch.cat(parts) * value.exp()])

    # A Swiss roll is rough: its density has 512 components of deviation 0.3.
    found = expectations(ddim(SCHEDULE, STEPS, 1.0), density, functions, 0.1)
    plain, z, of_reward = found[:3].tolist()
    rest = found[3:] / z
    number = density.dimension
    return {
        "z": z,
        "reward": of_reward / z,
        "plain": plain,
        "mean": rest[:number].tolist(),
        "masses": rest[number:].tolist(),
    }


def measure(problem: str, method: str, truth: dict[str, Any], seed: int) -> dict[str, Any]:
    """A row of the table."""
    options = METHODS[method]
    alone = not any(option.startswith("method.particles") for option in options) and method != "svdd"
    runs = POINTS if alone else RUNS
    rows = runs * (1 if alone else PARTICLES)
    sampler = sampler_of(problem, *options, rows=rows)
    found = ensemble(sampler, problem, runs, seed)
    row = figures(problem, found, truth) | {"runs": runs}
    points = drawn(found, POINTS // runs, seed)
    row["emd"], row["emd_error"] = distances(problem, points, seed)
    if method in SHOWN and problem in MODES:
        row["points"] = [[round(value, 2) for value in point] for point in points[:300].tolist()]
    return row


def figures(problem: str, found: Ensemble, truth: dict[str, Any]) -> dict[str, Any]:
    """What is compared of an ensemble; the errors of the first two are standard errors over the runs."""
    density, reward = DENSITIES[problem](), reward_of(problem)
    runs = len(found.x)
    of_reward = found.means(lambda x: reward(x)[None])[:, 0]
    if problem in MODES:
        assert isinstance(density, Mixture)
        each = found.means(lambda x: nearest(density, x)) - torch.tensor(truth["masses"])
    else:
        each = found.means(lambda x: x.T) - torch.tensor(truth["mean"])
    row = {
        "reward": float(of_reward.mean()),
        "reward_error": float(of_reward.std()) / runs**0.5,
        "l1": float(each.mean(dim=0).abs().sum()),
        "rms_reward": float((of_reward - truth["reward"]).square().mean().sqrt()),
        "mean_l1": float(each.abs().sum(dim=1).mean()),
        "forward": found.cost.network_forward / runs,
        "backward": found.cost.network_backward / runs,
    }
    if len(found.ess):
        ratio = found.evidence / truth["z"]
        row |= {
            "resampled": float(found.resampled.mean()),
            "evidence": float(ratio.mean()),
            "evidence_error": float(ratio.std()) / runs**0.5,
        }
    return row


def drawn(found: Ensemble, each: int, seed: int) -> Tensor:
    """(G * each, D) points that the runs return."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.multinomial(found.shares, each, replacement=True, generator=generator)
    return found.x.gather(1, index[..., None].expand(-1, -1, found.x.shape[2])).flatten(0, 1)


def distances(problem: str, points: Tensor, seed: int) -> tuple[float, float]:
    """EMD (Euclidean, exact) to as many draws of the continuous target: mean and deviation over five sets of draws."""
    target = tilted(DENSITIES[problem](), reward_of(problem)).density
    generator = torch.Generator().manual_seed(1000 + seed)
    return spread([emd(points, target.sample(len(points), generator)) for _ in range(5)])


def floor(problem: str, seed: int) -> tuple[float, float]:
    """EMD of two sets of draws of the target itself."""
    target = tilted(DENSITIES[problem](), reward_of(problem)).density
    generator = torch.Generator().manual_seed(2000 + seed)
    return spread([emd(*(target.sample(POINTS, generator) for _ in range(2))) for _ in range(5)])


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1))


def emd(one: Tensor, two: Tensor) -> float:
    """Earth mover's distance of two sets of equally many equal points."""
    costs = cdist(one.numpy(), two.numpy())
    return float(costs[linear_sum_assignment(costs)].mean())


def sweep(problem: str, method: str, particles: int, truth: dict[str, Any], seed: int) -> dict[str, Any]:
    """A point of the curves; with as many particles as in the table it is the same."""
    runs = SWEEP[particles]
    options = (f"method={method}", f"method.particles={particles}")
    sampler = sampler_of(problem, *options, rows=runs * particles)
    return figures(problem, ensemble(sampler, problem, runs, seed), truth) | {"runs": runs}


def jobs(problems: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Keys of all that is measured, in order."""
    for problem in problems:
        yield "exact", problem
        for method in METHODS:
            yield "table", problem, method
        for method in ("smc", "das", "best_of_n") if problem in MODES else ():
            for particles in SWEEP:
                yield "sweep", problem, method, str(particles)


def run(path: Path, problems: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Measure what ``path`` does not hold yet; it is written after each figure."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for key in jobs(problems):
        name = "/".join(key)
        if name in results:
            continue
        began = time.process_time()
        kind, problem, *rest = key
        if kind == "exact":
            results[name] = exact(problem) | {"floor": floor(problem, seed)}
        elif kind == "table":
            results[name] = measure(problem, rest[0], results[f"exact/{problem}"], seed)
        elif int(rest[1]) == PARTICLES:
            same = results[f"table/{problem}/{rest[0]}"]
            results[name] = {figure: same[figure] for figure in same if figure != "points"}
        else:
            results[name] = sweep(problem, rest[0], int(rest[1]), results[f"exact/{problem}"], seed)
        lines = [
            f"{json.dumps(key)}: {json.dumps(_rounded(value))}" for key, value in sorted(results.items())
        ]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{name}: {time.process_time() - began:.1f} s", flush=True)
    return results


def _rounded(value: Any) -> Any:
    """With numbers of eight digits."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value
