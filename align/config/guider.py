"""Options of what combines the outputs of a guidance pair, and what no single range can say of them.  Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.ranges import Between, Text

if TYPE_CHECKING:
    from align.config.schema import Config


@dataclass(frozen=True)
class GuiderConfig:
    """How the prompt's and the negative's output become one; the scale is ``sampler.guidance_scale``."""

    name: Annotated[str, Text("name")]
    kind: Literal["cfg", "apg", "cfg_zero_star", "tcfg", "mambo_g", "slg", "pag", "seg"] = "cfg"
    """Whose formula: classifier-free guidance, or one of ``diffusers.guiders``.  ``slg``, ``pag`` and ``seg`` need a further
    pass through a weaker version of the network, which is charged as an evaluation of its own."""
    start: Annotated[float, Between(0, 1)] = 0.0
    """Guidance begins after this share of the steps; before, the prompt's output is all."""
    stop: Annotated[float, Between(0, 1)] = 1.0
    """And ends after this one."""
    parallel: Annotated[float, Between(0, 10)] = 1.0
    """``apg``: share of the correction along the prompt's output that is kept (eta)."""
    norm: Annotated[float, Between(0, 1e9)] = 15.0
    """``apg``: largest norm of a picture's correction (r); 0 for any."""
    momentum: Annotated[float, Between(-1, 1)] = 0.0
    """``apg``: weight of the corrections of earlier steps (beta).  Nothing but 0 is supported."""
    zero_steps: Annotated[int, Between(0, 1000)] | None = None
    """``cfg_zero_star``: at so many steps from the start the output is 0.  Null: 1 on flows, for which it was published, else 0."""
    damping: Annotated[float, Between(0, 1000)] = 8.0
    """``mambo_g``: how fast guidance fades as the correction grows beside the negative's output (alpha)."""
    weak_scale: Annotated[float, Between(0, 100)] = 2.8
    """How many times the difference from the weaker network's output is added."""
    weak_start: Annotated[float, Between(0, 1)] = 0.01
    """The further pass is made after the step at this share of them."""
    weak_stop: Annotated[float, Between(0, 1)] = 0.2
    """And before the step at this one."""
    stack: str | None = None
    """Where the weakened blocks are, as the network's modules are named.  Null: a UNet's middle, or a transformer's first list."""
    layers: tuple[Annotated[int, Between(0, 1000)], ...] | None = None
    """Which of them, from 0.  Null: all of a UNet's middle, or those at 7, 8 and 9 24ths of a transformer."""

    @property
    def further_pass(self) -> bool:
        return self.kind in WEAKENS

    def steps(self, number: int) -> range:
        """Of ``number`` steps those that are guided by the pair."""
        return range(int(self.start * number), int(self.stop * number))

    def weak_steps(self, number: int) -> range:
        """Those with a further pass."""
        if not self.further_pass or self.weak_scale == 0:
            return range(0)
        return range(int(self.weak_start * number) + 1, int(self.weak_stop * number))


WEAKENS: dict[str, Literal["skip", "identity", "mean"]] = {"slg": "skip", "pag": "identity", "seg": "mean"}
"""What those with a further pass do to the network, see ``align.backbones.guider.Weak``."""
_WEAKER = ("weak_scale", "weak_start", "weak_stop", "stack", "layers")
_READS: dict[str, tuple[str, ...]] = {
    "apg": ("parallel", "norm", "momentum"),
    "cfg_zero_star": ("zero_steps",),
    "mambo_g": ("damping",),
    **dict.fromkeys(WEAKENS, _WEAKER),
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
