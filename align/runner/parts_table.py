"""From the options of a method to the parts of the loop: what stands at each place, and which option put it there.

``align doctor method=das`` prints it.  What is here is data, and ``runner/build.py`` builds; a test holds the two together.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import NamedTuple

from align.config.method import QuirkName
from align.config.quirks import QUIRKS
from align.config.schema import Config
from align.runner.searching import searching


class Part(NamedTuple):
    """``module:Name`` of what can stand at a place of the loop, the option that chooses it, and whether it does."""

    name: str
    option: str
    stands: Callable[[Config], bool] = lambda config: True


def _guided(config: Config) -> bool:
    method = config.method
    return method.guided and method.guidance.strength > 0


def _valued(config: Config) -> bool:
    return config.method.values_states and bool(config.reward.terms)


def _drops(config: Config) -> bool:
    return bool(searching(config).populations)


def _replaces(config: Config) -> bool:
    return bool(searching(config).replaced)


_weighs = attrgetter("method.weighs")
_steers = attrgetter("method.steers")
_rolls = attrgetter("method.rolls")
_backtracks = attrgetter("method.backtracks")
_tempers = attrgetter("method.tempers")


def _estimated(by: str) -> Callable[[Config], bool]:
    return lambda config: _valued(config) and config.method.value.estimate == by


def _kernel(name: str) -> Callable[[Config], bool]:
    return lambda config: config.sampler.kernel == name


def _quirk(name: QuirkName, stands: Callable[[Config], bool]) -> Callable[[Config], bool]:
    """Where ``stands`` does, and the method has the fault."""
    return lambda config: name in config.method.quirks and stands(config)


def _rewrites(keep: str) -> Callable[[Config], bool]:
    return lambda config: (
        config.method.prompt_rewrite.by is not None and config.method.prompt_rewrite.keep == keep
    )


BY_QUIRK = "method.quirks"
PLACES: dict[str, tuple[Part, ...]] = {
    "strategy": (
        Part(
            "align.strategies.noise_gradient:NoiseGradient",
            "method.noise_gradient.over",
            attrgetter("method.follows_noise"),
        ),
        Part(
            "align.released.noise_search:ForgetfulSearch",
            BY_QUIRK,
            _quirk("forgetful_pivot", lambda c: c.method.noise_search.rounds > 0),
        ),
        Part(
            "align.strategies.noise_search:NoiseSearch",
            "method.noise_search.propose",
            lambda c: c.method.noise_search.rounds > 0,
        ),
        Part(
            "align.strategies.local_search:LocalSearch",
            "method.local_search.drafts",
            lambda c: c.method.local_search.drafts > 0,
        ),
        Part(
            "align.strategies.draft:Drafts",
            "method.draft.refine",
            lambda c: c.method.draft.candidates > 0,
        ),
        Part(
            "align.strategies.tree_search:TreeSearch",
            "method.tree_search.descend",
            lambda c: c.method.tree_search.budget > 0,
        ),
        Part(
            "align.strategies.prompt_search:PromptSearch",
            "method.prompt_search.budget",
            lambda c: c.method.prompt_search.budget > 0,
        ),
        Part(
            "align.strategies.prompt_rewrite:PromptRewrite", "method.prompt_rewrite.by", _rewrites("better")
        ),
        Part("align.strategies.prompt_rewrite:Rewritten", "method.prompt_rewrite.by", _rewrites("rewrite")),
    ),
    "process": (
        Part(
            "align.released.lcm:released_lcm",
            BY_QUIRK,
            _quirk("lcm_variances", lambda c: c.sampler.kind == "lcm"),
        ),
        Part("align.processes.lcm:lcm", "sampler.kind", lambda c: c.sampler.kind == "lcm"),
        Part("align.processes.few:few", "sampler.kind", lambda c: c.sampler.kind == "few"),
        Part("align.processes.glass:glass", "sampler.kind", lambda c: c.sampler.kind == "glass"),
        Part("align.processes.sde:flow_grpo", "sampler.kernel", _kernel("flow_grpo")),
        Part("align.processes.sde:vp_converted", "sampler.kernel", _kernel("vp")),
        Part("align.processes.flow:flow", "sampler.kernel", lambda c: c.sampler.kind == "flow"),
        Part("align.processes.ddim:ddim", "sampler.kind"),
    ),
    "guider": (Part("align.backbones.guider:Guider", "guider.kind"),),
    "loss of pictures": (
        Part(
            "align.sampling.preference:preference_loss",
            "method.objective.preference",
            lambda c: _guided(c) and c.method.objective.preference > 0,
        ),
    ),
    "loss of maps": (
        Part(
            "align.semantics.attention_loss:semantic_loss",
            "method.objective.semantic",
            lambda c: _guided(c) and c.method.objective.semantic > 0,
        ),
    ),
    "objective": (
        Part("align.released.objective:SignBlindObjective", BY_QUIRK, _quirk("sign_blind", _guided)),
        Part("align.sampling.objective:Objective", "method.objective.dynamic", _guided),
    ),
    "clean guidance": (
        Part(
            "align.sampling.guidance:CleanGuidance",
            "method.clean.rule",
            lambda c: c.method.clean.rule != "none" and c.method.clean.rate * c.method.guidance.strength > 0,
        ),
    ),
    "value estimate": (
        Part("align.sampling.values:Looks", "method.value.estimate", _estimated("looks")),
        Part("align.sampling.values:Lookahead", "method.value.estimate", _estimated("lookahead")),
        Part("align.sampling.values:Regressed", "method.value.estimate", _estimated("network")),
        Part("align.sampling.values:PosteriorMean", "method.value.estimate", _valued),
    ),
    "select": (
        Part("align.released.particles:ForgetfulSteering", BY_QUIRK, _quirk("forgetful_weights", _steers)),
        Part("align.sampling.particles:Steering", "method.steering.potential", _steers),
        Part("align.released.particles:StaleTempered", BY_QUIRK, _quirk("stale_gradients", _tempers)),
        Part("align.sampling.particles:Tempered", "method.tempering.rule", _tempers),
        Part(
            "align.released.search:RawPrune",
            BY_QUIRK,
            _quirk("raw_values", lambda c: _drops(c) or _replaces(c)),
        ),
        Part("align.sampling.search:Prune", "method.search.drop", _drops),
        Part("align.sampling.search:Prune", "method.search.replace", _replaces),
        Part("align.sampling.selection:Keep", "method.search.drop"),
    ),
    "weights": (
        Part("align.released.tempering:PublishedLadder", BY_QUIRK, _quirk("published_ladder", _tempers)),
        Part("align.sampling.tempering:Tempering", "method.tempering.rule", _tempers),
        Part("align.released.particles:ForgetfulSteering", BY_QUIRK, _quirk("forgetful_weights", _steers)),
        Part("align.sampling.particles:Steering", "method.steering.potential", _steers),
    ),
    "resampling": (Part("align.sampling.particles:Resampling", "method.resampling.scheme", _weighs),),
    "guidance": (
        Part(
            "align.sampling.guidance:NoiseGuidance",
            "method.guidance.rule",
            lambda c: c.method.guidance.rule == "noise",
        ),
        Part(
            "align.sampling.guidance:Guidance",
            "method.guidance.rule",
            lambda c: c.method.guidance.rule != "none",
        ),
    ),
    "search": (
        Part(
            "align.sampling.search:Search",
            "method.search.candidates",
            lambda c: bool(searching(c).probabilities),
        ),
    ),
    "rollover": (
        Part("align.released.rollover:AnyLevel", BY_QUIRK, _quirk("any_level", _rolls)),
        Part("align.sampling.rollover:Rollover", "method.rollover.budget", _rolls),
    ),
    "backtracking": (
        Part("align.sampling.backtracking:Backtracking", "method.backtracking.budget", _backtracks),
    ),
    "recurrence": (Part("align.sampling.recurrence:Recurrence", "method.recurrence.rule"),),
    "choose": (Part("align.sampling.sampler:Population", "method.choose"),),
}
"""The places of the loop in the order in which it comes to them, and of each what can stand there: the first that does."""


def parts_of(config: Config) -> dict[str, Part | None]:
    """What stands at each place of a configuration's loop; None where nothing does."""
    return {
        place: next((part for part in parts if part.stands(config)), None) for place, parts in PLACES.items()
    }


