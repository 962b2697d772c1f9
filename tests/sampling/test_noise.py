import random
from dataclasses import replace

import pytest
import torch

from align.sampling.noise import NoiseStream

STREAM = NoiseStream(seed=1, key="a red cat", sample=2, particle=3)
KEY = ("step", 4, 5)


def draw(stream=STREAM, key=KEY, shape=(4, 8, 8)):
    return stream.normal(*key, shape)


def test_the_same_key_draws_the_same():
    assert torch.equal(draw(), draw(replace(STREAM)))


@pytest.mark.parametrize(
    ("stream", "key"),
    [
        (replace(STREAM, seed=2), KEY),
        (replace(STREAM, key="a red car"), KEY),
        (replace(STREAM, sample=1), KEY),
        (replace(STREAM, particle=2), KEY),
        (STREAM, ("renoise", 4, 5)),
        (STREAM, ("step", 5, 5)),
        (STREAM, ("step", 4, 4)),
        (STREAM, ("step", 45, 0)),
    ],
    ids=["seed", "prompt", "sample", "particle", "purpose", "step", "round", "run together"],
)
def test_every_part_of_the_key_counts(stream, key):
    correlation = torch.corrcoef(torch.stack([draw().flatten(), draw(stream, key).flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.25


def test_neither_order_nor_other_draws_matter():
    keys = [("step", step, round) for step in range(5) for round in range(3)]
    first = {key: draw(key=key) for key in keys}
    random.Random(0).shuffle(keys)
    torch.manual_seed(0)
    for key in keys:
        torch.randn(7)
        assert torch.equal(draw(key=key), first[key])


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    draw()
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize("prompt", ["", "\ud800 alone", "caf\u00e9", "\x1f", "1\x1f2", "x" * 100_000, "\0"])
def test_any_prompt_has_its_own_noise(prompt):
    one = draw(replace(STREAM, key=prompt))
    assert torch.isfinite(one).all()
    assert not torch.equal(one, draw(replace(STREAM, key=prompt + " ")))


def test_surrogates_that_read_alike_are_still_different_prompts():
    assert not torch.equal(draw(replace(STREAM, key="\ud800")), draw(replace(STREAM, key="?")))


def test_a_prompt_cannot_pose_as_another_key():
    """The prompt comes last in the key, so separators within it do no harm."""
    assert not torch.equal(
        NoiseStream(0, "a", 0, 1).normal("step", 2, 3, (16,)),
        NoiseStream(0, "3\x1fa", 0, 1).normal("step", 2, 3, (16,)),
    )


def test_draws_are_standard_normal():
    draws = torch.cat([NoiseStream(seed, "p", 0).normal("initial", 0, 0, (1000,)) for seed in range(40)])
    assert abs(float(draws.mean())) < 4 / 200
    assert float(draws.var()) == pytest.approx(1, abs=4 * (2 / 40000) ** 0.5)
    assert float(draws.pow(4).mean()) == pytest.approx(3, abs=4 * (96 / 40000) ** 0.5)
