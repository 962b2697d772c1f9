"""Options of the process against those of the backbone and the method: guidance, steps, what a kind of sampler reads."""

from __future__ import annotations

from itertools import pairwise

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.sampler import SamplerConfig
from align.config.schema import BackboneConfig, Config

DISTILLED = 50
"""Steps that published consistency models are distilled on; theirs are among them."""

_READ_BY = {
    "coefficient": (("flow",), "kernel=vp"),
    "norm": (("flow",), "kernel=vp"),
    "grid": (("flow",), "kernel=vp"),
    "kernel": (("flow", "few"), "kind=flow or few"),
    "phases": (("flow",), "kind=flow"),
    "rho": (("glass",), "kind=glass"),
    "inner": (("glass",), "kind=glass"),
    "timesteps": (("few",), "kind=few"),
    "start": (("few",), "kind=few"),
}
"""Options of a sampler that not all kinds read: which do, and how that is said."""


def check_sampler(config: Config) -> None:
    """Refuse what cannot work. Raises ConfigError."""
    backbone, sampler, method = config.backbone, config.sampler, config.method
    _kind(backbone, sampler)
    if config.one_half and config.negative:
        raise ConfigError(
            f"negative={shown(config.negative)} is not read at sampler.guidance_scale=1, which leaves the negative half out: "
            'give a scale above 1, or leave it ""'
        )
    for part, rule in (("guidance", method.guidance.rule), ("clean", method.clean.rule)):
        if rule == "correction" and not config.reads_negative:
            raise ConfigError(
                f"method.{part}.rule=correction scales by the classifier-free correction, which backbone={backbone.name} "
                f"has not: give method.{part}.rule=velocity, constant or value, or method=dps"
            )
    if method.tempering.rule == "freedom" and not config.reads_negative:
        raise ConfigError(
            f"method.tempering.rule=freedom tempers by the classifier-free correction, which backbone={backbone.name} has not: "
            "give method.tempering.rule=schedule or adaptive"
        )
    if sampler.true_scale is not None and (
        backbone.kind == "analytic" or backbone.pair or backbone.consistency
    ):
        raise ConfigError(
            f"sampler.true_scale={sampler.true_scale:g} is of a network that reads the guidance scale itself, as FLUX's, and "
            f"backbone={backbone.name} is none: give sampler.guidance_scale"
        )
    if backbone.guidance == "none" and sampler.guidance_scale != 1:
        raise ConfigError(
            f"sampler.guidance_scale={sampler.guidance_scale:g} is not read by backbone={backbone.name}, which has none: leave it at 1"
        )
    if sampler.guidance_rescale != 0 and not config.reads_negative:
        raise ConfigError(
            f"sampler.guidance_rescale={sampler.guidance_rescale:g} is not read by backbone={backbone.name}: "
            "leave it at 0"
        )
    if sampler.kind == "glass":
        _glass(config)
    if not backbone.consistency:
        return
    if sampler.steps > DISTILLED:
        raise ConfigError(
            f"sampler.steps={sampler.steps} is more than the {DISTILLED} that consistency models are distilled on: "
            f"give 1 to {DISTILLED}; 4 to 8 are usual"
        )
    if sampler.eta != 1 and "lcm_variances" not in method.quirks:
        raise ConfigError(
            f"sampler.eta={sampler.eta:g} is not read by sampler={sampler.name}, which draws all noise anew: "
            "leave it at 1; method.quirks=[lcm_variances] alone reads it, as method=das_released has it"
        )


def _glass(config: Config) -> None:
    """A step that is no Gaussian: nothing moves it, and it has no density."""
    plain = "flow_ancestral" if config.backbone.process == "flow" else "ddim_ancestral"
    sampler, method = config.sampler, config.method
    if sampler.eta != 1:
        raise ConfigError(
            f"sampler.eta={sampler.eta:g} is not read by sampler.kind=glass, which has sampler.rho: leave it at 1"
        )
    others = {
        "gradients move": (method.differentiates, "method=best_of_n, svdd or fk"),
        "method.tempering weighs by the densities of": (method.tempers, "method=fk"),
        "method.rollover draws from": (method.rolls, "method=svdd"),
        "method.backtracking draws from": (method.backtracks, "method=svdd"),
        "method.tree_search draws from": (method.tree_search.budget > 0, "method=svdd"),
    }
    for what, (there, give) in others.items():
        if there:
            raise ConfigError(
                f"sampler.kind=glass draws in several network calls, and {what} Gaussian steps: give {give}, or sampler={plain}"
            )


def _kind(backbone: BackboneConfig, sampler: SamplerConfig) -> None:
    """A model is sampled by the process that it was trained on."""
    kinds = {
        "lcm": (backbone.consistency, "a consistency model", "backbone=lcm"),
        "flow": (backbone.process == "flow", "a flow", "backbone=toy_flow_gmm"),
    }
    for kind, (fits, what, some) in kinds.items():
        if fits and sampler.kind != kind and (kind, sampler.kind) != ("flow", "glass"):
            raise ConfigError(
                f"sampler={sampler.name} does not fit backbone={backbone.name}, {what}: give sampler={kind}"
            )
        if sampler.kind == kind and not fits:
            raise ConfigError(
                f"sampler={sampler.name} needs {what} and backbone={backbone.name} is none: "
                f"give {some}, or sampler=ddim"
            )
    usual = SamplerConfig(sampler.name)
    for key, (kinds_of, by) in _READ_BY.items():
        reads = sampler.kind in kinds_of and (by != "kernel=vp" or sampler.kernel == "vp")
        value = getattr(sampler, key)
        if not reads and value != getattr(usual, key):
            given = shown(list(value) if isinstance(value, tuple) else value)
            raise ConfigError(
                f"sampler.{key}={given} is read with sampler.{by} only: leave it at {shown(getattr(usual, key))}"
            )
    if sampler.kind == "few" and sampler.kernel not in ("eta", "stochastic"):
        raise ConfigError(
            f"sampler.kernel={sampler.kernel} is a flow's, and sampler={sampler.name} is none: give sampler.kernel=eta or stochastic"
        )
    times = sampler.timesteps
    if times is not None and (len(times) != sampler.steps or any(one <= two for one, two in pairwise(times))):
        raise ConfigError(
            f"sampler.timesteps={shown(list(times))} are not sampler.steps={sampler.steps} that fall: give as many, or "
            "sampler.timesteps=null for evenly trailing ones"
        )
