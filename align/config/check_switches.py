"""diffusers' switches of a network (weights in 8 bit or off the device, attention's kernels) against what a run asks of it."""

from __future__ import annotations

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.schema import Config

REPEATABLE = ("native", "_native_math", "_native_flash")
"""Backends of attention whose way back torch makes the same each time."""
ASKS_TORCH = ("sd3",)
"""Layouts of which diffusers' attention asks torch itself, whatever is set."""
SWITCHES = {"storage": None, "offload": False, "attention": None}
"""The options, each with what turns it off."""


def check_switches(config: Config) -> None:
    """Refuse what cannot work, above all where a gradient could not pass. Raises ConfigError."""
    backbone, method = config.backbone, config.method
    asked = {
        name: f"backbone.{name}={shown(getattr(backbone, name))}"
        for name, off in SWITCHES.items()
        if getattr(backbone, name) != off
    }
    if asked and backbone.kind == "analytic":
        option, name = next(iter(asked.values())), next(iter(asked))
        raise ConfigError(
            f"{option} is of a network, and backbone={backbone.name} has none: give backbone.{name}={shown(SWITCHES[name])}"
        )
    for name in ("storage", "offload"):
        if name in asked and backbone.compile:
            raise ConfigError(
                f"{asked[name]} moves the weights of blocks at each call, and compiled ones cannot be: give backbone.compile=false"
            )
    if "offload" in asked and config.guider.further_pass:
        raise ConfigError(
            f"{asked['offload']} brings each block for its turn, and guider={config.guider.name} leaves some out: give guider=cfg"
        )
    if "attention" in asked and backbone.layout in ASKS_TORCH:
        raise ConfigError(
            f"{asked['attention']} is not asked by diffusers' attention of layout {backbone.layout}: give backbone.attention=null"
        )
    if method.walks_back:
        _check_gradient(config, asked)


def _check_gradient(config: Config, asked: dict[str, str]) -> None:
    backbone, method = config.backbone, config.method
    or_else = "or a method without gradients, such as method=best_of_n"
    if "offload" in asked:
        raise ConfigError(
            f"{asked['offload']} has taken weights away when the gradient of method={method.name} comes back to them: give "
            f"backbone.storage=float8 with backbone.checkpointing=true, {or_else}"
        )
    if "attention" in asked and backbone.attention not in REPEATABLE:
        why = "computes no gradient" if backbone.attention == "sage" else "adds a gradient up in any order"
        raise ConfigError(
            f"{asked['attention']} {why}, and method={method.name} needs one that is the same each time: give backbone.attention="
            f"{', '.join(REPEATABLE)} or null, {or_else}"
        )
