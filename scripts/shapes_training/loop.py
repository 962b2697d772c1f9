"""The one training loop of all stages: budgets, warm-up and cosine decay, weight averaging, resuming.

Under ``torchrun`` every process takes batches of its own and gradients are averaged (on a CPU, one process a core
is faster than one process with more threads).

A stage's whole state (weights, averaged weights, optimiser, random generator, steps and seconds spent) is
written to ``<folder>/<stage>.pt`` every minute, by rename, so a killed stage goes on where it was.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

Loss = Callable[[np.random.Generator, float], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: until either bound is reached (``None`` = no such bound)."""

    steps: int | None = None
    seconds: float | None = None

    def scaled(self, share: float) -> Budget:
        """A share of this budget."""
        return Budget(
            steps=int(self.steps * share) if self.steps else None,
            seconds=self.seconds * share if self.seconds else None,
        )

    def spent(self, steps: int, seconds: float) -> float:
        """Share of the budget that is used up, 0 to 1."""
        shares = [steps / self.steps if self.steps else 0.0, seconds / self.seconds if self.seconds else 0.0]
        return min(1.0, max(shares))


@dataclass(frozen=True)
class Recipe:
    """Numbers of one stage.

    Attributes:
        average: decay of the exponential weight average (0 = none).
        muon: matrices and kernels whose names begin with one of these are moved by Muon instead of AdamW.
    """

    learning_rate: float
    budget: Budget
    weight_decay: float = 0.01
    warmup_steps: int = 200
    average: float = 0.999
    clip: float = 1.0
    save_every: float = 60.0
    muon: tuple[str, ...] = ()


def train(
    stage: str,
    module: nn.Module,
    loss: Loss,
    recipe: Recipe,
    folder: Path,
    seed: int,
    on_save: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Train ``module`` in place and return its averaged copy.

    Args:
        stage: name of the stage, also of its state file.
        module: what to train; its ``requires_grad`` parameters are optimised.
        loss: called as ``loss(rng, spent)`` with the share of the budget that is spent; returns a scalar and figures to log.
        recipe: numbers of the stage.
        folder: where the state lives; an existing state is resumed.
        seed: seed of the stage's random streams.
        on_save: called with the averaged module at every save.
    """
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}.pt"
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimisers = _optimisers(module, recipe)
    averaged = copy.deepcopy(module).eval()
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 77])
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["module"])
        averaged.load_state_dict(state["averaged"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        torch.set_rng_state(state["torch_rng"])
        rng.bit_generator.state = json.loads(state["numpy_rng"])
        step, seconds = state["step"], state["seconds"]
        print(f"[{stage}] goes on at step {step}, {seconds:.0f} s", flush=True)
    if rank:
        torch.manual_seed(seed + 1000 * rank + step)
        rng = np.random.default_rng([seed, 77, rank, step])

    def save() -> None:
        if rank:
            return
        temporary = path.with_suffix(".tmp")
        torch.save(
            {
                "module": module.state_dict(),
                "averaged": averaged.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "torch_rng": torch.get_rng_state(),
                "numpy_rng": json.dumps(rng.bit_generator.state),
                "step": step,
                "seconds": seconds,
            },
            temporary,
        )
        os.replace(temporary, path)
        if on_save is not None:
            on_save(averaged)

    module.train()
    began = time.monotonic() - seconds
    saved = logged = time.monotonic()
    sums: dict[str, float] = {}
    count = 0
    while (spent := recipe.budget.spent(step, seconds)) < 1.0:
        rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent))
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = rate
        value, figures = loss(rng, spent)
        torch.autograd.backward(value)
        if ranks > 1:
            _average_gradients(parameters, ranks)
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay = min(recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - decay)
                else:
                    mean.copy_(now)
        step += 1
        seconds = time.monotonic() - began
        if ranks > 1:  # all processes stop at the same step
            clock = torch.tensor(seconds)
            dist.broadcast(clock, 0)
            seconds = float(clock)
        count += 1
        for key, figure in {"loss": float(value.detach()), **figures}.items():
            sums[key] = sums.get(key, 0.0) + figure
        if time.monotonic() - logged > 20 and not rank:
            text = "  ".join(f"{key} {total / count:.4g}" for key, total in sums.items())
            print(
                f"[{stage}] step {step}  {seconds:.0f} s  {spent:.0%}  lr {rate:.2g}  {text}",
                flush=True,
            )
            sums, count, logged = {}, 0, time.monotonic()
        if time.monotonic() - saved > recipe.save_every:
            save()
            saved = time.monotonic()
    save()
    return averaged


class Muon(torch.optim.Muon):
    """PyTorch's at AdamW's size of a step, for kernels as well: a matrix with a row for each channel that they give."""

    def __init__(self, weights: list[nn.Parameter], rate: float, decay: float) -> None:
        self.weights = weights
        matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in weights]
        super().__init__(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """As its base's, on copies of the weights."""
        matrices = self.param_groups[0]["params"]
        for matrix, weight in zip(matrices, self.weights, strict=True):
            matrix.copy_(weight.flatten(1))
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step()  # type: ignore[no-untyped-call]
        for matrix, weight in zip(matrices, self.weights, strict=True):
            weight.copy_(matrix.view(weight.shape))
            weight.grad = None


def _optimisers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon before it where the recipe has it."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    turned = {name for name, p in named if name.startswith(recipe.muon) and p.ndim > 1}
    rest = [p for name, p in named if name not in turned]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    adamw = torch.optim.AdamW(rest, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=True)
    matrices = [p for name, p in named if name in turned]
    return [Muon(matrices, rate, decay), adamw] if matrices else [adamw]


def _average_gradients(parameters: list[nn.Parameter], ranks: int) -> None:
    """Mean over processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients]) / ranks
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
