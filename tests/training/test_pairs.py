"""Drawing and labelling pairs: killed and gone on with, refused where they are others."""

import pytest
import torch
from fakes import CPU, FakeBackbone

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.sampling.batching import Calls
from align.semantics.sources import no_pairs
from align.shapes.grammar import parse as parse_caption
from align.training import labels, pairs
from scripts.shapes_training.scenes import render, sample_scene

PROMPTS = ["red cat", "blue dog", "cat and dog"]


def brightness(pictures, prompts):
    return pictures.double().mean(dim=(1, 2, 3))


@pytest.fixture
def sampler(monkeypatch):
    monkeypatch.setattr(pairs, "PORTION", 2)
    config = jobs_of(parse(["method=none", "sampler.steps=3", "sampler.eta=1"]))[0].config
    return build.assemble(config, FakeBackbone(), None, no_pairs, Calls(4), CPU)


def make(folder, sampler, prompts=PROMPTS, stamp="as it is", label=brightness):
    pairs.make(folder, prompts, sampler, label, 3, 7, stamp)


def test_what_was_killed_goes_on_and_is_the_same(tmp_path, sampler):
    def killed(pictures, prompts):
        if "cat and dog" in prompts:
            raise KeyboardInterrupt
        return brightness(pictures, prompts)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "killed", sampler, label=killed)
    kept = (tmp_path / "killed" / "portion-00000.safetensors").stat().st_mtime_ns
    make(tmp_path / "killed", sampler)
    make(tmp_path / "whole", sampler)
    assert (tmp_path / "killed" / "portion-00000.safetensors").stat().st_mtime_ns == kept
    for name in ("portion-00000.safetensors", "portion-00001.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_pairs_are_pictures_of_the_same_prompt_the_better_first(tmp_path, sampler):
    make(tmp_path, sampler)
    found = pairs.load(tmp_path, 3)
    assert len(found) == 3 * 3
    shown = [sampler.decode(torch.stack([pair.chosen, pair.rejected])) for pair in found]
    assert all(float(one.mean()) > float(other.mean()) for one, other in shown)
    with pytest.raises(ConfigError, match="no two pictures"):
        pairs.load(tmp_path, 3, margin=1.0)


@pytest.mark.parametrize("change", [{"prompts": PROMPTS[::-1]}, {"stamp": "another model"}])
def test_pictures_of_others_are_refused_in_a_line(tmp_path, sampler, change):
    make(tmp_path, sampler)
    with pytest.raises(ConfigError, match="name another folder"):
        make(tmp_path, sampler, **change)


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(ConfigError, match=r"portion-\*"):
        pairs.load(tmp_path, 3)


def test_the_world_prefers_what_was_asked_for():
    import numpy as np

    asked = "a red circle above a blue square"
    shown = [
        render(sample_scene(parse_caption(text), np.random.default_rng(3), None))
        for text in (asked, "a red circle above a blue star")
    ]
    pictures = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2) / 255
    right, wrong = labels.world(pictures, [asked] * 2).tolist()
    assert right > wrong + labels.WORLD_MARGIN
    with pytest.raises(ConfigError, match="captions of the shapes world"):
        labels.world(pictures, ["a photo of a cat"] * 2)
