"""The guiders of diffusers as ours: their formulas, our calls of the network.

Only ``forward`` of theirs is used, which combines outputs.  Their ways of running a weaker network are not: see ``weakened.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import guiders
from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor

from align.processes.base import Step

_ANYWHERE = [0]  # Layers that they want to be told and that only their own hooks read.
CLASSES: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "apg": (
        "AdaptiveProjectedGuidance",
        {"parallel": "eta", "norm": "adaptive_projected_guidance_rescale"},
        {},
    ),
    "cfg_zero_star": ("ClassifierFreeZeroStarGuidance", {}, {"zero_init_steps": 0}),
    "tcfg": ("TangentialClassifierFreeGuidance", {}, {}),
    "mambo_g": ("MagnitudeAwareGuidance", {"damping": "alpha"}, {}),
    "slg": (
        "SkipLayerGuidance",
        {
            "weak_scale": "skip_layer_guidance_scale",
            "weak_start": "skip_layer_guidance_start",
            "weak_stop": "skip_layer_guidance_stop",
        },
        {"skip_layer_guidance_layers": _ANYWHERE},
    ),
    "pag": (
        "PerturbedAttentionGuidance",
        {
            "weak_scale": "perturbed_guidance_scale",
            "weak_start": "perturbed_guidance_start",
            "weak_stop": "perturbed_guidance_stop",
        },
        {"perturbed_guidance_layers": _ANYWHERE},
    ),
    "seg": (
        "SmoothedEnergyGuidance",
        {
            "weak_scale": "seg_guidance_scale",
            "weak_start": "seg_guidance_start",
            "weak_stop": "seg_guidance_stop",
        },
        {"seg_guidance_layers": _ANYWHERE},
    ),
}
"""By our name of a kind: the class, the names that it has for our options, and what else it is given."""


@dataclass(frozen=True)
class Borrowed:
    """What a guider of theirs makes of a step's outputs; its state is set before each use, so none is carried over."""

    theirs: BaseGuidance
    steps: int

    def __call__(self, step: Step, own: Tensor, other: Tensor | None, weak: Tensor | None) -> Tensor:
        self.theirs.set_state(step.index, self.steps, step.time)
        # Flat, as one of them takes norms that torch has over two dimensions only.
        passes = [one if one is None else one.flatten(2) for one in (own, other, weak)]
        found: Tensor = self.theirs.forward(*(passes if weak is not None else passes[:2])).pred
        return found.view_as(own)


def borrowed(kind: str, scale: float, steps: int, options: Mapping[str, Any]) -> Borrowed:
    """The guider of a kind for a process of ``steps``; ``options`` by our names, of which it takes those that it has."""
    # It says of each one made that its interface may change; this one is pinned, and tests compare.
    logging.getLogger("diffusers.guiders.guider_utils").setLevel(logging.ERROR)
    name, names, more = CLASSES[kind]
    given = {theirs: options[ours] for ours, theirs in names.items()}
    made = getattr(guiders, name)(
        guidance_scale=scale, start=options["start"], stop=options["stop"], **given, **more
    )
    return Borrowed(made, steps)
