"""The work of a run: take a group of items, sample, measure, keep, until nothing is left to take."""

from __future__ import annotations

import sys
from collections import deque
from functools import partial

from align.config.schema import Config
from align.results.store import Store
from align.runner import build
from align.runner.interrupts import Interrupts
from align.runner.plan import Item, same_group
from align.runner.progress import Listener
from align.runner.rows import make_row, to_image
from align.runner.sampling import Sampling
from align.runner.score import Scorer


class Work:
    """Does what is pending in an open store; each item is tried once.

    Args:
        config: the run.
        store: where results go.
        meter: told of the progress.
        interrupts: lets a commit end.
    """

    def __init__(self, config: Config, store: Store, meter: Listener, interrupts: Interrupts) -> None:
        self.config = config
        self.store = store
        self.meter = meter
        self.interrupts = interrupts
        items: list[Item] = store.pending()  # type: ignore[assignment]
        self._todo = deque(items)
        self._sampling = Sampling(config, meter.say)
        build.set_up_torch(config.run.threads)
        self._device = build.torch_device(config.run.device)
        self._scorer = Scorer(config.metrics, self._device)

    def run(self) -> None:
        """Work until no item is left; with ``run.on_error=stop`` until one has failed.

        Raises:
            StoreError: a result cannot be written.
            DeviceLost: nothing can be sampled any more.
            WeightsError: weights are damaged or hold something else; nothing was made.
        """
        if self._todo:
            self._scorer.check()
        while group := self._take():
            outcomes = self._sampling.sample(group, partial(self.meter.sampling, len(group)))
            pictures = [None if one.picture is None else to_image(one.picture) for one in outcomes]
            there = [k for k, picture in enumerate(pictures) if picture is not None]
            measured = self._scorer.score(
                [picture for picture in pictures if picture is not None], [group[k].prompt for k in there]
            )
            columns = dict(zip(there, measured, strict=True))
            memory = self._peak_memory_mb()
            stop = False
            for k, (item, outcome) in enumerate(zip(group, outcomes, strict=True)):
                if outcome.picture is None and outcome.error is None:
                    outcome.error = "there is no picture"
                row = make_row(self.config, item, outcome, columns.get(k, {}), memory)
                failed = outcome.error is not None
                with self.interrupts.finishing():
                    self.store.commit(item, None if failed else pictures[k], row)
                self.meter.committed(failed=failed)
                if failed:
                    self.meter.say(f"item {item.index} {row['status']}")
                stop = stop or (failed and self.config.run.on_error == "stop")
            if stop:
                return

    def _take(self) -> list[Item]:
        """The next group; shared ones get smaller towards the end, so that all processes finish together."""
        size = self._sampling.in_flight
        if self.store.shared:
            size = min(size, max(self._sampling.batch_size, len(self._todo) // 4))
        group: list[Item] = []
        returned = self.config.method.returned
        while self._todo:
            # Pictures of one group of particles stay together: apart, the group would be made twice.
            if len(group) >= size and not same_group(group[-1], self._todo[0], returned):
                break
            item = self._todo.popleft()
            with self.interrupts.finishing():
                if self.store.claim(item):
                    group.append(item)
        return group

    def _peak_memory_mb(self) -> float | None:
        """Peak memory of the device so far: of CUDA what torch allocated, of the CPU that of the process."""
        if self._device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self._device) / 1e6
        try:
            import resource
        except ImportError:  # there is no such module on Windows
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
