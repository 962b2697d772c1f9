"""A saved surrogate guides like any reward: by its features, each picture by itself, with a gradient."""

from dataclasses import replace

import pytest
import torch

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.online.query import features_of
from align.rewards.features import load_features
from align.rewards.preprocess import to_images
from align.runner import build
from align.runner.files import Files
from align.surrogates.frame import Asked
from align.surrogates.spec import register
from align.surrogates.surrogate import fit_ridge

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """By random pictures: values are their redness."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(24, 3, 64, 64, generator=generator) * torch.rand(24, 3, 1, 1, generator=generator)
    features = features_of(load_features("shapes_pick"), to_images(pictures))
    data = Asked(features, pictures[:, 0].mean((1, 2)), ("a", "b") * 12)
    found = fit_ridge(data, "shapes_pick", centre="prompt", scale="none", a=0.0, limit=1.0, ridge=None)
    path = tmp_path_factory.mktemp("surrogate") / "warmth.safetensors"
    found.save(path)
    return path, found, pictures, features


@pytest.fixture
def reward(saved):
    register({"warmth": str(saved[0])})
    return build.load_reward("warmth", CPU)


def test_its_value_is_that_of_the_features_which_the_data_have(saved, reward):
    _, found, pictures, features = saved
    eight_bits = (pictures * 255).round() / 255
    scored = reward.score(eight_bits, ["a"] * 24)
    assert torch.allclose(scored, found(features, ["a"] * 24), atol=1e-5)
    assert torch.corrcoef(torch.stack([scored, pictures[:, 0].mean((1, 2))]))[0, 1] > 0.8


def test_each_picture_counts_by_itself_and_for_its_prompt(saved, reward):
    pictures = saved[2][:3]
    whole = reward.score(pictures, ["a", "b", "c"])
    assert torch.allclose(reward.score(pictures[1:2], ["b"]), whole[1:2], atol=1e-5)
    assert not torch.allclose(reward.score(pictures[1:2], ["a"]), whole[1:2], atol=1e-5)


def test_its_gradient_makes_pictures_redder(saved, reward):
    pictures = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(reward.score(pictures, ["a"]).sum(), pictures)
    assert gradient.abs().sum() > 0
    step = (pictures + 0.1 * gradient / gradient.abs().max()).detach()
    assert reward.score(step, ["a"]) > reward.score(pictures.detach(), ["a"])


def test_the_released_guidance_sees_pictures_washed_out(saved, tmp_path):
    replace(saved[1], released=True).save(tmp_path / "released.safetensors")
    register({"right": str(saved[0]), "released": str(tmp_path / "released.safetensors")})
    right, released = (build.load_reward(name, CPU) for name in ("right", "released"))
    pictures = saved[2][:2]
    assert torch.equal(released.score(pictures, ["a"] * 2), right.score(pictures / 2 + 0.5, ["a"] * 2))


def composed(*words):
    (job,) = jobs_of(parse(["method=das", "sampler=ddim_ancestral", "reward=sum", *words]))
    return job.config


def test_any_run_takes_one_whose_bytes_and_not_whose_place_are_its_identity(saved, tmp_path):
    other = tmp_path / saved[0].name
    other.write_bytes(saved[0].read_bytes())
    prints = []
    for number, path in enumerate((saved[0], other)):
        config = composed(f"reward.files.here{number}={path}", f"reward.terms.here{number}=1")
        prints.append(Files(config).reward_fingerprint(f"here{number}"))
    assert prints[0] == prints[1]


def test_names_that_mean_something_else_or_nothing_are_refused(saved):
    for name, more, what in (
        ("shapes_pick", ["reward.terms.shapes_pick=1"], "there is a reward shapes_pick already"),
        ("mine", ["reward.terms.shapes_pick=1"], "reward.files.mine has no weight"),
    ):
        with pytest.raises(ConfigError, match=what):
            composed(f"reward.files.{name}={saved[0]}", *more)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for name, what in (("nowhere", "there is no file"), ("x", "is no surrogate")):
        with pytest.raises(ConfigError, match=what):
            composed(f"reward.files.bad={tmp_path / name}.safetensors", "reward.terms.bad=1")
