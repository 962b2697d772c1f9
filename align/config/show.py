"""What ``--cfg`` prints."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from omegaconf import OmegaConf

from align.config.compose import Job
from align.config.convert import plain
from align.output import can_print


def show(jobs: Sequence[Job], what: str) -> str:
    """Configurations as YAML, every option with its value: ours ("job"), Hydra's own part ("hydra"), or "all"."""
    pages = []
    for job in jobs:
        values = {} if what == "hydra" else plain(job.config)
        page = OmegaConf.create(values)
        text = OmegaConf.to_yaml(page) if values else ""
        if what in ("hydra", "all"):
            text += OmegaConf.to_yaml(OmegaConf.create({"hydra": job.hydra}))
        if not can_print(text):  # so that it can be given back all the same
            text = yaml.safe_dump(yaml.safe_load(text), sort_keys=False)
        pages.append(text)
    return "---\n".join(pages)
