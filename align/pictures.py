"""Pictures of any kind as the 8-bit RGB that metrics see.  Imports no torch, and Pillow only when it is needed.

What a file says about how it is to be seen is followed: the orientation of its EXIF data, its palette, its transparency (laid
over white).  Of an animation the first frame counts; 16-bit greys are rounded to 8 bits; colour profiles are not applied.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from align.reading import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Of the files that are taken for pictures, in lower case."""


class PictureError(Exception):
    """A file holds no picture that can be seen; the message is one line."""


def read_picture(source: bytes | Path) -> Image:
    """A picture as RGB, from a file or its bytes. Raises PictureError: it is empty, damaged, too large, or no picture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    # Only what is more than twice Pillow's limit is refused, by an error of its own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        data = read_bytes(source) if isinstance(source, Path) else source
        if not data:
            raise PictureError("the file is empty")
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("it is no picture that Pillow can read") from None
    except Exception as error:  # decoders of damaged files raise whatever they come upon
        said = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"it cannot be read: {said}") from None


def saved_picture(path: Path | str) -> tuple[bytes, Image]:
    """The bytes of a picture that is to be shown or measured again, and what they hold, as RGB. Raises PictureError."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise PictureError("picture missing") from None
    except (OSError, ValueError) as error:  # or it is no path at all
        raise PictureError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return data, read_picture(data)


def to_rgb(image: Image) -> Image:
    """Any picture as RGB; transparency is laid over white, 16 bits are rounded to 8.

    Raises PictureError: its numbers have no range that says what is white.
    """
    from PIL import Image

    if image.mode in ("I", "F"):
        raise PictureError(
            "it has numbers of 32 bits, of which nobody knows what is white: save it with 8 or 16"
        )
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image) -> Image:
    import numpy
    from PIL import Image

    levels = numpy.asarray(image).astype(numpy.uint32)
    grey = (levels * 255 + 32767) // 65535
    if isinstance(clear := image.info.get("transparency"), int):
        grey[levels == clear] = 255
    return Image.fromarray(grey.astype(numpy.uint8))
