"""The shapes world's student of few steps, as it comes along."""

from pathlib import Path

import pytest

from align.checkpoints.reference import EMBEDDED
from align.sampling.sampler import Request
from align.shapes.grammar import distinct_captions
from scripts.shapes_quality import sampler, verdicts


@pytest.mark.parametrize(("way", "rows", "right"), [("turbo_shapes", 4, 9), ("turbo_shapes_1", 1, 5)])
def test_it_draws_single_objects_in_as_many_network_rows_as_steps(way, rows, right):
    drawing = sampler("shapes_turbo", EMBEDDED["shapes_turbo"], 4, f"sampler={way}")
    judged, _ = verdicts(drawing, "test", 12, 1)
    assert sum(verdict.all for verdict in judged) >= right
    (outcome,) = drawing.sample([Request(distinct_captions("test", 1, 11, 1)[0].text(), seed=0)])
    assert outcome.cost.network_forward == rows


def test_its_file_is_small():
    size = sum(path.stat().st_size for path in Path(EMBEDDED["shapes_turbo"]).iterdir())
    assert size < 15_000_000
