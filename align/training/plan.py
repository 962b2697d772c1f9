"""A training before any work: composed, checked, with its files found.  Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align import writing
from align.checkpoints.needed import missing_text
from align.config.check_budget import refuse_budget
from align.config.command import Command
from align.config.compose import jobs_of
from align.config.convert import plain, shown
from align.config.errors import ConfigError, suggestion
from align.config.schema import Config
from align.config.training import TrainingConfig
from align.reading import read_json
from align.rewards.registry import REWARDS
from align.runner.devices import check_device
from align.runner.exits import FilesMissing
from align.runner.files import Files
from align.runner.prompts import load_prompts
from align.shapes.grammar import parse
from align.version import git_state, version

CHECKER = "checker"
RECORD = "training.json"
_FREE = ("run.", "budget.", "training.rounds", "training.epochs", "training.boards", "training.save_every")
"""Options that may be others when a training goes on, or that none has."""


@dataclass(frozen=True)
class Plan:
    """A training that can start.

    Attributes:
        prompts: different ones, in the order of their set.
        held_out: the plain sampling that is examined, and its prompts; none where nobody examines.
    """

    config: Config
    training: TrainingConfig
    files: Files
    prompts: tuple[str, ...]
    held_out: Config | None
    held_out_prompts: tuple[str, ...]
    folder: Path


def plan_of(name: str, command: Command) -> Plan:
    """Compose and check a training. Raises ConfigError, FilesMissing."""
    given = {text.lstrip("+~").partition("=")[0] for text in command.overrides}
    told = [f"training={name}"]
    training = _composed(command, told).training
    assert training is not None
    told += [f"prompts={training.prompts}"] if "prompts" not in given else []
    told += [f"reward={training.reward}"] if training.reward and "reward" not in given else []
    config = _composed(command, told)
    training = config.training
    assert training is not None
    _check(config, training)
    held_out = _held_out(command, training) if training.examine.judges else None
    files = Files(config)
    followed = config.reward.terms if training.follows_reward else ()
    rewards = dict.fromkeys((*followed, *(one for one in training.examine.judges if one != CHECKER)))
    needed = [*files.prompts, *files.backbone, *(one for reward in rewards for one in files.reward(reward))]
    examined = Files(held_out, files) if held_out is not None else None
    needed += examined.prompts if examined is not None else []
    check_device(config.run.device)
    if text := missing_text(dict.fromkeys(needed)):
        raise FilesMissing(text)
    prompts = tuple(dict.fromkeys(load_prompts(config.prompts, files.prompts).prompts))
    if training.kind in ("dpo", "kto", "spm") and training.pairs.labels == "world":
        _check_captions("training.pairs.labels=world", prompts)
    held: tuple[str, ...] = ()
    if held_out is not None and examined is not None:
        held = tuple(dict.fromkeys(load_prompts(held_out.prompts, examined.prompts).prompts))
        _check_held_out(training, prompts, held)
    folder = (
        config.run.folder
        or f"{config.run.root}/train-{training.name}-{config.backbone.name}-seed{config.seed}"
    )
    return Plan(config, training, files, prompts, held_out, held, Path(folder))


def _composed(command: Command, told: Iterable[str]) -> Config:
    (job,) = jobs_of(replace(command, told=tuple(told)))
    return job.config


def _held_out(command: Command, training: TrainingConfig) -> Config:
    """An ordinary run of the same backbone."""
    examine = training.examine
    kept = [
        text for text in command.overrides if text.lstrip("+~").startswith(("backbone=", "backbone.", "run."))
    ]
    told = [f"prompts={examine.prompts}", f"prompts.limit={examine.number}", f"sampler={examine.sampler}"]
    return _composed(replace(command, overrides=tuple(kept)), [*told, "method=none", "metrics=none"])


def _check(config: Config, training: TrainingConfig) -> None:
    """Refuse what cannot be trained. Raises ConfigError."""
    backbone, sampler = config.backbone, config.sampler
    refuse_budget(config, "train")
    if backbone.kind != "unet" or backbone.consistency or not backbone.pair:
        raise ConfigError(
            f"backbone={backbone.name} is not trained here: give a UNet with both halves of guidance, such as shapes, sd15 or sdxl"
        )
    for option in ("compile", "offload", "storage"):
        if getattr(backbone, option):
            raise ConfigError(
                f"backbone.{option}={shown(getattr(backbone, option))} passes no gradient to the updates: leave it out"
            )
    for place, judge in enumerate(training.examine.judges):
        if judge != CHECKER and judge not in REWARDS:
            raise ConfigError(
                f"training.examine.judges[{place}]={shown(judge)} is no reward{suggestion(judge, [CHECKER, *REWARDS])}"
            )
    followed = training.follows_reward and training.examine.judges
    if followed and training.examine.judges[0] in config.reward.terms:
        raise ConfigError(
            f"training.examine.judges={shown(list(training.examine.judges))}: the first decides which weights are best, and "
            f"reward={config.reward.name} is what is followed: put another one first"
        )
    if training.follows_reward and config.reward.combine == "ranks":
        raise ConfigError(
            "reward.combine=ranks chooses among finished pictures, and a training goes by values: give reward.combine=sum"
        )
    if training.kind == "alignprop":
        for name in config.reward.terms:
            if not REWARDS[name].differentiable:
                raise ConfigError(
                    f"reward {name} has no gradient, which AlignProp follows: give one that has, such as hpsv2"
                )
    if training.kind in ("dpo", "kto", "spm") and training.pairs.labels == "data":
        path = training.pairs.path
        if path is None or not Path(path).exists():
            raise ConfigError(
                f"training.pairs.path={shown(path)} is no data set of pairs, which training.pairs.labels=data learns from: give a "
                "table or a folder of .parquet files, or training.pairs.labels=reward"
            )
    if training.kind == "spo":
        if sampler.kind != "ddim" or sampler.eta == 0:
            raise ConfigError(
                f"sampler={sampler.name} with sampler.eta={sampler.eta:g} draws no noise to choose from: give "
                "sampler=ddim_ancestral"
            )
        if sampler.steps <= training.spo.first:
            raise ConfigError(
                f"training.spo.first={training.spo.first} is not before the end of {sampler.steps} steps: give less, or more "
                "sampler.steps"
            )


def _check_held_out(training: TrainingConfig, prompts: Iterable[str], held: tuple[str, ...]) -> None:
    if both := set(prompts) & set(held):
        raise ConfigError(
            f"training.examine.prompts={training.examine.prompts} has {shown(min(both))!r}, which is learned from: give "
            "prompts that are held out"
        )
    if CHECKER in training.examine.judges:
        _check_captions("training.examine.judges=[checker]", held)


def _check_captions(option: str, prompts: Iterable[str]) -> None:
    if odd := [text for text in prompts if parse(text) is None]:
        raise ConfigError(
            f"{option} judges captions of the shapes world and not {shown(odd[0])!r}: give others, or who judges them"
        )


def record(plan: Plan) -> None:
    """Write what the training is into its folder, or find that it is the one that is there. Raises ConfigError, OSError."""
    path, now = plan.folder / RECORD, _flat(plain(plan.config))
    session = {"align": version(), "git": git_state()}
    sessions: list[Any] = []
    if path.is_file():
        before = read_json(path)
        sessions = before["sessions"]
        for key in sorted(now.keys() | before["config"].keys()):
            if not key.startswith(_FREE) and now.get(key) != before["config"].get(key):
                raise ConfigError(
                    f"{plan.folder} holds a training with {key}={shown(before['config'].get(key))}, not "
                    f"{shown(now.get(key))}: give run.folder=OTHER"
                )
    plan.folder.mkdir(parents=True, exist_ok=True)
    if session not in sessions:
        sessions.append(session)
    writing.write_text(path, json.dumps({"config": now, "sessions": sessions}, indent=1) + "\n")


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    """Options by their dotted names."""
    if not isinstance(values, dict):
        return {path: values}
    return {
        name: one
        for key, value in values.items()
        for name, one in _flat(value, f"{path}.{key}" if path else str(key)).items()
    }
