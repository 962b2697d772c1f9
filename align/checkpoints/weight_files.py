"""Reading weight files strictly: every tensor is expected, of the right shape, and nothing is left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import INDEX, check_shards, shards, weight_files
from align.errors import MissingWeights, WrongWeights
from align.reading import parse_object

Module = TypeVar("Module", bound=nn.Module)


def existing(path: Path) -> Path:
    """The path of a file that is there. Raises MissingWeights."""
    if not path.is_file():
        raise MissingWeights(f"missing {path}")
    return path


def weights_of(folder: Path, name: str) -> tuple[Path, dict[str, str]]:
    """Where to read the weights ``STEM.safetensors`` of a folder, and the hash of each file. Raises WeightsError."""
    files = weight_files(folder, name)
    return folder / files[0], {one: sha256(folder / one) for one in files}


def sha256(path: Path) -> str:
    """Hex digest of a file, computed once while the file is not touched. Raises MissingWeights."""
    return file_hash(existing(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises MissingWeights, and WrongWeights if the file holds anything else."""
    try:
        return parse_object(existing(path).read_bytes(), path)
    except ValueError as error:
        raise WrongWeights(str(error)) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of the shards of an index, on the CPU. Raises WeightsError."""
    if INDEX in existing(path).name:
        check_shards(path)
        return {
            key: value for name in shards(path) for key, value in read_tensors(path.parent / name).items()
        }
    try:
        return load_file(str(path))
    except (SafetensorError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise WrongWeights(f"{path} is not a readable safetensors file: {first}") from None


def fill(
    module: Module, tensors: dict[str, Tensor], origin: Path | str, *, optional: tuple[str, ...] = ()
) -> Module:
    """Put tensors, by the module's own names, into its parameters and persistent buffers, converted to their
    data types.

    Those whose names end in an ``optional`` part (such as ``position_ids``) may be there and are ignored.  A module on the
    device ``meta`` is only checked.
    Raises WrongWeights for a missing or left-over name or another shape: one line that names up to three, and
    ``origin``.
    """
    own = module.state_dict()
    given = {key: value for key, value in tensors.items() if key in own or key.split(".")[-1] not in optional}
    odd = {
        "tensors missing": sorted(own.keys() - given.keys()),
        "unknown tensors": sorted(given.keys() - own.keys()),
        "wrong shapes": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
            for key in sorted(own.keys() & given.keys())
            if own[key].shape != given[key].shape
        ],
    }
    faults = [
        f"{len(names)} {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in odd.items()
        if names
    ]
    if faults:
        raise WrongWeights(f"{origin} does not fit {type(module).__name__}: {'; '.join(faults)}")
    if not next(module.parameters()).is_meta:
        module.load_state_dict(given)
    return module


def build(make: Callable[[], Module]) -> Module:
    """Call a constructor, for ``fill``; the module comes frozen, its parameters hold nothing yet.

    Random starting values of a large model would take longer than reading it.  The global random streams are
    not touched.
    """
    with torch.random.fork_rng(devices=[]), no_init_weights():
        return make().eval().requires_grad_(False)
