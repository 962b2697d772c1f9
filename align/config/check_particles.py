"""Options of several particles against each other: how they are told apart, searched among, weighed and valued."""

from __future__ import annotations

from itertools import pairwise

from align.checkpoints.layout import PICKLES, SAFE
from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.method import MethodConfig
from align.config.schema import Config


def check_particles(config: Config) -> None:
    """Refuse what cannot work. Raises ConfigError."""
    method, search = config.method, config.method.search
    if method.returned > method.particles:
        raise ConfigError(
            f"method.returned={method.returned} is more than method.particles={method.particles}: "
            "give method.particles at least as many"
        )
    if method.choose in ("draw", "weight") and not (
        method.weighs or (method.rolls and method.choose == "weight")
    ):
        raise ConfigError(
            f"method.choose={method.choose} goes by weights and method={method.name} has none: "
            "give method.choose=best, or method.tempering.rule=schedule"
        )
    if method.choose == "first" and method.returned < method.particles and search.drop == "none":
        raise ConfigError(
            f"method.particles={method.particles} makes more than method.returned={method.returned}: "
            "give method.choose=best, or as many particles as are returned"
        )
    one = config.sampler.kind == "few" and config.sampler.steps == 1
    why = "sampler.steps=1" if one else "sampler.eta=0"
    ancestral = "flow_ancestral" if config.sampler.kind == "flow" else "ddim_ancestral"
    mend = "sampler.steps above 1" if one else f"sampler={ancestral} or sampler.eta=1"
    if method.branches and config.sampler.deterministic:
        raise ConfigError(
            f"{why} draws no noise, by which method={method.name} tells particles apart: give {mend}"
        )
    if method.guidance.rule == "variance" and config.sampler.deterministic:
        raise ConfigError(
            f"method.guidance.rule=variance moves a step by its noise's variance, and with {why} there is none: give {mend}"
        )
    if method.guidance.rule == "noise":
        _noise(config, f"{why} draws none: give {mend}" if config.sampler.deterministic else None)
    elif method.guidance.whiten != "phase":
        raise ConfigError(
            f"method.guidance.whiten={method.guidance.whiten} is read with method.guidance.rule=noise only: leave it at phase"
        )
    if method.searches and method.weighs:
        raise ConfigError(
            "method.search chooses without weights, method.steering and method.tempering by them: give one of them"
        )
    if method.steers and method.tempers:
        raise ConfigError(
            "method.steering.potential and method.tempering.rule are two ways to weigh particles: give one of them"
        )
    _rollover(config)
    _backtracking(config)
    _search(config)
    _tempering(method)
    _value(config)


def _noise(config: Config, without: str | None) -> None:
    """Of a gradient that is part of what is drawn; ``without``: why nothing is."""
    method, guidance = config.method, config.method.guidance
    rule = "method.guidance.rule=noise"
    if without is not None:
        raise ConfigError(f"{rule} turns the noise of steps, and {without}")
    if method.weighs or method.search.temperature > 0:
        give = (
            "neither method.steering nor method.tempering" if method.weighs else "method.search.temperature=0"
        )
        raise ConfigError(
            f"{rule} draws what has no density, by which weights would correct for it: give {give}"
        )
    most = guidance.strength * max(guidance.coefficient)
    if most > 1:
        raise ConfigError(
            f"method.guidance.coefficient={shown(list(guidance.coefficient))} times strength={guidance.strength:g} is the share of the "
            f"noise with {rule}: give shares of at most 1"
        )
    if guidance.form != "mean":
        raise ConfigError(f"method.guidance.form={guidance.form} is not read with {rule}: leave it at mean")
    if guidance.whiten == "wgnc" and config.backbone.kind == "analytic":
        raise ConfigError(
            f"method.guidance.whiten=wgnc makes a spectrum white, and backbone={config.backbone.name} has too few numbers for one: give "
            "method.guidance.whiten=phase"
        )


