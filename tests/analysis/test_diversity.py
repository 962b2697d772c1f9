"""Distance and entropy in closed form, and how they come into a report."""

import hashlib
import json
import math

import numpy
import pandas
import pytest
from PIL import Image
from store.helpers import Item

from align.__main__ import main as align
from align.analysis.arms import load_arms
from align.analysis.diversity import dimensions, distance, entropy, run_distances
from align.analysis.intervals import bootstrap, resampled
from align.analysis.spread import Embedded, measure, usual_features
from align.commands.report import main
from align.scoring.embeddings import embeddings
from align.store.manifest import Manifest
from align.store.store import Store

HALF_LOG = math.log(2 * math.pi * math.e) / 2


def test_distances_of_known_directions():
    same = numpy.tile([0.3, -0.7, 0.1], (5, 1))
    assert distance(same) == 0
    assert distance(numpy.eye(4) * 7) == pytest.approx(1)  # Orthogonal; length has no part in it.
    assert distance(numpy.array([[1.0, 0], [-2, 0]])) == pytest.approx(2)
    # Two equal pictures and one orthogonal to them: pairs 0, 1, 1.
    assert distance(numpy.array([[1.0, 0], [3, 0], [0, 1]])) == pytest.approx(2 / 3)
    for none in (same[:1], same[:0], numpy.zeros((2, 3))):
        assert math.isnan(distance(none))


def cloud(variances, number):
    """Rows in 30 dimensions whose sample covariance has these eigenvalues and no others."""
    generator = numpy.random.default_rng(0)
    rows = generator.normal(size=(number, len(variances)))
    columns = numpy.linalg.qr(rows - rows.mean(axis=0))[0] * numpy.sqrt(numpy.array(variances) * (number - 1))
    turn = numpy.linalg.qr(generator.normal(size=(30, len(variances))))[0]
    return columns @ turn.T + 5.0


def test_entropy_of_a_known_covariance():
    """(K/2) ln(2 pi e) + 1/2 sum of ln lambda over the K largest; of twenty ones the constant alone."""
    found = entropy(cloud([4.0, 2.0, 1.0, 0.5, 0.25], 40), largest=3)
    assert found == pytest.approx(3 * HALF_LOG + math.log(4 * 2 * 1) / 2)
    assert entropy(cloud([1.0] * 22, 60)) == pytest.approx(28.3788, abs=1e-4)


def test_entropy_counts_only_directions_that_the_pictures_span():
    """Of n <= 20 pictures the eigenvalues beyond n - 1 are rounding noise, whose logarithm would decide all."""
    assert [dimensions(number) for number in (0, 1, 2, 16, 21, 500)] == [0, 0, 1, 15, 20, 20]
    rows = numpy.random.default_rng(1).normal(size=(16, 768))
    centred = rows - rows.mean(axis=0)
    eigenvalues = numpy.linalg.eigvalsh(centred @ centred.T / 15)[-15:]
    assert entropy(rows) == pytest.approx(15 * HALF_LOG + numpy.log(eigenvalues).sum() / 2)
    assert entropy(rows[::-1]) == pytest.approx(entropy(rows), abs=1e-9)
    # Two pictures: one direction, of variance d^2 / 2.
    assert entropy(numpy.array([[0.0, 0], [3, 4]])) == pytest.approx(HALF_LOG + math.log(25 / 2) / 2)
    # Two equal ones among three span one direction of two: minus infinity, not a figure of rounding noise.
    for none in (rows[:1], rows[[0, 0]], rows[[0, 0, 1]], numpy.full((3, 5), numpy.pi)):
        assert math.isnan(entropy(none))