def parts_lines(config: Config) -> list[str]:
    """The same for people: place, option, file and name of what does it, and what else the option's section gives."""
    chosen = parts_of(config)
    last = {_section(part.option): place for place, part in chosen.items() if part}
    rows = []
    for place, part in chosen.items():
        option = (part or PLACES[place][-1]).option
        value = _text(attrgetter(option)(config))
        name = part.name.replace(".", "/").replace(":", ".py ") if part else "-"
        more = _given(config, option) if part and last[_section(option)] == place else ""
        rows.append((place, f"{option}={value}", name, more))
    rows += [
        ("fault", f"{BY_QUIRK}: {quirk}", QUIRKS[quirk].where, f"of {QUIRKS[quirk].of}")
        for quirk in config.method.quirks
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*wide, 0], strict=True)).rstrip()
        for row in rows
    ]


def _section(option: str) -> str:
    return option.rpartition(".")[0]


def _given(config: Config, option: str) -> str:
    """What else is not as the schema has it in an option's section of the method."""
    section = attrgetter(_section(option))(config)
    if section in (config.method, config.sampler):  # whose other options belong to other places, or to none
        return ""
    told = {part.option for parts in PLACES.values() for part in parts}
    usual = {one.name: one.default for one in fields(section) if one.name != "name"}
    values = {name: getattr(section, name) for name in usual if f"{_section(option)}.{name}" not in told}
    given = {
        name: value for name, value in values.items() if value != usual[name] and not is_dataclass(value)
    }
    return " ".join(f"{name}={_text(value)}" for name, value in given.items())


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
