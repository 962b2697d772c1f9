"""The default folder of a run: readable, the same for the same command, and apart for different ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from align.checkpoints.needed import missing_text
from align.config.compose import Job
from align.config.schema import PromptsConfig
from align.runner.files import Files, files_of
from align.runner.prompts import set_hash, whole_set

_TOLD = re.compile(
    r"(backbone|method|prompts|experiment|metrics|seed|samples|run\..*|runner|runner\..*|prompts\..*|metrics\..*"
    r"|(semantics|judges\.\w+)\.(endpoint|command|key_variable|retries|timeout|batch)|hydra.*)="
)
"""Overrides that the folder's name tells already, or that don't decide what a picture looks like."""


_SET = re.compile(
    r"\+*prompts\.(kind|text|path|dataset|files|column|negative_column|seed_column"
    r"|split|number|objects|counts|set_seed)="
)
"""Overrides by which the prompts are others than those that the set's name tells."""


def in_folders(jobs: Sequence[Job], found: Sequence[Files] = ()) -> list[Job]:
    """Runs with their folders filled in, by their files, where they are ``found`` already. Raises ConfigError."""
    filled = []
    for job, files in zip(jobs, found or files_of(job.config for job in jobs), strict=True):
        run = job.config.run
        run = replace(run, folder=run.folder or default_folder(files, job.overrides))
        filled.append(replace(job, config=replace(job.config, run=run)))
    return filled


def default_folder(files: Files, overrides: Iterable[str]) -> str:
    """``<root>/<backbone>-<method>-<prompts>-seed<seed>``, then what else the command's ``key=value`` texts changed.

    A set that the user brings has a part of its hash after its name: of the whole set, so that more of it goes on in
    the same folder, and another one doesn't.  Raises ConfigError if it cannot be read.
    """
    config, overrides = files.config, list(overrides)
    prompts = config.prompts.name
    # No run can start with a data set that is not here.
    if is_own_set(config.prompts, overrides) and not missing_text(files.prompts):
        prompts += f"-{set_hash(whole_set(config.prompts, files.prompts))[:8]}"
    name = f"{config.backbone.name}-{config.method.name}-{prompts}-seed{config.seed}"
    changed = sorted(text.lstrip("+") for text in overrides if not _TOLD.match(text.lstrip("+")))
    if changed:
        name += f"-{_told_shortly(changed)}"
    return f"{config.run.root.rstrip('/') or '/'}/{name}"


def is_own_set(prompts: PromptsConfig, overrides: Iterable[str]) -> bool:
    """Whether prompts are the user's, so that their name alone does not tell them: all but those of a group's file."""
    unpinned = prompts.kind == "text" and prompts.sha256 is None
    return prompts.kind == "file" or unpinned or any(_SET.match(text) for text in overrides)


def _told_shortly(changed: list[str]) -> str:
    full = ",".join(changed)
    short = ",".join(
        text.partition("=")[0].rpartition(".")[2] + "=" + text.partition("=")[2] for text in changed
    )
    clean = re.sub(r"[^A-Za-z0-9_.=+,-]", "_", short)
    # Two options may have the same last part: the digest keeps their folders apart.
    ambiguous = len({text.partition("=")[0].rpartition(".")[2] for text in changed}) < len(changed)
    if clean == short and len(clean) <= 60 and not ambiguous:
        return clean
    return f"{clean[:40]}-{hashlib.sha256(full.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
