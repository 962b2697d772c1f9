"""What each kind of transformer does in its own way, a file each; see ``base``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align.backbones.families.base import Family
    from align.checkpoints.layout import Layout


def family(layout: Layout) -> type[Family]:
    """That of a pipeline's layout; diffusers' pipelines are slow to import, so no other is."""
    if layout == "sd3":
        from align.backbones.families.sd3 import SD3

        return SD3
    if layout == "flux":
        from align.backbones.families.flux import Flux

        return Flux
    raise ValueError(f"backbone.layout={layout} is no transformer's")