def _search(config: Config) -> None:
    method, search, steps = config.method, config.method.search, config.sampler.steps
    for option, name, numbers in (
        ("schedule", "probabilities", search.probabilities),
        ("drop", "populations", search.populations),
    ):
        if getattr(search, option) == "list" and len(numbers) != steps - 1:
            raise ConfigError(
                f"method.search.{name} lists {len(numbers)} steps: "
                f"give {steps - 1}, one for each of the {steps} steps but the last"
            )
    if search.candidates * search.widen + 1e-9 < 1:
        raise ConfigError(
            f"method.search.widen={search.widen:g} of method.search.candidates={search.candidates} leaves a searched step none: "
            f"give method.search.widen={1 / search.candidates:g} or more"
        )
    if search.until != "all" and (search.temperature > 0 or not method.searches or method.prunes):
        raise ConfigError(
            f"method.search.until={search.until} draws candidates until one is good enough, the best of which goes on: give "
            "method.search.candidates above 1 and method.search.temperature=0, or method.search.until=all"
        )
    if search.until == "above" and not search.threshold:
        raise ConfigError(
            "method.search.until=above needs a bar: give method.search.threshold=[NUMBER] in the reward's units, or some numbers along the "
            "steps that are searched"
        )
    if search.until != "above" and search.threshold:
        raise ConfigError(
            f"method.search.threshold={shown(list(search.threshold))} is read with method.search.until=above only: give it, or "
            "method.search.threshold=[]"
        )
    if search.schedule == "never" and (search.candidates * search.widen > 1 or search.temperature > 0):
        raise ConfigError(
            f"method.search.schedule=never draws one next state of each particle, and method.search.candidates={search.candidates}, "
            f"widen={search.widen:g} and temperature={search.temperature:g} choose among more: leave them out, or give "
            "method.search.schedule=all"
        )
    _drop_at(config)
    if search.drop != "none" and method.particles == method.returned:
        raise ConfigError(
            f"method.search.drop={search.drop} has nothing to drop: give method.particles above method.returned"
        )
    if search.drop == "list":
        numbers = (method.particles, *search.populations)
        if any(two > one for one, two in pairwise(numbers)):
            raise ConfigError(
                f"method.search.populations={shown(list(search.populations))} grows: "
                f"give numbers that fall from method.particles={method.particles}"
            )
        if search.populations and search.populations[-1] < method.returned:
            raise ConfigError(
                f"method.search.populations={shown(list(search.populations))} ends below method.returned={method.returned}: "
                "give as many in the end"
            )
    if search.replace > 0:
        replaced = int(search.replace * method.particles + 1e-9)
        if not 0 < replaced < method.particles:
            raise ConfigError(
                f"method.search.replace={search.replace:g} of method.particles={method.particles} replaces {replaced}: "
                "give a share of at least one particle and not all"
            )


def _drop_at(config: Config) -> None:
    search, steps = config.method.search, config.sampler.steps
    if search.drop != "at":
        for option in ("at", "keep"):
            if given := getattr(search, option):
                raise ConfigError(
                    f"method.search.{option}={shown(list(given))} is read with method.search.drop=at only: give it, or "
                    f"method.search.{option}=[]"
                )
        return
    places, kept = list(search.at), list(search.keep)
    if not places or len(places) != len(kept) or sorted({*places}) != places or sorted(kept)[::-1] != kept:
        raise ConfigError(
            f"method.search.at={shown(places)} and method.search.keep={shown(kept)}: give shares of the steps that rise, and to each a share "
            "of the particles, which fall"
        )
    if steps == 1:
        raise ConfigError("method.search.drop=at needs a step to drop at: give sampler.steps=2 or more")


def _rollover(config: Config) -> None:
    method, rollover, steps = config.method, config.method.rollover, config.sampler.steps
    if not method.rolls:
        return
    if steps < 2 or rollover.budget < rollover.first + steps:
        raise ConfigError(
            f"method.rollover.budget={rollover.budget} is too little for method.rollover.first={rollover.first} and "
            f"sampler.steps={steps}: give 2 steps or more, and a budget of at least {rollover.first + max(steps, 2)}"
        )
    others = {
        "method.guidance.rule=none and method.clean.rule=none": method.guided,
        "method.search.candidates=1, without drop and replace": method.searches,
        "neither method.steering nor method.tempering": method.weighs,
    }
    for give, there in others.items():
        if there:
            raise ConfigError(
                f"method.rollover.budget={rollover.budget} spends it on plain next states, and nothing guides or chooses beside it: "
                f"give {give}, or method.rollover.budget=0"
            )


