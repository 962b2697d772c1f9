"""From a budget to a plan: the number of the method's that it comes to, found before any picture is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from align.checkpoints.needed import missing_text
from align.config.budget import USUAL
from align.config.schema import Config
from align.rewards.metadata import metadata_of
from align.rewards.registry import REWARDS
from align.runner import build
from align.runner.devices import torch_device
from align.runner.files import Files
from align.runner.plan import Item, group_of
from align.runner.spending import plan_told, planned, recorded

if TYPE_CHECKING:
    from align.sampling.batching import Calls


def plan_within(
    files: Files, items: Sequence[Item], calls: Calls, possible: Callable[[Config], object]
) -> tuple[Config, str]:
    """The configuration of a run with what its budget comes to, and that in words.

    A folder that was begun with the same budget says it; ``possible`` raises ConfigError for what the backbone's files refuse.

    Raises:
        ConfigError: a picture cannot be had for so little.
        WeightsError: what is timed cannot be loaded.
    """
    config = files.config
    budget, label = config.budget, f"{config.budget.label} a picture"
    if (found := recorded(config)) is not None:
        return found, f"{label}: {plan_told(found)}, as its folder says"
    cost = _calls(files) if budget.seconds is None else _seconds(files, items, calls)
    found = planned(config, cost, possible)
    unit = "" if budget.seconds is None else " seconds"
    return found, f"{label}: {plan_told(found)}, which takes {cost(found):.3g}{unit}"


def told_before(files: Files, possible: Callable[[Config], object]) -> str:
    """A plan in words, as far as it is known before anything is loaded; see ``plan_within``. Raises ConfigError."""
    from align.sampling.batching import Calls

    label = f"{files.config.budget.label} a picture"
    if recorded(files.config) is None:
        if files.config.budget.seconds is not None:
            return f"{label}: measured before the first one"
        if missing_text(files.backbone):
            return f"{label}: told once the backbone's files are there"
    return plan_within(files, (), Calls(1), possible)[1]


def _calls(files: Files) -> Callable[[Config], float]:
    from align.runner.dry_run import calls_of_a_picture

    schedule, weights = _schedule(files), USUAL | files.config.budget.weights

    def cost(config: Config) -> float:
        counted = calls_of_a_picture(config, schedule)
        return float(sum(weight * getattr(counted, what) for what, weight in weights.items()))

    return cost


def _seconds(files: Files, items: Sequence[Item], calls: Calls) -> Callable[[Config], float]:
    from align.runner.calibrate import measured
    from align.runner.dry_run import seconds_of_a_picture
    from align.sampling.sampler import Request

    config = files.config
    build.set_up_torch(config.run.threads)
    made = build.build_sampler(config, calls, files)
    if any(REWARDS[name].reads_metadata for name in files.guiding):
        device = torch_device(config.run.device)
        known = {item.prompt: metadata_of(item.tags) for item in items}
        build.build_reward(config.reward, device, config.judges).know(known)
    first = items[0]
    prices = measured(made, config.method, Request(first.prompt, first.negative, first.seed, first.sample))
    groups = len({group_of(item, config.method.returned) for item in items})
    schedule = _schedule(files)
    return lambda one: seconds_of_a_picture(one, schedule, calls, prices, groups)


def _schedule(files: Files) -> dict[str, Any]:
    backbone = files.config.backbone
    if backbone.kind == "analytic":
        from align.backbones.analytic import SCHEDULES

        return SCHEDULES[backbone.process]
    stated, backbone = files.stated, files.config.backbone
    if backbone.kind != "transformer":
        return stated.schedule
    from align.backbones.families import family

    tokens = backbone.height // stated.side * (backbone.width // stated.side)
    return {**stated.schedule, **family(backbone.layout).levels(stated.schedule, tokens)}
