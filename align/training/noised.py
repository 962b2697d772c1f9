"""Clean pictures with noise in them, and how well a network tells the two apart: what DPO and KTO compare.

Noise and time are keyed by the pair and by how often it was looked at, so they do not depend on batches or processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.backbones.guider import Guider
from align.processes.base import Step, noise_slope
from align.processes.ddim import scheduler_of
from align.sampling.host import read, send
from align.sampling.noise import NoiseStream
from align.sampling.state import per_row
from align.training.base import Example
from align.training.pairs import Pair
from align.training.policy import Policy


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
    """Errors of what a policy's network predicts, without guidance, as it was trained.

    The papers write the noise; of a network that predicts v the published programs take v, and so do these: its errors are the
    noise's over a, so that times at which hardly any signal is left count as much as others.

    Args:
        policy: a diffusion model; the times of a flow are others.
        seed: of noise and times.
        empty: share of examples that are looked at without their prompt.
    """

    def __init__(self, policy: Policy, seed: int, empty: float) -> None:
        self.policy = replace(policy, guider=Guider(1.0))
        self.seed, self.empty = seed, empty
        schedule = scheduler_of(policy.backbone.scheduler_config)
        self.levels: list[float] = schedule.alphas_cumprod.double().tolist()
        self.predicts: str = policy.backbone.scheduler_config["prediction_type"]

    def __call__(self, examples: Sequence[Noised]) -> Tensor:
        """(n, k) mean squares of predicted minus true output of n examples, with the gradient where one is kept."""
        device, each = self.policy.device, len(examples[0].latents)
        rows = [one for one in examples for _ in range(each)]
        clean = send(torch.cat([one.latents for one in examples]), device)
        noise = send(torch.stack([one.noise for one in rows]), device)
        steps = [self.step(one.time) for one in rows]
        a, s = (clean.new_tensor([getattr(step, name) for step in steps]) for name in ("a", "s"))
        noisy = per_row(a, clean) * clean + per_row(s, clean) * noise
        _, eps = self.policy.predict(noisy, steps, [one.prompt for one in rows])
        slope = clean.new_tensor([noise_slope(step, self.predicts) for step in steps])
        squares = (eps - noise).square().flatten(1).mean(dim=1) / slope.square()
        return squares.view(len(examples), each)

    @torch.no_grad()
    def with_reference(self, examples: Sequence[Noised]) -> list[Noised]:
        """The examples with the errors of the reference."""
        if not examples:
            return []
        with self.policy.lora.off():
            found = read(self(examples))
        return [replace(one, reference=errors) for one, errors in zip(examples, found, strict=True)]

    def step(self, time: int) -> Step:
        """Where a training timestep is."""
        abar, fraction = self.levels[time], time / len(self.levels)
        return Step(0, time, 0, abar**0.5, (1 - abar) ** 0.5, 1, 0, 0, fraction, time)

    def drawn(self, pair: Pair, latents: Sequence[Tensor], epoch: int) -> Noised:
        """An example of some of a pair's pictures, its noise and time keyed by the pair and the epoch."""
        stream = NoiseStream(self.seed, pair.key, epoch)
        unprompted, time = stream.uniform("example", 0, 0, (2,)).tolist()
        return Noised(
            f"{epoch}\x1f{pair.key}",
            "" if unprompted < self.empty else pair.prompt,
            torch.stack(list(latents)),
            stream.normal("example", 0, 0, tuple(pair.chosen.shape)),
            int(time * len(self.levels)),
            torch.empty(0),
        )