def _backtracking(config: Config) -> None:
    method, options, steps = config.method, config.method.backtracking, config.sampler.steps
    section = "method.backtracking"
    if not method.backtracks:
        return
    if options.budget < steps:
        raise ConfigError(
            f"{section}.budget={options.budget} does not reach the end of sampler.steps={steps}: give at least {steps}"
        )
    shares = list(options.check)
    if not shares or sorted({*shares}) != shares or steps == 1:
        raise ConfigError(
            f"{section}.check={shown(shares)} of sampler.steps={steps}: give shares of the steps that rise, and 2 steps or more"
        )
    if len(options.threshold) not in (1, len(shares)):
        raise ConfigError(
            f"{section}.threshold lists {len(options.threshold)} numbers: give one in the reward's units, or one for each of the "
            f"{len(shares)} checks"
        )
    others = {
        "method.guidance.rule=none and method.clean.rule=none": method.guided,
        "method.search.candidates=1, without drop and replace": method.searches,
        "neither method.steering nor method.tempering": method.weighs,
        "method.rollover.budget=0": method.rolls,
        "method.recurrence.rule=none": method.recurrence.rule != "none",
    }
    for give, there in others.items():
        if there:
            raise ConfigError(
                f"{section}.budget={options.budget} is spent on plain steps back and forth, and nothing guides or chooses beside it: "
                f"give {give}, or {section}.budget=0"
            )


def _tempering(method: MethodConfig) -> None:
    tempering = method.tempering
    if tempering.rule == "none":
        return
    if (tempering.gamma is None) == (tempering.full_at is None):
        raise ConfigError(
            f"method.tempering.gamma={shown(tempering.gamma)} and method.tempering.full_at={shown(tempering.full_at)} are "
            " two ways to say how lambda rises: give one of them, and null for the other"
        )
    if tempering.full_at is not None and tempering.full_at <= tempering.start:
        raise ConfigError(
            f"method.tempering.full_at={tempering.full_at:g} is not after method.tempering.start={tempering.start:g}: "
            "give a larger share of the steps"
        )
    if tempering.rule == "adaptive" and method.resampling.threshold is None:
        raise ConfigError(
            "method.tempering.rule=adaptive aims at method.resampling.threshold, which is null: give a share such as 0.5"
        )
    if tempering.schedule == "previous" and tempering.rule != "adaptive":
        raise ConfigError(
            f"method.tempering.schedule=previous never leaves 0 with method.tempering.rule={tempering.rule}: "
            "give method.tempering.rule=adaptive, or method.tempering.schedule=exp"
        )
    if tempering.rule == "freedom" and (method.guidance.rule == "none" or method.objective.preference == 0):
        raise ConfigError(
            "method.tempering.rule=freedom measures the reward's gradient and nothing guides: "
            "give method.guidance.rule=variance and method.objective.preference=1, or another rule"
        )


def _value(config: Config) -> None:
    method, value, backbone = config.method, config.method.value, config.backbone
    if value.weights is not None and value.weights.endswith((SAFE, *PICKLES)):
        raise ConfigError(
            f"method.value.weights={shown(value.weights)} is a file: give the folder that it is in, with config.json in it"
        )
    if value.weights is not None and value.estimate not in ("small_decoder", "network"):
        raise ConfigError(
            f"method.value.weights={shown(value.weights)} is not read by method.value.estimate={value.estimate}: "
            "give method.value.estimate=network or small_decoder, or method.value.weights=null"
        )
    if value.estimate != "lookahead" and value.steps != type(value)().steps:
        raise ConfigError(
            f"method.value.steps={value.steps} is read with method.value.estimate=lookahead only: leave it at {type(value)().steps}"
        )
    if value.estimate != "posterior" and not method.values_states:
        raise ConfigError(
            f"method.value.estimate={value.estimate} values noisy states, and method={method.name} compares none: "
            "give method=svdd, or method.value.estimate=posterior"
        )
    if value.estimate == "small_decoder" and backbone.kind == "analytic":
        raise ConfigError(
            f"method.value.estimate=small_decoder: backbone={backbone.name} decodes nothing, so nothing is saved: "
            "give method.value.estimate=posterior"
        )
    if value.estimate == "network" and value.weights is None and backbone.family != "shapes":
        raise ConfigError(
            f"method.value.estimate=network: none comes with backbone={backbone.name}: "
            "give method.value.weights=FOLDER, which python scripts/train_value.py makes"
        )
