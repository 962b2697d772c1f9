"""diffusers' TaylorSeer cache (arXiv 2503.06923) of a transformer, in its light form, for a run of samplings.

At most steps no block is evaluated: the outputs of the last projection are continued from those that were computed last.  Of
diffusers' caches it is the one of which rows never influence each other (which steps are computed is told by their number) and whose
state is kept by name, so that each call of a pass can have its own: first-block, adaptive and spectral caches decide by the mean over
a call's rows, pyramid attention broadcast and FasterCache have one state for all calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import TaylorSeerCacheConfig

from align.processes.base import Step


@dataclass(frozen=True)
class Taylor:
    """Which steps are computed and how the others are continued.

    Attributes:
        warmup: so many first ones are computed,
        interval: then every so many-th,
        after: and all from this index on, if it is there.
        order: of the continuation; 1 is a straight line through the last two.
    """

    warmup: int
    interval: int
    order: int
    after: int | None = None


class Caching:
    """A network that can have the cache for a while.  Between steps the rows of a run's calls have to stay what they are."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self._step = self._turn = 0

    @contextmanager
    def switched(self, taylor: Taylor) -> Iterator[None]:
        """While the context is open, which is one run from the first step on; nothing of it is left behind."""
        network, before = self.network, vars(self.network).get("forward")
        forward = network.forward
        network.enable_cache(
            TaylorSeerCacheConfig(
                cache_interval=taylor.interval,
                disable_cache_before_step=taylor.warmup,
                disable_cache_after_step=taylor.after,
                max_order=taylor.order,
                taylor_factors_dtype=torch.float32,
                use_lite_mode=True,
            )
        )
        self._step = self._turn = 0

        def named(*arguments: Any, **keywords: Any) -> Any:
            """The n-th call of a step goes on with the state of the n-th of the step before."""
            self._turn += 1
            with network.cache_context(f"call {self._turn}"):
                return forward(*arguments, **keywords)

        network.forward = named
        try:
            yield
        finally:
            del network.forward
            if before is not None:
                network.forward = before
            network.disable_cache()

    def at(self, step: Step) -> None:
        """Tell the step of the calls that follow."""
        if step.index != self._step:
            self._step, self._turn = step.index, 0
