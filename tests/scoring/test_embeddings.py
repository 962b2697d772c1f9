"""Embeddings of saved pictures: equal files, other weights than there are."""

from functools import partial

import numpy
import pytest
from analysis.test_diversity import BLUE, GREEN, RED, run
from PIL import Image

from align.analysis.comparison import compare
from align.analysis.diversity import distance
from align.analysis.spread import measure
from align.rewards.sources import OWN
from align.scoring.embeddings import embeddings
from align.store.errors import ReportError


def test_embeddings_of_equal_files_are_equal_to_the_bit(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for path, colour in zip(paths, (RED, GREEN, RED, BLUE, RED), strict=True):
        Image.new("RGB", (64, 64), colour).save(path)
    found = embeddings("shapes_pick", paths).rows
    rows = numpy.stack([found[str(path)] for path in paths])
    assert distance(rows[[0, 2, 4]]) == 0
    assert distance(rows[[0, 1, 3]]) > 0.001
    assert not numpy.allclose(numpy.linalg.norm(rows, axis=1), 1)  # As the tower gives them.
    alone = embeddings("shapes_pick", paths[3:4]).rows[str(paths[3])]
    assert numpy.array_equal(alone, rows[3])
    from align.rewards.preprocess import to_pictures
    from align.rewards.registry import load

    with Image.open(paths[1]) as image:
        expected = load("shapes_pick").image_embeddings(to_pictures([image]))[0].numpy()
    assert rows[1] / numpy.linalg.norm(rows[1]) == pytest.approx(expected, abs=1e-5)


def test_missing_weights_of_the_features_are_one_line_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(OWN, raising=False)
    folder = run(tmp_path / "a", "none", {"p0": (RED, GREEN)}, family="sd15")
    with pytest.raises(ReportError, match=r"clip-vit-large-patch14.*to fetch it") as raised:
        compare([folder], diversity=partial(measure, embed=embeddings))
    assert "\n" not in str(raised.value)
