"""Clean pictures with noise in them, and how well a network says what the noise is: what DPO and KTO compare.

Noise and time are keyed by the pair and by how often it was looked at, so they do not depend on batches or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.processes.base import Step
from align.processes.ddim import scheduler_of
from align.sampling.host import send
from align.sampling.noise import NoiseStream
from align.training.base import Example
from align.training.pairs import Pair, Visit

Off = Callable[[], AbstractContextManager[None]]
"""A context in which the network is the reference: its trained part is switched off."""
PLAIN = Guider(1.0)
"""The prompt's half alone, as networks are trained."""


@dataclass(frozen=True)
class Noised(Example):
    """Pictures of a prompt, and the noise that is laid over them.

    Attributes:
        prompt: what the network reads; empty now and then, so that the half without a prompt learns as well.
        latents: (k, C, h, w) clean pictures, which share noise and time.
        noise: (C, h, w).
        time: training timestep.
        reference: (k,) the reference model's ``errors``.
    """

    prompt: str
    latents: Tensor
    noise: Tensor
    time: int
    reference: Tensor


class Errors:
    """Errors of a backbone's predictions of noise.

    Args:
        backbone: a diffusion model; the times of a flow are others.
        off: where its network is the reference.
        seed: of noise and times.
        empty: share of examples that are looked at without their prompt.
    """

    def __init__(self, backbone: Backbone, off: Off, device: torch.device, seed: int, empty: float) -> None:
        self.backbone, self.off, self.device = backbone, off, device
        self.seed, self.empty = seed, empty
        self.levels: list[float] = scheduler_of(backbone.scheduler_config).alphas_cumprod.double().tolist()

    def __call__(self, one: Noised) -> Tensor:
        """(k,) mean squares of predicted minus true noise, with the gradient by the weights where one is kept.

        A call of its own for each example, as times differ.
        """
        step = self.step(one.time)
        latents, noise = (send(x, self.device) for x in (one.latents, one.noise))
        encoded = self.backbone.encode(one.prompt, "")
        found = self.backbone.predict(
            step.a * latents + step.s * noise,
            step,
            Conditioning.of([encoded] * len(latents)),
            PLAIN,
            correction=False,
        )
        return (found.eps - noise).square().flatten(1).mean(dim=1)

    @torch.no_grad()
    def reference(self, one: Noised) -> Tensor:
        """Those of the reference."""
        with self.off():
            return self(one)

    def step(self, time: int) -> Step:
        """Where a training timestep is."""
        abar = self.levels[time]
        fraction = time / len(self.levels)
        return Step(0, time, 0, abar**0.5, (1 - abar) ** 0.5, 1, 0, 0, fraction, time)

    def drawn(self, key: str, pair: Pair, latents: Sequence[Tensor], visit: Visit) -> Noised:
        """An example of some of a pair's pictures, its noise and time keyed by the pair and the visit."""
        stream = NoiseStream(self.seed, pair.key, visit.epoch)
        unprompted, time = stream.uniform("example", 0, 0, (2,)).tolist()
        blank = Noised(
            f"{visit.epoch}\x1f{key}",
            "" if unprompted < self.empty else pair.prompt,
            torch.stack(list(latents)),
            stream.normal("example", 0, 0, tuple(pair.chosen.shape)),
            int(time * len(self.levels)),
            torch.empty(0),
        )
        return replace(blank, reference=self.reference(blank).cpu())
