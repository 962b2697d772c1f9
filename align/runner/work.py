"""The work of a run: measure what was left, then take a group of items, sample, keep and measure it, until none is left."""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from align.runner import build
from align.runner.devices import torch_device
from align.runner.failures import CannotGoOn, ErrorLog
from align.runner.interrupts import Interrupts
from align.runner.measure import Measuring
from align.runner.memory import waiting
from align.runner.pace import Pace
from align.runner.plan import Item, group_of
from align.runner.prepare import Prepared
from align.runner.progress import Listener
from align.runner.rows import make_row, to_image
from align.runner.sampling import Sampling
from align.runner.score import Scorer
from align.runner.trial import try_rewards
from align.startup import settle
from align.store.store import Store

if TYPE_CHECKING:
    from align.sampling.sampler import Outcome


class Work:
    """Does what is pending in an open store; each item is tried once.

    ``clock`` tells seconds, monotonic.  ``beside``: a group is kept and measured in a thread while the next one is sampled; by
    itself only where a device samples, as on a CPU both would want the same cores.
    """

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        meter: Listener,
        interrupts: Interrupts,
        clock: Callable[[], float] = time.monotonic,
        beside: bool | None = None,
    ) -> None:
        self.config = config = prepared.config
        self.store = store
        self.meter = meter
        self.interrupts = interrupts
        self._clock = clock
        items: list[Item] = store.pending()  # type: ignore[assignment]
        # What failed before comes last, so that a group that ends the run again keeps no other one from being made.
        failed = store.failed
        self._todo = deque(sorted(items, key=lambda item: item.key in failed))
        self._errors = ErrorLog(store.folder)
        self._sampling = Sampling(prepared.files, prepared.calls, meter.say, self._errors)
        build.set_up_torch(config.run.threads)
        self._device = torch_device(config.run.device)
        self._scorer = Scorer(config.metrics, self._device, meter.say, config.judges)
        if items:
            files = prepared.files
            guides = (one for name in files.guiding for one in files.reward(name))
            self._scorer.waiting = waiting(files, [*files.backbone, *guides])
        self._measuring = Measuring(store, prepared.metrics, self._scorer, meter, interrupts, self._errors)
        particles, returned = config.method.particles, config.method.returned
        call = prepared.calls.shared(particles) * returned // particles
        self._pace = Pace(config.run.in_flight, call)
        self._beside = self._device.type == "cuda" if beside is None else beside

    def run(self) -> None:
        """Work until no item is left; with ``run.on_error=stop`` until one has failed.

        Raises StoreError, DeviceLost, WeightsError (nothing was made), CannotGoOn (a reward fails on anything, or a
        group did).
        """
        self._scorer.load_all()
        self._measuring.backlog()
        if self._todo:
            try_rewards(self.config, self._scorer, self._todo, self._device, self._errors)
        settle()
        began, stop, hopeless = self._clock(), False, None
        with ThreadPoolExecutor(1) as thread:  # which is waited for, whatever happens
            keeping: Future[None] | None = None
            while not stop and hopeless is None and (group := self._take()):
                outcomes = self._sampling.sample(group, partial(self.meter.sampling, len(group)))
                if keeping is not None:
                    keeping.result()
                if self._beside:
                    keeping = thread.submit(self._keep, group, outcomes)
                else:
                    self._keep(group, outcomes)
                ended = self._clock()
                self._pace.took(len(group), ended - began)
                began = ended
                errors = [outcome.error for outcome in outcomes]
                stop = any(errors) and self.config.run.on_error == "stop"
                hopeless = self._hopeless(group, errors)
            if keeping is not None:
                keeping.result()
        if hopeless is not None:
            raise CannotGoOn(hopeless)
        if not stop:
            if self._scorer.waiting:
                self._sampling.leave()
            self._measuring.rest()

    def _hopeless(self, group: list[Item], errors: list[str | None]) -> str | None:
        """Why no other group would be made either."""
        if self._sampling.hopeless is not None:
            return (
                f"{len(group)} items failed together ({self._sampling.hopeless}) and so would others: mend it, and "
                f"the same command goes on; the traceback is in {self._errors.path}"
            )
        if len({item.prompt for item in group}) > 1 and None not in errors and len(set(errors)) == 1:
            return f"{len(group)} items failed alike ({errors[0]}) and so would others: mend it, and the same command goes on"
        return None

    def _keep(self, group: list[Item], outcomes: list[Outcome]) -> None:
        """Commit what was made of a group, and measure it unless the run is to end."""
        memory = self._peak_memory_mb()
        for item, outcome in zip(group, outcomes, strict=True):
            failed = outcome.error is not None
            picture = None if outcome.picture is None else to_image(outcome.picture)
            row = make_row(self.config, item, outcome, memory)
            with self.interrupts.finishing():
                self.store.commit(item, picture, row, hold=bool(self._measuring.wanted))
            self.meter.committed(failed=failed)
            if failed:
                self.meter.say(f"item {item.index} {row['status']}")
        if not self.interrupts.seen:
            self._measuring.these(group)

    def _take(self) -> list[Item]:
        """The next group; shared ones get smaller towards the end, so that all processes finish together."""
        size = self._pace.size
        if self.store.shared:
            size = min(size, max(self._sampling.calls.most, len(self._todo) // 4))
        group: list[Item] = []
        returned = self.config.method.returned
        while self._todo:
            # Pictures of one group of particles stay together: apart, the group would be made twice.
            if len(group) >= size and group_of(group[-1], returned) != group_of(self._todo[0], returned):
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
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
