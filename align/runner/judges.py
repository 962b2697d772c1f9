"""From the options of judges to what a registered reward is loaded with, and what of them decides its values.  Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.judges import HttpConfig, JudgesConfig, ProcessConfig, VlmConfig
from align.rewards.errors import CannotJudge
from align.rewards.registry import REWARDS

if TYPE_CHECKING:
    from align.rewards.elsewhere.http import Server
    from align.rewards.elsewhere.pipe import Process
    from align.rewards.elsewhere.vlm import ChatJudge

ELSEWHERE = ("http", "vlm", "process")
"""Rewards whose model is elsewhere."""


def options_of(name: str, judges: JudgesConfig) -> dict[str, Any]:
    """What the loader of a reward takes besides its files. Raises ConfigError: a judge elsewhere is not there."""
    section = REWARDS[name].section
    if section is None:
        return {}
    options: Any = getattr(judges, section)
    if section not in ELSEWHERE:
        return {"options": asdict(options)}
    batch = 1 if isinstance(options, VlmConfig) else options.batch
    return {"asking": _asking(options), "fingerprint": dict(identity_of(name, judges)), "batch": batch}


@lru_cache(maxsize=64)
def identity_of(name: str, judges: JudgesConfig) -> Mapping[str, str]:
    """What of the options decides a reward's values, as texts; nothing of one that has none.

    A judge elsewhere is asked what it is, once. Raises ConfigError: it does not answer.
    """
    section = REWARDS[name].section
    if section is None:
        return {}
    options: Any = getattr(judges, section)
    if isinstance(options, VlmConfig):
        return _vlm_identity(options)
    if not isinstance(options, HttpConfig | ProcessConfig):
        return {key: json.dumps(value) for key, value in asdict(options).items()}
    try:
        said = _asking(options).health()
    except CannotJudge as error:
        raise ConfigError(f"reward {name}: {error}; start it, and give the same command") from error
    facts = {"reward": options.reward, "version": options.version}
    if isinstance(options, HttpConfig):
        facts["protocol"] = options.protocol
    if said.get("model"):
        return facts | {f"judge's {key}": value for key, value in said.items()}
    where = options.endpoint if isinstance(options, HttpConfig) else _program(options.command)
    return facts | {"judge": str(where)}


def fingerprint_of(name: str, judges: JudgesConfig) -> str:
    """One hash of ``identity_of``; empty for a reward without options."""
    found = identity_of(name, judges)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode("ascii")).hexdigest() if found else ""


def check_packages(names: Sequence[str]) -> None:
    """Refuse metrics and rewards that need a package which is not there. Raises ConfigError."""
    for name in names:
        if gone := REWARDS[name].absent():
            raise ConfigError(f"{name} {gone}")


def check_prompts(
    names: Sequence[str], judges: JudgesConfig, rows: Sequence[tuple[str, Mapping[str, str]]]
) -> None:
    """Refuse metrics and rewards of which prompts lack what they read; rows are prompts and their tags. Raises ConfigError."""
    for name in names:
        spec = REWARDS[name]
        if spec.lacks is None:
            continue
        options = asdict(getattr(judges, spec.section)) if spec.section is not None else {}
        told: dict[str, list[str | None]] = {}
        for prompt, tags in rows:
            read = [tags.get(tag) for tag in (*spec.tells, options.get("target")) if tag is not None]
            if told.setdefault(prompt, read) != read:
                raise ConfigError(
                    f"{name}: the prompt {shown(prompt)} is listed with different {' or '.join(spec.tells or ('texts',))}, "
                    "which are looked up by prompt: give each prompt one"
                )
        wrong = {
            prompt: why for prompt, tags in rows if (why := spec.lacks(prompt, tags, options)) is not None
        }
        if wrong:
            first = ", ".join(
                repr(prompt if len(prompt) < 60 else f"{prompt[:57]}...") for prompt in list(wrong)[:3]
            )
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ConfigError(f"{name} cannot judge {first}{more}: {next(iter(wrong.values()))}")


@lru_cache(maxsize=64)
def _asking(options: HttpConfig | VlmConfig | ProcessConfig) -> Any:
    if isinstance(options, HttpConfig):
        return _server(options)
    return _process(options) if isinstance(options, ProcessConfig) else _chat(options)


def _server(options: HttpConfig) -> Server:
    from align.rewards.elsewhere.http import Server

    same = {name: getattr(options, name) for name in ("reward", "protocol", "timeout", "retries")}
    return Server(str(options.endpoint), **same, key=_key(options.key_variable))


def _process(options: ProcessConfig) -> Process:
    from align.rewards.elsewhere.pipe import Process

    return Process(options.command, options.reward, options.timeout, options.retries)


def _chat(options: VlmConfig) -> ChatJudge:
    from align.rewards.elsewhere.vlm import GROUP, ChatJudge
    from align.semantics.endpoint import Endpoint

    key = _key(options.key_variable)
    endpoint = Endpoint(str(options.endpoint), str(options.model), key, options.timeout, GROUP)
    same = {name: getattr(options, name) for name in ("question", "mode", "normalise", "tokens", "retries")}
    return ChatJudge(endpoint, **same, low=options.range[0], high=options.range[1])


def _vlm_identity(options: VlmConfig) -> dict[str, str]:
    from urllib.parse import urlsplit

    from align.rewards.elsewhere.vlm import question_of

    question = question_of(options.question, "{prompt}", options.mode, *options.range)
    return {
        "host": str(urlsplit(str(options.endpoint)).hostname),
        "model": str(options.model),
        "version": options.version,
        "question": hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest(),
        "mode": f"{options.mode}{' over yes and no' if options.normalise else ''}",
    }


def _key(variable: str | None) -> str:
    return os.environ.get(variable, "") if variable else ""


def _program(command: Sequence[str]) -> str:
    """A command line, with the hash of each Python file that it names."""
    from align.checkpoints.hashes import read_hash

    files = [Path(word) for word in command if word.endswith(".py") and Path(word).is_file()]
    return " ".join([shlex.join(command), *(f"{path.name} {read_hash(path)}" for path in files)])
