"""One run by several workers of a Ray cluster.

A worker is nothing but another process on a shared folder (see ``align.store.claims``): it opens the store, claims items,
samples and commits them until none is left, on the device that Ray gives it.  This process opens the same store, starts the
workers, counts what they finish and replaces those that die; what a dead one had claimed becomes free again.  So nothing
depends on messages between them, and any mixture of runs with ``run.shared=true`` and ``runner=ray`` may work side by side.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.config.errors import ConfigError
from align.config.plugins import read_plugins
from align.config.schema import RunnerConfig
from align.errors import WeightsError
from align.runner.failures import CannotGoOn, DeviceLost
from align.runner.prepare import Prepared
from align.runner.progress import Listener, Meter
from align.runner.record import run_record
from align.store.errors import StoreError
from align.store.manifest import Manifest
from align.store.store import Store

POLL = 1.0
"""Seconds between two looks at what the workers have done."""


class WorkersLost(Exception):
    """More workers died than may be replaced; the message says how the last one did."""


def work(prepared: Prepared, store: Store, meter: Meter) -> None:
    """Do what is pending in an open shared store; an interruption lets each worker end its commit.

    Raises ConfigError (no such cluster, or no room in it for a worker), WorkersLost, and what a worker says.
    """
    with _cluster(prepared.config.runner) as ray:
        crew = _Crew(ray, prepared, store, meter)
        try:
            for _ in range(crew.number):
                crew.add()
            while crew.running:
                crew.look()
        except BaseException:
            crew.stop()
            raise


@contextmanager
def _cluster(config: RunnerConfig) -> Iterator[Any]:
    """Ray, joined to the cluster that is asked for; left again if it was not joined before."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if config.address is None and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        # Ray listens on all interfaces even of a cluster of one machine, and runs the code of whoever it lets in.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    joined = not ray.is_initialized()
    if joined:
        more: dict[str, Any] = {"include_dashboard": False} if config.address is None else {}
        # Else workers yield to everything on the machine, which local runs don't.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            ray.init(address=config.address or "local", log_to_driver=False, logging_level="ERROR", **more)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"runner.address={config.address}: no Ray cluster ({reason}); start one with ray start, or give runner.address=null"
            ) from error
    try:
        yield ray
    finally:
        if joined:
            ray.shutdown()


class _Crew:
    """The workers of a run; ``running`` has the token of each that has not ended, by its task."""

    def __init__(self, ray: Any, prepared: Prepared, store: Store, meter: Meter) -> None:
        self.ray = ray
        self.store = store
        self.meter = meter
        self.running: dict[Any, str] = {}
        config = prepared.config
        cpus = config.run.threads or 1
        have = ray.cluster_resources()
        gpus = int(have.get("GPU", 0)) if config.run.device in ("auto", "cuda") else 0
        most = gpus or int(have.get("CPU", 0)) // cpus
        if most == 0:
            raise ConfigError(
                f"runner=ray: the cluster has no {cpus} CPU cores for a worker: give a smaller run.threads"
            )
        self._unmeasured = store.unmeasured(prepared.metrics)
        left = len(store.pending()) + len(self._unmeasured)
        self.number = min(config.runner.workers or most, most, left)
        if (config.runner.workers or 0) > most:
            meter.say(f"runner.workers={config.runner.workers}: the cluster has room for {most}")
        self.restarts = config.runner.restarts
        # A worker's process ends with its work, so that it gives back its memory and a lost device with it.
        self._task = ray.remote(
            num_cpus=cpus if not gpus else 0, num_gpus=1 if gpus else 0, max_retries=0, max_calls=1
        )(_worker)
        self._wanted = prepared.metrics
        self._prepared = ray.put(prepared)
        self._told = store.done, store.failed

    def add(self) -> None:
        token = secrets.token_hex(8)
        self.running[self._task.remote(self._prepared, token, os.getcwd())] = token

    def look(self) -> None:
        """Wait a moment, count what was finished, and see to workers that have ended. See ``work`` for what it raises."""
        ended, _ = self.ray.wait(list(self.running), timeout=POLL)
        self._count()
        for task in ended:
            token = self.running.pop(task)
            try:
                messages, error = self.ray.get(task)
            except self.ray.exceptions.RayError as death:
                self._replace(token, " ".join(str(death).split())[:200])
                continue
            for message in messages:
                self.meter.say(message)
            if isinstance(error, DeviceLost):
                self._replace(token, str(error))
            elif error is not None:
                raise error

    def _replace(self, token: str, reason: str) -> None:
        self.store.bury(token)
        if self.restarts == 0:
            raise WorkersLost(reason)
        self.restarts -= 1
        self.meter.say(f"a worker is gone ({reason}): another one takes its place")
        self.add()

    def _count(self) -> None:
        self.store.refresh()
        done, failed = self.store.done, self.store.failed
        for _ in done - self._told[0]:
            self.meter.committed(failed=False)
        for _ in failed - self._told[1]:
            self.meter.committed(failed=True)
        self._told = done, failed
        left = [item for item in self._unmeasured if self.store.lacking(item, self._wanted)]
        self.meter.measured(len(self._unmeasured) - len(left))
        self._unmeasured = left

    def stop(self) -> None:
        """Tell all workers to end after the commit in progress, and wait for them."""
        for task in self.running:
            self.ray.cancel(task, force=False)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=30)


class _Lines(Listener):
    """Keeps what a worker has to say; finished items are counted by the other process, in the folder."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def _worker(prepared: Prepared, token: str, folder: str) -> tuple[list[str], Exception | None]:
    """What it has to say, and why it could not go on."""
    from align.runner.interrupts import Interrupts
    from align.runner.work import Work

    os.chdir(folder)
    read_plugins(prepared.config.run.plugins)  # what the command line of the other process named
    options, kept = prepared.config.run, _Lines()
    try:
        with Interrupts() as interrupts:
            store = Store(
                Path(str(options.folder)),
                Manifest(prepared.identity, run_record(prepared)),
                prepared.items,
                extend=options.extend,
                shared=True,
                csv_every=float("inf"),
                token=token,
            )
            with store:
                Work(prepared, store, kept, interrupts).run()
    except KeyboardInterrupt:
        pass  # told to stop
    except (StoreError, WeightsError, DeviceLost, CannotGoOn) as error:
        return kept.lines, error
    return kept.lines, None
