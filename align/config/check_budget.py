"""A budget against what shall spend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.sampling.ledger import COUNTS

if TYPE_CHECKING:
    from align.config.schema import Config


def refuse_budget(config: Config, verb: str) -> None:
    """For what makes no pictures of a run. Raises ConfigError."""
    if config.budget.asked:
        raise ConfigError(f"budget is not read by {verb}: leave it out, and give the method its numbers")


def check_budget(config: Config) -> None:
    """Refuse what nothing would spend. Raises ConfigError."""
    budget, method = config.budget, config.method
    if not budget.asked:
        for name, value, usual in (("spend", budget.spend, "method"), ("weights", budget.weights, {})):
            if value != usual:
                raise ConfigError(
                    f"budget.{name}={shown(value)} is not read without a budget: give budget.calls=NUMBER, or leave it out"
                )
        return
    if budget.calls is not None and budget.seconds is not None:
        raise ConfigError(
            f"budget.calls={budget.calls:g} and budget.seconds={budget.seconds:g}: give one of them"
        )
    if budget.weights and budget.calls is None:
        raise ConfigError("budget.weights are of budget.calls, and seconds are measured: leave them out")
    for name, weight in budget.weights.items():
        if name not in COUNTS:
            raise ConfigError(f"budget.weights.{name} counts nothing{suggestion(name, COUNTS, 'names')}")
        if weight < 0:
            raise ConfigError(f"budget.weights.{name}={weight:g} is out of range: give 0 or more")
    if method.prompt_rewrite.by is not None:
        raise ConfigError(
            f"method={method.name} draws one prompt or two and has nothing to spend a budget on: leave budget out"
        )
    if config.budget.seconds is not None and config.runner.kind == "ray":
        raise ConfigError(
            "budget.seconds is measured on the machine that makes the pictures, and runner=ray has others: give budget.calls"
        )
    _spends(config)


def _spends(config: Config) -> None:
    budget, method, sampler = config.budget, config.method, config.sampler
    if budget.spend in ("particles", "candidates") and method.strategies:
        raise ConfigError(
            f"budget.spend={budget.spend}: method.{method.strategies[0]} makes whole samplings of one particle each: "
            "give budget.spend=method"
        )
    if budget.spend == "particles" and not method.chooses:
        raise ConfigError(
            f"budget.spend=particles: method={method.name} does not choose among particles: give budget.spend=method, or "
            "method.choose=best"
        )
    if budget.spend == "candidates" and not method.branches:
        raise ConfigError(
            f"budget.spend=candidates: method={method.name} compares no states: give budget.spend=method, or method=svdd"
        )
    if budget.spent_on(method) == "steps" and sampler.timesteps is not None:
        raise ConfigError(
            f"a budget that is spent on steps, and sampler.timesteps={shown(list(sampler.timesteps))} says which they are: give "
            "method=best_of_n, or sampler.timesteps=null"
        )
