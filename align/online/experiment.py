"""The rounds of ``python -m align online``, one after another; whatever ends it, the same command goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from align import writing
from align.checkpoints.hashes import read_hash
from align.config.convert import plain
from align.config.errors import ConfigError
from align.config.schema import Config, RewardConfig
from align.errors import WrongWeights
from align.online.learn import learn
from align.online.query import query, read_asked, save_asked
from align.online.rounds import DATA, SURROGATE, Online, guiding
from align.online.summary import write_summary
from align.output import tame
from align.reading import read_json
from align.rewards.features import features_reward
from align.runner.build import set_up_torch
from align.runner.estimate import cost_line
from align.runner.exits import DONE, FAILED
from align.runner.files import Files
from align.runner.finish import show_comparison
from align.runner.launch import run_all
from align.runner.prepare import prepare
from align.store.manifest import first_difference
from align.surrogates.frame import Asked
from align.surrogates.surrogate import Surrogate, read_surrogate, told_by

NAME = "online.json"


def run_online(online: Online, console: Console) -> int:
    """All rounds, then the evaluation; returns the exit code. Raises ConfigError, FilesMissing before any work."""
    identity = _identity(online)
    _enter(online, identity)
    _say(console, _plan(online))
    set_up_torch(online.config.run.threads)
    asked: Asked | None = None
    surrogate: Surrogate | None = None
    for round_ in range(online.rounds.number + 1):
        reward = None if surrogate is None else _guiding(online.folder_of(round_ - 1))
        code, asked = _ask(online, round_, reward, asked, console)
        if asked is None:
            return code
        surrogate = _learn(online, round_, asked, surrogate, console)
    return _finish(online, surrogate, console)


def _ask(
    online: Online, round_: int, reward: RewardConfig | None, before: Asked | None, console: Console
) -> tuple[int, Asked | None]:
    """A round's pictures, made and asked about unless that was done; all that was asked so far, or why there is nothing."""
    path = online.folder_of(round_) / DATA
    if path.is_file():
        return DONE, read_asked(path)
    _say(console, f"\nround {round_} of {online.rounds.number}")
    code = run_all([online.round(round_, reward)])
    if code != DONE:
        return code, None
    new = query(online, round_)
    asked = new if before is None else before.and_then(new)
    if len(asked.values) < 2:
        _say(
            console, f"{online.blackbox} gave {len(asked.values)} numbers, from which nothing can be learned"
        )
        return FAILED, None
    save_asked(asked, path)
    return DONE, asked


def _learn(
    online: Online, round_: int, asked: Asked, before: Surrogate | None, console: Console
) -> Surrogate:
    """The surrogate of a round, fitted unless there is one of this very data and these options."""
    folder = online.folder_of(round_)
    path = folder / SURROGATE
    options = json.dumps(plain(online.surrogate), sort_keys=True)
    of = hashlib.sha256(f"{read_hash(folder / DATA)} {options}".encode()).hexdigest()
    if path.is_file() and _of(path) == of:
        return read_surrogate(path)
    found = learn(online, asked, round_, before)
    found.save(path, of=of)
    _say(console, f"surrogate of {len(asked.values)} answers: {path}")
    return found


def _of(path: Path) -> str:
    try:
        return str(told_by(path).get("of"))
    except WrongWeights:
        return ""  # damaged: made again


def _guiding(folder: Path) -> RewardConfig:
    path = folder / SURROGATE
    return guiding(path, read_hash(path))


def _finish(online: Online, surrogate: Surrogate | None, console: Console) -> int:
    """The evaluation by what the last surrogate expects, what is compared with it, and the pages."""
    assert surrogate is not None
    code, folder = DONE, online.folder / "evaluation"
    if online.rounds.evaluation:
        folder.mkdir(exist_ok=True)
        path = folder / SURROGATE
        surrogate.plain().save(path)
        _say(console, f"\nevaluation by {path}, without optimism")
        arms = [online.evaluation(None), online.evaluation(_guiding(folder))]
        code = run_all([_unseen(one) for one in arms])
        if code == DONE:
            show_comparison([Path(str(one.run.folder)) for one in arms], folder, console)
    if code == DONE and online.rounds.best_of_n:
        _say(console, "\nas many plain pictures, each asked about")
        code = run_all([_unseen(online.beside())])
    if code == DONE:
        for path in write_summary(online, console):
            _say(console, str(path))
    return code


def _unseen(config: Config) -> Config:
    return replace(config, run=replace(config.run, gallery=False))


def _identity(online: Online) -> dict[str, Any]:
    """All that decides an experiment but how long it goes on; files are looked for. Raises ConfigError, FilesMissing."""
    tower = features_reward(online.surrogate.features)
    followed = RewardConfig(tower, {tower: 1.0})
    first, later = prepare([online.round(0, None), online.round(1, followed)])
    options = plain(online.surrogate)
    del options["name"]
    asked = {name: getattr(online.rounds, name) for name in _DECIDES}
    return {
        "plain": first.identity,
        "guided": {name: value for name, value in later.identity.items() if name != "reward"},
        "blackbox": {online.blackbox: Files(online.config).reward_fingerprint(online.blackbox)},
        "features": Files(online.config).reward_fingerprint(tower),
        "surrogate": options,
        "rounds": asked,
        "prompts": list(online.asked),
        "seed": online.config.seed,
        "samples": online.config.samples,
    }


_DECIDES = ("first", "each", "noise", "template", "template_share")


def _enter(online: Online, identity: dict[str, Any]) -> None:
    """Make the experiment's folder, or see that it is this one's. Raises ConfigError."""
    path = online.folder / NAME
    try:
        if path.is_file():
            difference = first_difference(read_json(path)["identity"], identity)
            if difference is not None:
                key, was, wanted = difference
                raise ConfigError(
                    f"{online.folder} was made with {key}={was}, this command has {wanted}: choose another run.folder"
                )
            return
        online.folder.mkdir(parents=True, exist_ok=True)
        value = {"format": 1, "identity": identity, "config": plain(online.config)}
        writing.write_text(path, json.dumps(value, indent=1) + "\n")
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"run.folder={online.folder} cannot be used: {error}") from error


def _plan(online: Online) -> str:
    rounds, later = online.rounds, online.round(1, RewardConfig("surrogate", {"surrogate": 1.0}))
    asked = rounds.first + rounds.number * rounds.each
    lines = {
        "asks": f"{online.blackbox} about {rounds.first} plain pictures and {rounds.number} times {rounds.each}: {asked} in all",
        "learns": f"{online.surrogate.name} on {online.surrogate.features}",
        "cost": cost_line(later, rounds.number * rounds.each),
        "folder": str(online.folder),
    }
    return "\n".join(f"{name:<8} {text}" for name, text in lines.items())


def _say(console: Console, text: str) -> None:
    console.print(tame(text), markup=False, highlight=False, soft_wrap=True)
