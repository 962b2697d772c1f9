"""From requests to pictures: encode, run the loop, decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.sampling.batching import chunks
from align.sampling.evaluate import Pictures
from align.sampling.ledger import Cost, Ledger
from align.sampling.loop import Info, Parts, run, start
from align.sampling.noise import NoiseStream
from align.semantics.attention_loss import pair_weights
from align.semantics.tokens import PairSource


@dataclass(frozen=True)
class Request:
    """One picture to make; equal requests give equal bytes."""

    prompt: str
    negative: str = ""
    seed: int = 0
    sample: int = 0


@dataclass
class Outcome:
    """One picture made.

    Attributes:
        picture: (3, H, W) float32 in [0, 1] on the CPU; ``None`` if it failed.
        cost: evaluations spent on it.
        info: further figures for its row (``rounds``, ``nonfinite_gradients``, ``prompt_truncated``).
        error: why it failed, if it did.
        seconds: its share of the wall-clock time of the group it was made in.
    """

    picture: Tensor | None
    cost: Cost
    info: dict[str, int | float | str] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


class Sampler:
    """Runs one method on one backbone.

    Args:
        backbone: the frozen model.
        parts: the method's parts.
        pairs: from a prompt, and how the backbone reads it, to its token pairs.
        batch_size: rows of every decoder call, padded to exactly this many.
        device: where the latents live.
    """

    def __init__(
        self, backbone: Backbone, parts: Parts, pairs: PairSource, batch_size: int, device: torch.device
    ) -> None:
        self.backbone = backbone
        self.parts = parts
        self.pairs = pairs
        self.batch_size = batch_size
        self.device = device
        self.on_evaluation: Callable[[Info], None] | None = None

    def sample(
        self,
        requests: Sequence[Request],
        on_step: Callable[[float], None] | None = None,
        candidate: int = 0,
    ) -> list[Outcome]:
        """Make the pictures of some requests together; none of them influences another.

        Args:
            requests: what to make.
            on_step: told the share of the work that is done.
            candidate: which of several independent pictures of each request.
        """
        began = time.perf_counter()
        pictures, truncated = self._read(requests)
        ledger = Ledger(len(requests))
        rounds = torch.zeros(len(requests), dtype=torch.long)
        nonfinite = torch.zeros(len(requests), dtype=torch.long)

        def streams(picture: int, particle: int) -> NoiseStream:
            request = requests[picture]
            return NoiseStream(request.seed, request.prompt, request.sample, candidate * 4096 + particle)

        def record(info: Info) -> None:
            if info.round:
                rounds[info.picture.unique().cpu()] += 1
            nonfinite.index_add_(0, info.picture.cpu(), (~info.finite).long().cpu())
            if self.on_evaluation is not None:
                self.on_evaluation(info)

        steps = len(self.parts.process.steps)
        state = start(streams, len(requests), 1, self.backbone.latent_shape(), self.device)
        state = run(
            self.parts,
            state,
            pictures,
            streams,
            ledger,
            on_evaluation=record,
            on_step=lambda step: on_step((step.index + 1) / steps) if on_step else None,
        )
        if len(state.z) != len(requests):
            raise ValueError(
                "the method ends with several particles of a picture: its last step must not branch"
            )
        decoded = self.decode(state.z)
        ledger.charge(list(range(len(requests))), "decoder_forward")
        seconds = (time.perf_counter() - began) / len(requests)
        return [
            Outcome(
                picture=decoded[k] if bool(torch.isfinite(decoded[k]).all()) else None,
                cost=ledger.costs[k],
                info={
                    "rounds": int(rounds[k]),
                    "nonfinite_gradients": int(nonfinite[k]),
                    "prompt_truncated": int(truncated[k]),
                },
                error=None if bool(torch.isfinite(decoded[k]).all()) else "the picture is not finite",
                seconds=seconds,
            )
            for k in range(len(requests))
        ]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Clean latents (P, C, h, w) to pictures (P, 3, H, W) in [0, 1] on the CPU, in calls of one fixed shape."""
        parts = [
            self.backbone.decode(z[chunk.rows.to(z.device)])[: chunk.real]
            for chunk in chunks(len(z), self.batch_size)
        ]
        return torch.cat(parts).clamp(0, 1).float().cpu()

    def _read(self, requests: Sequence[Request]) -> tuple[Pictures, list[bool]]:
        """Conditioning and token pairs of every request."""
        encoded = [self.backbone.encode(request.prompt, request.negative) for request in requests]
        pairs = [self.pairs(request.prompt, read) for request, read in zip(requests, encoded, strict=True)]
        pictures = Pictures(
            prompts=[request.prompt for request in requests],
            conditioning=Conditioning.of(encoded),
            pair_weights=pair_weights(pairs, len(encoded[0].offsets)).to(self.device),
            has_pairs=torch.tensor([bool(pair) for pair in pairs]),
        )
        return pictures, [read.truncated for read in encoded]
