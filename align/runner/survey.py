"""What is installed, what is missing, and the exact command that brings it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import PICKLES
from align.checkpoints.needed import Needed, mending
from align.config.schema import Config
from align.errors import WrongWeights
from align.runner.exits import DONE, MISSING_WEIGHTS
from align.runner.files import Files, files_of
from align.version import DISTRIBUTION

INSTALL = "pip install -e ."


def survey(configs: Sequence[Config]) -> int:
    """Say what is here and what is missing; returns 0 if the backbones of some configurations can run, 3 if not."""
    packages, absent = _packages()
    print("packages", *packages, sep="\n")
    print("devices", *(f"  {line}" for line in _devices()), sep="\n")
    from align.rewards.registry import REWARDS

    found = files_of(configs)
    backbones = {files.config.backbone.name: files for files in found}
    wanted = dict.fromkeys(
        [
            *(one for files in found for one in files.prompts),
            *(one for files in backbones.values() for one in files.backbone),
            *(one for files in found for one in files.value),
            *(one for name in REWARDS for one in found[0].reward(name)),
        ]
    )
    print("weights", *(_weights_line(needed) for needed in wanted if needed.parts), sep="\n")
    mends = mending(needed for needed in wanted if needed.missing())
    if absent:
        mends.insert(0, INSTALL)
    if mends:
        print("to mend what is missing", *(f"  {mend}" for mend in mends), sep="\n")
    able = {
        name: not absent and not any(one.missing() for one in files.backbone)
        for name, files in backbones.items()
    }
    refused = {name: _refused(files) for name, files in backbones.items() if able[name]}
    able |= {name: not why for name, why in refused.items()}
    for name, can in able.items():
        print(f"backbone {name} {'can run' if can else refused.get(name, 'cannot run yet')}")
    return DONE if all(able.values()) else MISSING_WEIGHTS


def _refused(files: Files) -> str:
    """Why a backbone whose files are all there cannot be sampled; empty if it can."""
    try:
        _ = files.pieces and files.stated
    except WrongWeights as error:
        return f"cannot run: {error}"
    return ""


def _packages() -> tuple[list[str], list[str]]:
    """A line for each package that the project needs, and the names of those that are absent."""
    try:
        names = [_name(text) for text in requires(DISTRIBUTION) or [] if "extra ==" not in text]
    except PackageNotFoundError:  # run from a checkout without installation
        names = [
            "torch",
            "diffusers",
            "transformers",
            "hydra-core",
            "open_clip_torch",
            "numpy",
            "pillow",
            "pandas",
        ]
    lines, absent = [], []
    for name in names:
        try:
            lines.append(f"  {name:<16} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"  {name:<16} MISSING")
            absent.append(name)
    return lines, absent


def _name(requirement: str) -> str:
    """The name at the start of a requirement."""
    end = next(
        (place for place, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None
    )
    return requirement[:end]


def _devices() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"cpu: {os.cpu_count()} cores; torch cannot be imported ({error})"]
    found = [f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found.append(f"cuda:{number}: {facts.name}, {facts.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _weights_line(needed: Needed) -> str:
    missing = needed.missing()
    if missing:
        return f"  {needed.what:<28} MISSING {', '.join(missing)} in {needed.folder}"
    files = needed.files()
    size = sum(path.stat().st_size for path in files) / 1e6
    models = [path for path in files if path.suffix in (".safetensors", *PICKLES)]
    names = [path.name if path.parent == needed.folder else path.parent.name for path in models]
    hashes = ", ".join(f"{name} {file_hash(path)[:8]}" for name, path in zip(names, models, strict=True))
    return f"  {needed.what:<28} {size:6.1f} MB  {hashes}"
