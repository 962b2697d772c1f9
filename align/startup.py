"""A quick start and a quick end of the command; what a process that is not its own (tests, notebooks) never asks for."""

from __future__ import annotations

import atexit
import gc
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

USUAL = gc.get_threshold()


def hurry() -> None:
    """Hardly ever look for garbage while modules are imported, which leave none: a sixth of that time."""
    gc.set_threshold(100_000, USUAL[1], USUAL[2])


def settle() -> None:
    """What is there now stays: look for garbage as usual, but no more among all that was imported."""
    if gc.get_threshold() != USUAL:  # only where ``hurry`` was called, in the command's own process
        gc.freeze()
        gc.set_threshold(*USUAL)


def fix_workspace() -> bool:
    """Give cuBLAS a workspace with which it adds up in one order; false where a user has asked for another.

    Torch reads the choice when it makes its first product on a GPU, and never again.
    """
    return os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8") in (":4096:8", ":16:8")


@contextmanager
def tolerant(foreign: bool = True) -> Iterator[None]:
    """While code that is not ours computes, or is walked back, torch only warns of what has no deterministic form on a GPU."""
    import torch

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(min(before, 1) if foreign else before)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def leave(code: int) -> NoReturn:
    """End the process as the interpreter does, but for taking apart what the system frees at once.

    Threads are waited for, functions that were registered for the end are called, files are flushed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.unfreeze()
    for one in gc.get_objects():
        # isinstance would ask objects for their __class__, which some libraries answer with a warning.
        if issubclass(type(one), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
            with suppress(OSError, ValueError):
                one.flush()
    os._exit(code)
