"""From options to what makes one output of a step's several."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Literal

from align.config.guider import GuiderConfig
from align.config.schema import Config

if TYPE_CHECKING:
    from align.backbones.base import Backbone
    from align.backbones.guider import Guider, Weak

_WEAKENS: dict[str, Literal["skip", "identity", "mean"]] = {"slg": "skip", "pag": "identity", "seg": "mean"}


def weak_of(options: GuiderConfig) -> Weak | None:
    """The weaker network of a further pass, if there is one."""
    from align.backbones.guider import Weak

    return Weak(_WEAKENS[options.kind], options.stack, options.layers) if options.further_pass else None


def guider_of(config: Config, backbone: Backbone) -> Guider:
    """The guider of a configuration, for what the backbone predicts."""
    from align.backbones.guider import Guider

    sampler, options, scale = config.sampler, config.guider, config.pair_scale
    made = Guider(scale, sampler.guidance_rescale, sampler.guidance_scale, options.steps(sampler.steps))
    if options.kind == "cfg":
        return made
    from align.backbones.diffusers_guiders import borrowed

    flows = backbone.scheduler_config["prediction_type"] == "velocity"
    zero_steps = int(flows) if options.zero_steps is None else options.zero_steps
    return replace(
        made,
        combine=borrowed(options.kind, scale, sampler.steps, asdict(options)),
        zero_steps=zero_steps if options.kind == "cfg_zero_star" else 0,
        weak=weak_of(options),
        weak_steps=options.weak_steps(sampler.steps),
    )
