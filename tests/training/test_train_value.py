"""The training of small decoders and value networks with next to no data: what it writes must load, and it goes on where it was."""

import json

import numpy as np
import pytest
import torch
from fakes import SCHEDULE, FakeBackbone, FakeReward

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.registry import load_folder
from align.backbones.small_decoder import load_small_decoder
from align.checkpoints.reference import EMBEDDED
from align.processes.ddim import ddim
from align.sampling.noise import NoiseStream
from align.sampling.value_network import load_value_network
from align.shapes.grammar import caption_split, parse
from scripts.train_small_decoder import main as train_small_decoder
from scripts.train_value import Examples
from scripts.train_value import main as train_value
from scripts.value_quality import within
from scripts.value_training.paths import Paths, collect, sample, shapes_prompts

CPU = torch.device("cpu")
PROMPTS = ["red cat", "blue dog", "a quiet morning"]


def collected(folder, prompts=PROMPTS, samples=2, together=4):
    backbone, process = FakeBackbone(), ddim(SCHEDULE, 3, 1.0)
    rewards = [FakeReward(), FakeReward(takes_timestep=False)]
    files = collect(prompts, samples, backbone, process, 3.0, rewards, 9, folder, "train", together)
    return files, backbone, process


def test_a_path_is_plain_sampling_with_its_states_and_rewards(tmp_path):
    """Written apart, for the second picture of the first prompt."""
    files, backbone, process = collected(tmp_path)
    paths, shape = Paths.read(files), backbone.latent_shape()
    assert paths.prompts.tolist() == [prompt for prompt in PROMPTS for _ in range(2)]
    assert paths.t.tolist() == [step.time for step in process.steps]
    stream, conditioning = NoiseStream(9, PROMPTS[0], 1), Conditioning.of([backbone.encode(PROMPTS[0], "")])
    z = stream.normal("initial", 0, 0, shape)[None]
    for step in process.steps:
        found = backbone.predict(z, step, conditioning, Guider(3.0))
        for kept, expected in ((paths.z, z), (paths.x0, found.x0)):
            torch.testing.assert_close(
                torch.from_numpy(kept[1, step.index]).float(), expected[0], atol=1e-2, rtol=1e-2
            )
        kernel = process.kernel(found.x0, found.eps, step)
        z = kernel.sample(stream.normal("step", step.index, 0, shape)[None])
    picture = backbone.decode(z).clamp(0, 1)
    rewards = [
        FakeReward().score(picture, PROMPTS[:1], torch.zeros(1, dtype=torch.long)),
        FakeReward().score(picture, PROMPTS[:1]),
    ]
    torch.testing.assert_close(torch.from_numpy(paths.rewards[1]), torch.cat(rewards), atol=1e-4, rtol=1e-4)


def test_a_collection_goes_on_where_it_was(tmp_path):
    files, *_ = collected(tmp_path, PROMPTS[:2])
    written = files[0].stat().st_mtime_ns
    more, *_ = collected(tmp_path)
    assert more[: len(files)] == files
    assert len(more) == 2
    assert files[0].stat().st_mtime_ns == written
    assert len(Paths.read(more)) == 6


def test_prompts_are_different_captions_of_their_split_and_more_of_them_begin_alike():
    few, many = shapes_prompts("test", 5, 3), shapes_prompts("test", 20, 3)
    assert many[:5] == few
    assert len(set(many)) == 20
    assert {caption_split(parse(text)) for text in many} == {"test"}


def test_examples_pair_a_state_with_its_own_time_prompt_and_reward():
    backbone, process = FakeBackbone(), ddim(SCHEDULE, 3, 1.0)
    paths = sample(PROMPTS, 2, backbone, process, 3.0, [FakeReward()], 9)
    examples = Examples.of(paths, 2, backbone, process)
    assert float(examples.targets.mean().abs()) < 1e-5
    z, fraction, text, target = examples.batch(np.random.default_rng(0), 25, renoised=0.0)
    assert torch.equal(fraction[::2], fraction[1::2])
    assert torch.equal(text[::2], text[1::2])
    for k in range(50):
        same = (torch.from_numpy(paths.z).float() == z[k]).flatten(2).all(dim=2)
        (path,), (step,) = (places.tolist() for places in same.nonzero(as_tuple=True))
        assert float(fraction[k]) == pytest.approx(process.steps[step].fraction)
        assert torch.equal(target[k], examples.targets[path])
        torch.testing.assert_close(text[k], backbone.encode(str(paths.prompts[path]), "").prompt)


def test_a_renoised_state_has_its_steps_share_of_noise():
    backbone, process = FakeBackbone(), ddim(SCHEDULE, 3, 1.0)
    paths = sample(PROMPTS[:1], 1, backbone, process, 3.0, [FakeReward(), FakeReward()], 9)
    z, fraction, *_ = Examples.of(Paths.join([paths, paths]), 1, backbone, process).batch(
        np.random.default_rng(0), 3000, renoised=1.0
    )
    final = torch.from_numpy(paths.final[0]).float()
    for step in process.steps:
        some = z[(fraction - step.fraction).abs() < 1e-6] - step.a * final
        assert len(some) > 800
        assert float(some.mean()) == pytest.approx(0, abs=0.02)
        assert float(some.var()) == pytest.approx(step.s**2, rel=0.03)


def test_ranks_are_compared_within_a_prompt():
    """A prompt that is easier for all its pictures makes no correlation."""
    value, reward = np.array([1.0, 2, 3, 11, 12, 13]), np.array([3.0, 2, 1, 13, 12, 11])
    assert within(value, reward, 3)[0] == pytest.approx(-1)
    assert within(value, value, 3)[0] == pytest.approx(1)


@pytest.mark.parametrize("name", ["small_decoder", "value_network"])
def test_the_shipped_ones_fit_the_shapes_world(name):
    backbone = load_folder(EMBEDDED["shapes"], CPU)
    folder, shape = EMBEDDED["shapes"] / name, backbone.latent_shape()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6
    if name == "small_decoder":
        decode = load_small_decoder(folder, "diffusion_pytorch_model.safetensors", shape, CPU, torch.float32)
        with torch.no_grad():
            z = (
                backbone.vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
                * backbone.vae.config.scaling_factor
            )
            assert float((decode(z) - backbone.decode(z)).abs().mean()) < 0.06
        return
    network = load_value_network(folder, CPU)
    read = backbone.encode("a red circle", "").prompt[None]
    found = network(torch.randn(1, *shape), torch.tensor([0.9]), read)
    assert network.shape.rewards[0] == "shapes_pick"
    assert float(found.abs().max()) < 4


@pytest.mark.slow
def test_both_scripts_run_and_write_what_loads(tmp_path):
    more = ["--prompts", "2", "--steps", "2", "--seconds", "60"]
    value = ["sampler.steps=3", "--samples", "2", "--batch", "8", "--out", str(tmp_path / "value")]
    small = ["--latents", "20", "--out", str(tmp_path / "small")]
    train_value([*more, *value, "--folder", str(tmp_path / "of_value")])
    train_small_decoder([*more, *small, "--folder", str(tmp_path / "of_decoder")])
    network = load_value_network(tmp_path / "value", CPU)
    assert len(network.shape.rewards) == 5
    facts = json.loads((tmp_path / "value" / "config.json").read_text())["facts"]
    assert (facts["pictures"], facts["steps"]) == (4, 3)
    decode = load_small_decoder(
        tmp_path / "small", "diffusion_pytorch_model.safetensors", (8, 8, 8), CPU, torch.float32
    )
    assert decode(torch.zeros(1, 8, 8, 8)).shape == (1, 3, 64, 64)
