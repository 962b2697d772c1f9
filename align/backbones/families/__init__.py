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
    if layout == "z_image":
        from align.backbones.families.z_image import ZImage

        return ZImage
    if layout == "qwen_image":
        from align.backbones.families.qwen_image import QwenImage

        return QwenImage
    if layout == "flux2_klein":
        from align.backbones.families.flux2 import Flux2Klein

        return Flux2Klein
    if layout == "sana":
        from align.backbones.families.sana import Sana

        return Sana
    if layout == "pixart":
        from align.backbones.families.pixart import PixArtSigma

        return PixArtSigma
    raise ValueError(f"backbone.layout={layout} is no transformer's")
