"""Official checkpoints that are pickles: read as plain tensors only, and kept as safetensors from then on.

A pickle can run any code when it is opened; ``torch.load(weights_only=True)`` refuses all but tensors.  The
copy is named by the hash of its source, ``<HF_HOME>/align/converted/<sha256>.safetensors``, so it never goes
stale; it keeps names and data types, and is written beside its place and then renamed, so it is whole or
not there.  Whether it fits a model is for ``fill`` to check, at every load.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from align.checkpoints.layout import PICKLES
from align.checkpoints.weight_files import existing, read_tensors, sha256
from align.errors import WrongWeights
from align.rewards.sources import cache

_DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError)

log = logging.getLogger(__name__)


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a pickle through its safetensors copy, on the CPU. Raises WeightsError."""
    if path.suffix not in PICKLES:
        return read_tensors(path)
    copy = cache() / "converted" / f"{sha256(existing(path))}.safetensors"
    if copy.is_file():
        return read_tensors(copy)
    tensors = unpickle(path)
    try:
        _write(tensors, copy)
    except OSError as error:
        log.warning("%s cannot be kept as safetensors, so it is read anew each time: %s", path.name, error)
    return tensors


def unpickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, which may be wrapped as ``{"state_dict": ...}``; nothing in it is run. Raises WrongWeights."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _DAMAGED as error:
        # torch's message runs over many lines and advises to trust the file.
        wanted = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        why = f"it asks for {wanted[1]} and might run code" if wanted else "it is damaged or no checkpoint"
        raise WrongWeights(f"{path} is refused: {why}; fetch the published file again") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise WrongWeights(f"{path} is refused: it is no table of tensors")
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise WrongWeights(f"{path} is refused: {strange[0]!r} in it is no tensor")
    return {str(key): value for key, value in content.items()}


def _write(tensors: dict[str, Tensor], target: Path) -> None:
    """Write a safetensors file that is whole or not there. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".safetensors")
    os.close(handle)
    try:
        save_file(_apart(tensors), name)
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, Exception) and not isinstance(error, OSError):
            raise OSError(str(error)) from error  # a full disk, as safetensors reports it
        raise


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    out = {}
    for key, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        out[key] = value if whole and place not in seen else value.clone().contiguous()
        seen.add(place)
    return out
