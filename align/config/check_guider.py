"""Guiders against each other's options, the backbone and the steps: what no single range can say."""

from __future__ import annotations

from dataclasses import fields

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.schema import Config

_WEAKER = ("weak_scale", "weak_start", "weak_stop", "stack", "layers")
_READS: dict[str, tuple[str, ...]] = {
    "apg": ("parallel", "norm", "momentum"),
    "cfg_zero_star": ("zero_steps",),
    "mambo_g": ("damping",),
    **dict.fromkeys(("slg", "pag", "seg"), _WEAKER),
}
"""The options that a kind reads beside ``start`` and ``stop``."""


def check_guider(config: Config) -> None:
    """Refuse what is not read, or cannot be done. Raises ConfigError."""
    guider, steps = config.guider, config.sampler.steps
    read = ("name", "kind", "start", "stop", *_READS.get(guider.kind, ()))
    for one in fields(guider):
        if one.name not in read and (value := getattr(guider, one.name)) != one.default:
            raise ConfigError(
                f"guider.{one.name}={shown(value)} is not read by guider={guider.name}: leave it out"
            )
    if guider.momentum != 0:
        raise ConfigError(
            f"guider.momentum={guider.momentum:g} would carry corrections from step to step, where particles are chosen, copied "
            "and taken back: leave it at 0"
        )
    for early, late in (("start", "stop"), ("weak_start", "weak_stop")):
        begins, ends = getattr(guider, early), getattr(guider, late)
        if begins >= ends:
            raise ConfigError(
                f"guider.{early}={begins:g} is not below guider.{late}={ends:g}: no step is between"
            )
    if guider.further_pass:
        _check_weak(config)
    alone = guider.kind == "cfg" and (guider.start, guider.stop) == (0, 1)
    if alone or (guider.further_pass and (guider.start, guider.stop) == (0, 1)):
        return
    if not config.reads_negative:
        raise ConfigError(
            f"guider={guider.name} combines a guidance pair, and backbone={config.backbone.name} has none: give guider=cfg"
        )
    if config.pair_scale == 1:
        raise ConfigError(
            f"guider={guider.name} combines a guidance pair, and at sampler.guidance_scale=1 there is none: give a scale above 1"
        )
    if not guider.steps(steps):
        raise ConfigError(f"guider.stop={guider.stop:g} leaves none of {steps} steps guided: give more")


def _check_weak(config: Config) -> None:
    guider, backbone = config.guider, config.backbone
    if backbone.kind == "analytic":
        raise ConfigError(
            f"guider={guider.name} weakens a network, and backbone={backbone.name} has none: give guider=cfg"
        )
    if backbone.compile:
        raise ConfigError(
            f"guider={guider.name} alters blocks of the network for a pass, and compiled ones cannot be: "
            "give backbone.compile=false"
        )
    if not guider.weak_steps(config.sampler.steps):
        raise ConfigError(
            f"guider={guider.name} makes its further pass at none of sampler.steps={config.sampler.steps}: "
            "give guider.weak_scale above 0 and a later guider.weak_stop"
        )
