"""Options of what combines the outputs of a guidance pair, like those of ``align.config.schema``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between, Text


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
        return self.kind in ("slg", "pag", "seg")

    def steps(self, number: int) -> range:
        """Of ``number`` steps those that are guided by the pair."""
        return range(int(self.start * number), int(self.stop * number))

    def weak_steps(self, number: int) -> range:
        """Those with a further pass."""
        if not self.further_pass or self.weak_scale == 0:
            return range(0)
        return range(int(self.weak_start * number) + 1, int(self.weak_stop * number))
