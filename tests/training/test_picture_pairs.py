"""Data sets of pictures in pairs: tables with files, parquet with bytes, as Pick-a-Pic has them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from align.config.errors import ConfigError
from align.training.encoding import scaled, to_square
from align.training.picture_pairs import PicturePairs

LIGHT, DARK = 220, 30


def png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (level,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


def encode(images):
    """Means of brightness in place of latents."""
    return torch.tensor([np.asarray(image).mean() for image in images]).view(-1, 1, 1, 1)


ROWS = [
    ("a cat", LIGHT, DARK, 1),
    ("a dog", LIGHT, DARK, 0),
    ("a tie", LIGHT, DARK, 0.5),
    ("a fox", DARK, LIGHT, 1),
]
PREFERRED = {"a cat": LIGHT, "a dog": DARK, "a fox": DARK}


def table(folder):
    for level in (LIGHT, DARK):
        (folder / f"{level}.png").write_bytes(png(level))
    lines = [f"{text},{one}.png,{other}.png,{label}" for text, one, other, label in ROWS]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["caption,jpg_0,jpg_1,label_0", *lines]) + "\n")
    return path


def parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = list(zip(*ROWS, strict=True))
    data = {
        "caption": columns[0],
        "jpg_0": [png(level) for level in columns[1]],
        "jpg_1": [png(level) for level in columns[2]],
        "label_0": [float(label) for label in columns[3]],
    }
    write_table(pyarrow.table(data), folder / "train-00000.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize("form", [table, parquet])
def test_the_preferred_picture_comes_first_and_ties_are_left_out(tmp_path, form):
    found = PicturePairs(form(tmp_path), encode)
    pairs = [found[k] for k in range(len(found))]
    assert {pair.prompt: float(pair.chosen) for pair in pairs} == PREFERRED
    assert {float(pair.chosen) + float(pair.rejected) for pair in pairs} == {LIGHT + DARK}
    assert len({pair.key for pair in pairs}) == 3


def test_what_is_wrong_is_said_in_a_line(tmp_path):
    path = table(tmp_path)
    (tmp_path / f"{DARK}.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"line 2: it is no picture"):
        PicturePairs(path, encode)[0]
    path.write_text("caption,jpg_0,jpg_1,label_0\na cat,a.png,b.png,2\n")
    with pytest.raises(ConfigError, match="label_0 is '2'"):
        PicturePairs(path, encode)
    path.write_text("caption,jpg_0,jpg_1\na cat,a.png,b.png\n")
    with pytest.raises(ConfigError, match="has no label_0"):
        PicturePairs(path, encode)
    path.write_text("caption,jpg_0,jpg_1,label_0\na cat,a.png,b.png,0.5\n")
    with pytest.raises(ConfigError, match="prefers neither"):
        PicturePairs(path, encode)
    with pytest.raises(ConfigError, match=r"no \.parquet files"):
        PicturePairs(tmp_path, encode)


def test_pictures_are_cut_to_the_model_s_size_and_range():
    found = to_square(Image.new("RGB", (30, 12), (255, 0, 0)), 8, 8)
    assert found.shape == (3, 8, 8)
    assert found[:, 4, 4].tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    "autoencoder",
    [
        {"scaling_factor": 0.18215},
        {"scaling_factor": 1.5, "shift_factor": 0.06},
        {"scaling_factor": 1.0, "latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 1.5]},
    ],
)
def test_encoding_undoes_what_decoding_begins_with(autoencoder):
    from align.backbones.base import unscaled

    latents = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(scaled(unscaled(latents, autoencoder), autoencoder), latents, atol=1e-6)
