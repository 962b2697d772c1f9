"""Judges that are elsewhere: whether the options say where, and whether a key may be sent there."""

from __future__ import annotations

import os
import re

from align.config.errors import ConfigError
from align.config.schema import Config


def check_judges(config: Config) -> None:
    """Refuse what cannot work of the judges that a run asks. Imports no torch. Raises ConfigError."""
    asked = {*config.followed, *config.metrics.rewards}
    judges = config.judges
    if "http" in asked:
        _endpoint("http", judges.http.endpoint, judges.http.key_variable, "http://localhost:8000/score")
    if "vlm" in asked:
        _endpoint("vlm", judges.vlm.endpoint, judges.vlm.key_variable, "http://localhost:8000/v1")
        if not judges.vlm.model:
            raise ConfigError("judges.vlm.endpoint needs a model: give judges.vlm.model=NAME")
        if "{prompt}" not in judges.vlm.question:
            raise ConfigError(
                "judges.vlm.question does not name the prompt: give a question with {prompt} in it"
            )
        low, high = judges.vlm.range
        if low >= high:
            raise ConfigError(f"judges.vlm.range=[{low:g},{high:g}] is empty: give the least number first")
    if "process" in asked and not judges.process.command:
        raise ConfigError(
            "reward process needs a program: give 'judges.process.command=[PROGRAM,ARGUMENT,...]', such as "
            "[/other/.venv/bin/python,scripts/reward_server.py,NAME,--pipe]"
        )


def _endpoint(section: str, endpoint: str | None, variable: str | None, example: str) -> None:
    from align.web import address_fault, key_fault

    group = f"judges.{section}"
    if not endpoint:
        raise ConfigError(f"reward {section} needs a server: give {group}.endpoint=URL, such as {example}")
    if not re.fullmatch(r"[A-Za-z_]\w{0,39}", variable or "_", re.ASCII):
        raise ConfigError(
            f"{group}.key_variable is no name of a variable: give the name, never the key, which would be recorded"
        )
    key = os.environ.get(variable, "") if variable else ""
    if fault := address_fault(endpoint, group) or key_fault(endpoint, key, group):
        raise ConfigError(fault)
