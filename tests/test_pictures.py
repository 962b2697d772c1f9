"""Pictures of any kind as the RGB that metrics see."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from align.pictures import PictureError, read_picture


def saved(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(data, place=(0, 0)):
    return read_picture(data).getpixel(place)


def palette(colour, transparency=None):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, *colour])
    return saved(picture, **({} if transparency is None else {"transparency": transparency}))


def test_every_mode_becomes_rgb():
    assert pixel(saved(Image.new("RGB", (4, 4), (1, 2, 3)))) == (1, 2, 3)
    assert pixel(saved(Image.new("L", (4, 4), 90))) == (90, 90, 90)
    assert pixel(saved(Image.new("1", (4, 4), 1))) == (255, 255, 255)
    assert pixel(palette((9, 8, 7))) == (9, 8, 7)
    assert pixel(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF")) == (0, 255, 255)


def test_transparency_is_laid_over_white():
    assert pixel(saved(Image.new("RGBA", (4, 4), (10, 20, 230, 0)))) == (255, 255, 255)
    assert pixel(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))) == (127, 127, 127)
    assert pixel(saved(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)
    assert pixel(palette((9, 8, 7), transparency=1)) == (255, 255, 255)


def test_sixteen_bits_are_rounded_to_eight_and_not_cut_off():
    levels = np.array([[0, 256, 30000, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        found = np.asarray(read_picture(saved(Image.fromarray(levels), kind)))
        assert found[0, :, 0].tolist() == [0, 1, 117, 255]


def test_the_orientation_of_a_camera_is_followed():
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    assert read_picture(saved(Image.new("RGB", (10, 20)), "JPEG", exif=exif)).size == (20, 10)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    assert pixel(data) == (255, 0, 0)


def test_a_large_picture_is_no_bomb(recwarn):
    assert read_picture(saved(Image.new("1", (10_000, 10_000)))).size == (10_000, 10_000)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"a text that somebody named .png", "no picture"),
        (saved(Image.effect_noise((64, 64), 50))[:-2000], "truncated"),
        (saved(Image.new("1", (20_000, 20_000))), "bomb"),
        (saved(Image.new("F", (4, 4)), "TIFF"), "32 bits"),
    ],
    ids=["empty", "text", "truncated", "bomb", "32 bits"],
)
def test_what_cannot_be_seen_is_told_in_one_line(data, said):
    with pytest.raises(PictureError, match=said) as caught:
        read_picture(data)
    assert "\n" not in str(caught.value)
