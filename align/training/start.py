"""From the plan of a training to its parts, and through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from align.config.errors import ConfigError
from align.runner.build import build_reward, set_up_torch
from align.runner.devices import torch_device
from align.runner.exits import DONE
from align.training import offline
from align.training.boards import board
from align.training.course import Course, held_out, policy_of
from align.training.log import Log
from align.training.loop import Recipe, train
from align.training.plan import Plan, record
from align.training.ranks import Ranks
from align.training.rounds import Rounds
from align.training.spo import Preferences, Spo, costs


def start(plan: Plan) -> int:
    """Train; returns the exit code. Raises ConfigError, WeightsError."""
    training, config = plan.training, plan.config
    device = torch_device(config.run.device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    _check_boards(training.boards)
    set_up_torch(config.run.threads)
    ranks = Ranks.here(device)
    try:
        if ranks.first:
            record(plan)
        course = KINDS[training.kind](plan, device)
        rounds = training.epochs * course.epoch
        if training.rounds is not None:
            rounds = min(rounds, training.rounds)
        log = Log(plan.folder, ranks, [board(one, plan.folder) for one in training.boards if ranks.first])
        for line in (f"{training.name} of {config.backbone.name}: {rounds} rounds", *course.told):
            log.say(line)
        recipe = Recipe(
            rounds=rounds,
            batch=training.batch,
            learning_rate=training.learning_rate,
            together=training.together,
            accumulation=training.accumulation,
            warmup=training.warmup,
            decay=training.decay,
            weight_decay=training.weight_decay,
            clip=training.clip,
            examine_every=training.examine.every,
            save_every=training.save_every,
            seed=config.seed,
        )
        train(course.lesson, course.trained, recipe, plan.folder, course.examiner, ranks, log)
        log.say(f"the best weights are in {plan.folder / 'best'}")
    finally:
        ranks.leave()
    return DONE


def _check_boards(names: Sequence[str]) -> None:
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"training.boards names {name}, which is not installed: pip install {name}, or leave it out"
            )


def _spo(plan: Plan, device: torch.device) -> Course:
    options, config = plan.training.spo, plan.config
    policy = policy_of(plan, device)
    how = Preferences(
        options.candidates, options.threshold, options.first, options.inner, options.beta, options.clip
    )
    prompts = Rounds(plan.prompts, plan.training.each, config.seed)
    lesson = Spo(policy, build_reward(config.reward, device), prompts, how, Spo.keyed(config.seed))
    told = costs(policy.process.steps, how, len(plan.prompts))
    return Course(lesson, policy.lora, held_out(plan, policy.backbone, device), prompts.of_epoch, told)


KINDS: dict[str, Callable[[Plan, torch.device], Course]] = {
    "spo": _spo,
    "spm": offline.spm,
    "dpo": offline.dpo,
    "kto": offline.kto,
    "alignprop": offline.alignprop,
}
