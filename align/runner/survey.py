"""What is installed, what is missing, the exact command that brings it, and bringing it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import GATED, PICKLES
from align.checkpoints.needed import Needed, mending, missing_text
from align.checkpoints.reference import hub_names
from align.config.schema import Config
from align.errors import WrongWeights
from align.runner.exits import DONE, MISSING_WEIGHTS
from align.runner.files import Files, files_of
from align.runner.memory import memory_line
from align.runner.record import PACKAGES
from align.version import DISTRIBUTION

INSTALL = "pip install -e ."
CAN = "can run"


def survey(configs: Sequence[Config]) -> int:
    """Say what is here and what is missing; returns 0 if the backbones of some configurations can run, 3 if not."""
    from align.rewards.registry import REWARDS

    packages, absent = _packages()
    packages += [f"  {name:<16} {gone}" for name, spec in REWARDS.items() if (gone := spec.absent())]
    print("packages", *packages, sep="\n")
    print("devices", *(f"  {line}" for line in _devices()), sep="\n")
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
    able = True
    for name, files in backbones.items():
        can = "cannot run yet" if absent else _can_run(files)
        print(f"backbone {name} {can}")
        able = able and can.startswith(CAN)
    return DONE if able else MISSING_WEIGHTS


def _can_run(files: Files) -> str:
    if any(one.missing() for one in files.backbone):
        return "cannot run yet"
    try:
        for one in files.backbone:
            one.fingerprint()
        _ = files.pieces and files.stated
        memory = memory_line(files)
    except WrongWeights as error:
        return f"cannot run: {error}"
    return f"{CAN}; memory: {memory}" if memory else CAN


def _packages() -> tuple[list[str], list[str]]:
    """A line for each package that the project needs, and the names of those that are absent."""
    try:
        needed = [text for text in requires(DISTRIBUTION) or [] if "extra ==" not in text]
    except PackageNotFoundError:  # run from a checkout without installation
        needed = [*PACKAGES, "hydra-core", "pandas"]
    names = [re.split(r"[^\w.-]", text)[0] for text in needed]
    lines, absent = [], []
    for name in names:
        try:
            lines.append(f"  {name:<16} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"  {name:<16} MISSING")
            absent.append(name)
    return lines, absent


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
    gated = "gated" if needed.hub is not None and needed.hub.repo in GATED else ""
    about = "".join(f"  ({facts})" for facts in [", ".join(filter(None, (needed.about, gated)))] if facts)
    if missing:
        return f"  {needed.what:<28} MISSING {', '.join(missing)} in {needed.folder}{about}"
    files = needed.files()
    size = sum(path.stat().st_size for path in files) / 1e6
    models = [path for path in files if path.suffix in (".safetensors", *PICKLES)]
    try:
        needed.fingerprint()
    except WrongWeights as error:
        return f"  {needed.what:<28} DAMAGED: {error}{about}"
    names = [path.name if path.parent == needed.folder else path.parent.name for path in models]
    hashes = ", ".join(f"{name} {file_hash(path)[:8]}" for name, path in zip(names, models, strict=True))
    return f"  {needed.what:<28} {size:6.1f} MB  {hashes}{about}"


def fetch_missing(needed: Callable[[], Sequence[Needed]]) -> int:
    """Fetch all that is missing and on the net; returns 0 if nothing is missing afterwards, else 3.

    Nothing is fetched while the hub refuses any of it.  ``needed`` is called again in the end, as where files are can change when
    they come.
    """
    from align.checkpoints.fetch import FetchError, check_access, fetch_hub, fetch_url

    refused = []
    for hub in {one.hub.repo: one.hub for one in needed() if one.hub is not None and one.missing()}.values():
        try:
            check_access(hub)
        except FetchError as error:
            refused.append(str(error))
    if refused:
        print(*(f"align: {line}" for line in refused), sep="\n", file=sys.stderr)
        return MISSING_WEIGHTS
    for one in needed():
        gone = one.missing()
        if not gone:
            continue
        print(f"fetching {one.what}: {', '.join(gone)}", flush=True)
        try:
            if one.hub is not None:
                fetch_hub(one.hub, hub_names(one.hub, gone))
            for file in one.urls:
                fetch_url(file.url, file.sha256, file.target)
        except FetchError as error:
            print(f"align: {error}", file=sys.stderr)
    left = missing_text(needed())
    if left:
        print(left, file=sys.stderr)
    else:
        print("all files of this configuration are there")
    return MISSING_WEIGHTS if left else DONE