def test_the_distance_of_a_run_is_over_all_pairs():
    rows, groups = numpy.random.default_rng(0).normal(size=(12, 5)), [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    value, draws = run_distances(rows, groups)
    assert value == pytest.approx(distance(rows))
    # By hand: pictures of a prompt that is drawn w times stand there w times; a copy is no partner.
    for weights, found in zip(next(resampled(4))[:5], draws[:5], strict=True):
        own = [(k, group, copy) for k, group in enumerate(groups) for copy in range(int(weights[group]))]
        pairs = [
            distance(rows[[a[0], b[0]]])
            for place, a in enumerate(own)
            for b in own[place + 1 :]
            if a[1] != b[1] or a[2] == b[2]
        ]
        assert found == pytest.approx(sum(pairs) / len(pairs))


def run(folder, method, colours, *, optimised=(), family="shapes"):
    """A run whose pictures are plain: colours by prompt, one a sample; None is a failed row."""
    items, rows, pictures = [], [], []
    for prompt, some in colours.items():
        for sample, colour in enumerate(some):
            text = json.dumps([method, prompt, sample])
            items.append(Item(hashlib.sha256(text.encode()).hexdigest(), prompt, 0, sample))
            pictures.append(Image.new("RGB", (8, 8), colour) if colour else None)
            rows.append({} if colour else {"status": "failed: no"})
    record = {"config": {"backbone": {"family": family}}}
    with Store(folder, Manifest({"method": {"name": method}}, record), items) as store:
        for item, row, picture in zip(items, rows, pictures, strict=True):
            known = {"prompt": item.prompt, "method": method, "optimised": list(optimised)}
            store.commit(item, picture, known | {"backbone": family} | row)
    return folder


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def colours_themselves(features, paths):
    found = {}
    for path in paths:
        with Image.open(path) as image:
            found[str(path)] = numpy.array(image.getpixel((0, 0)), dtype=float) / 255
    return Embedded(found, features)


def measured(*folders):
    arms, _ = load_arms(folders)
    spread = measure(arms, arms[0], embed=colours_themselves)
    return spread, spread.figures.set_index(["arm", "of", "value"])


def test_figures_of_known_pictures(tmp_path):
    base = {f"p{k}": (RED, GREEN, BLUE) for k in range(3)}
    # One prompt's pictures are all equal, one's differ in one, one's are as before.
    other = {"p0": (RED, RED, RED), "p1": (RED, RED, BLUE), "p2": (RED, GREEN, BLUE)}
    spread, figures = measured(run(tmp_path / "a", "none", base), run(tmp_path / "b", "fk", other))
    within = figures.loc[("none", "prompt", "distance")]
    assert within[["mean", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert (within["pictures"], within["groups"], within["features"]) == (3, 3, "shapes_pick")
    within = figures.loc[("fk", "prompt", "distance")]
    assert within["mean"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert within[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [-4 / 9, -1, 0]
    )
    # Three orthogonal unit vectors have the covariance of eigenvalues 1/2, 1/2.
    assert figures.loc[("none", "prompt", "entropy"), "mean"] == pytest.approx(2 * HALF_LOG + math.log(0.5))
    assert figures.loc[("none", "prompt", "entropy"), "dimensions"] == 2
    assert figures.loc[("fk", "prompt", "entropy"), "groups"] == 1
    assert spread.notes == ["fk: 2 prompts have pictures that are equal and no entropy"]
    # Of the 9 pictures 3 are red, green and blue each: of 36 pairs 9 are equal.
    whole = figures.loc[("none", "run", "distance")]
    assert (whole["mean"], whole["pictures"]) == (pytest.approx(27 / 36), 9)
    assert spread.prompts.groupby("arm")["distance"].max().tolist() == pytest.approx([1, 1])
    assert spread.prompts["pictures"].tolist() == [3] * 6


def test_differences_are_of_the_same_number_of_pictures(tmp_path):
    """A failed picture's partner counts for no difference: an entropy of more pictures is larger by itself."""
    base = {f"p{k}": (RED, GREEN, BLUE) for k in range(2)}
    folders = (
        run(tmp_path / "a", "none", base),
        run(tmp_path / "b", "fk", {"p0": (RED, GREEN, None), "p1": (RED, GREEN, None)}),
    )
    _, figures = measured(*folders)
    for value in ("distance", "entropy"):
        assert figures.loc[("fk", "prompt", value), "difference"] == 0
    assert figures.loc[("fk", "prompt", "entropy"), "dimensions"] == 1
    assert figures.loc[("fk", "run", "distance"), "difference"] == 0
    assert math.isnan(figures.loc[("fk", "run", "entropy"), "difference"])  # Of two colours twice each.


def test_an_entropy_is_of_prompts_with_all_their_pictures(tmp_path):
    spread, figures = measured(
        run(tmp_path, "none", {"p0": (RED, GREEN, BLUE), "p1": (RED, GREEN, None), "p2": (BLUE, RED, GREEN)})
    )
    assert figures.loc[("none", "prompt", "entropy"), "groups"] == 2
    assert figures.loc[("none", "prompt", "distance"), "groups"] == 3
    assert spread.notes == ["none: 1 prompts have fewer than 3 pictures and no entropy"]


def test_one_picture_a_prompt_has_only_the_run_s_diversity(tmp_path):
    spread, figures = measured(run(tmp_path, "none", {"p0": (RED,), "p1": (GREEN,)}))
    assert list(figures.index.get_level_values("of").unique()) == ["run"]
    assert figures.loc[("none", "run", "distance"), "mean"] == pytest.approx(1)
    assert "samples=4" in spread.notes[0]


def test_pictures_that_are_gone_and_toys_are_told(tmp_path):
    first = run(tmp_path / "a", "none", {"p0": (RED, GREEN), "p1": (RED, GREEN)})
    toys = run(tmp_path / "b", "none", {"p0": (RED, GREEN)}, family="toy")
    real = run(tmp_path / "c", "none", {"p0": (RED, GREEN)}, family="sd15")
    arms = [arm for folder in (first, toys, real) for arm in load_arms([folder])[0]]
    assert [usual_features(arm) for arm in arms] == ["shapes_pick", None, "clip_vit_l14"]
    assert measure(arms[1:2], arms[1], embed=embeddings).notes == [
        "none: no diversity, its pictures are only colours"
    ]
    assert not len(measure(arms[1:2], arms[1], embed=embeddings).figures)
    gone = next((first / "images").iterdir())
    gone.write_bytes(b"no picture")
    found = measure(arms[:1], arms[0], embed=embeddings)
    named = f"({gone.name} is the first)"
    assert found.notes[0] == f"none: 1 pictures cannot be read and count for no diversity {named}"
    assert found.figures.set_index(["of", "value"]).loc[("run", "distance"), "pictures"] == 3


def test_the_command(tmp_path, capsys):
    base = {f"p{k}": (RED, GREEN, BLUE) for k in range(3)} | {"=1+1": (RED, BLUE, GREEN)}
    folders = [
        str(run(tmp_path / "a", "none", base)),
        str(run(tmp_path / "b", "fk", dict.fromkeys(base, (RED, RED, GREEN)), optimised=["shapes_pick"])),
    ]
    out = tmp_path / "out"
    assert main([*folders, "--diversity", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Diversity within a prompt" in text
    assert "--features measures diversity in others" in " ".join(text.split())
    made = pandas.read_csv(out / "diversity.csv").set_index(["arm", "of", "value"])
    assert made.loc[("fk", "prompt", "distance"), "difference"] < 0
    assert (out / "diversity_prompts.csv").read_text().count("'=1+1") == 2
    first = (out / "diversity.csv").read_bytes()
    assert main([*folders, "--diversity", "--out", str(out)]) == 0
    assert (out / "diversity.csv").read_bytes() == first
    assert main([*folders, "--diversity", "--features", "shapes_hps", "--out", str(out)]) == 0
    assert set(pandas.read_csv(out / "diversity.csv")["features"]) == {"shapes_hps"}
    capsys.readouterr()
    for wrong, words in (
        (["--features", "shapes_hps"], "needs --diversity"),
        (["--diversity", "--features", "shapes_pik"], "did you mean shapes_pick"),
    ):
        assert align(["report", *folders, *wrong]) == 2
        printed = capsys.readouterr()
        assert words in printed.err
        assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_resamples_are_those_of_the_bootstrap():
    values = numpy.arange(6.0)[:, None]
    draws = numpy.concatenate(list(resampled(6))) @ values[:, 0] / 6
    low, high = numpy.percentile(draws, [2.5, 97.5])
    found = bootstrap(values, range(6))
    assert (found.low[0], found.high[0]) == (pytest.approx(low), pytest.approx(high))
