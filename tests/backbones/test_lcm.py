"""Networks that read the guidance scale: one row a particle, against diffusers' own pipeline code."""

import json
import shutil

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
from fakes import SCHEDULE, FakeReward, passes
from tiny import load_tiny

from align.backbones.base import Conditioning, guidance_embedding
from align.backbones.guider import Guider
from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.errors import WrongWeights
from align.processes.lcm import lcm as few_steps
from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from align.sampling.noise import NoiseStream
from align.sampling.parts import Parts
from align.sampling.selection import Keep
from align.sampling.state import Pictures
from align.sampling.values import PosteriorMean

CPU = torch.device("cpu")
WIDTH = 16


@pytest.fixture(scope="module")
def folder(pipeline_folder, tmp_path_factory):
    """The tiny pipeline with a network that reads the guidance scale, and a scheduler to go with it."""
    folder = tmp_path_factory.mktemp("lcm") / "pipeline"
    shutil.copytree(pipeline_folder, folder)
    config = UNet2DConditionModel.load_config(folder / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet = UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": WIDTH})
        torch.nn.init.normal_(unet.time_embedding.cond_proj.weight)
    unet.save_pretrained(folder / "unet")
    LCMScheduler(**{**SCHEDULE, "steps_offset": 0}, original_inference_steps=40).save_pretrained(
        folder / "scheduler"
    )
    return folder


def open_lcm(folder, **options):
    return load_tiny(folder, height=32, width=32, consistency=True, **options)


@pytest.fixture(scope="module")
def lcm(folder):
    return open_lcm(folder)


@pytest.fixture(scope="module")
def process(lcm):
    return few_steps(lcm.scheduler_config, 4)


def batch(lcm, *prompts):
    conditioning = Conditioning.of([lcm.encode(prompt, "") for prompt in prompts])
    z = torch.randn(len(prompts), *lcm.latent_shape(), generator=torch.Generator().manual_seed(1))
    return z, conditioning


def plain_pictures(lcm, prompts):
    conditioning = Conditioning.of([lcm.encode(prompt, "") for prompt in prompts])
    length = conditioning.prompt.shape[1]
    number = len(prompts)
    return Pictures(
        prompts, conditioning, torch.zeros(number, length, length), torch.zeros(number, dtype=torch.bool)
    )


def streams(picture, particle):
    return NoiseStream(0, "cat", picture, particle)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5, 8.37])
@pytest.mark.parametrize("width", [16, 17, 256])
def test_the_scales_embedding_is_diffusers(scale, width):
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor(scale - 1).repeat(1), embedding_dim=width
    )
    assert torch.equal(guidance_embedding(scale, width), theirs[0])


def test_without_guidance_nothing_but_cosines_of_zero_is_read():
    assert guidance_embedding(1, 4).tolist() == [0, 0, 1, 1]


def test_the_schedulers_own_keys_survive_loading(lcm):
    assert lcm.scheduler_config["original_inference_steps"] == 40
    assert lcm.scheduler_config["timestep_scaling"] == 10


def test_a_call_is_the_networks_on_one_row_a_particle(lcm, process):
    z, conditioning = batch(lcm, "red cat", "dog")
    rows = []
    handle = lcm.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    step = process.steps[1]
    found = lcm.predict(z, step, conditioning, Guider(embedded=7.5))
    handle.remove()
    assert rows == [2]
    embedding = guidance_embedding(7.5, WIDTH).expand(2, -1)
    raw = lcm.unet(z, step.time, conditioning.prompt, timestep_cond=embedding).sample
    torch.testing.assert_close(found.eps, raw)
    x0 = (z - step.s * raw) / step.a
    torch.testing.assert_close(found.x0, step.c_out * x0 + step.c_skip * z)
    assert not found.correction.any()
    assert not torch.equal(found.eps, lcm.predict(z, step, conditioning, Guider(embedded=2.0)).eps)


def test_the_negative_prompt_has_no_part(lcm, process):
    z, conditioning = batch(lcm, "red cat")
    other = Conditioning(conditioning.prompt, torch.full_like(conditioning.negative, torch.nan))
    one, two = (
        lcm.predict(z, process.steps[1], given, Guider(embedded=7.5), "both")
        for given in (conditioning, other)
    )
    assert torch.equal(one.x0, two.x0)
    assert torch.equal(one.attention, two.attention)


def test_both_halves_maps_are_the_prompts(lcm, process):
    z, conditioning = batch(lcm, "red cat", "dog")
    both, prompt = (
        lcm.predict(z, process.steps[1], conditioning, Guider(embedded=7.5), half)
        for half in ("both", "prompt")
    )
    assert torch.equal(both.attention, prompt.attention)
    torch.testing.assert_close(both.attention.sum(-1), torch.ones(2, 8, 8))


def test_recomputing_blocks_changes_no_gradient(folder, lcm, process):
    gradients = []
    for backbone in (lcm, open_lcm(folder, checkpointing=True)):
        z, conditioning = batch(backbone, "red cat")
        z.requires_grad_()
        found = backbone.predict(z, process.steps[1], conditioning, Guider(embedded=7.5), "both")
        loss = backbone.decode(found.x0).square().mean() + found.attention[..., 1].square().mean()
        gradients.append(torch.autograd.grad(loss, z)[0])
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_whole_pictures_are_the_pipelines(folder, lcm):
    """The loop on four steps against diffusers' pipeline, noise for noise."""
    process = few_steps(lcm.scheduler_config, 4)
    state = start(streams, 2, 1, lcm.latent_shape(), CPU)
    pictures = plain_pictures(lcm, ["red cat", "dog"])
    ledger = Ledger(2)
    with torch.no_grad():
        found = run(Parts(*passes(lcm, 7.5, 2), process), state, pictures, streams, ledger)
    assert [cost.network_forward for cost in ledger.costs] == [4, 4]

    z = state.z
    scheduler = LCMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(4)
    embedding = guidance_embedding(7.5, WIDTH).expand(2, -1)
    for index, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            output = lcm.unet(z, t, pictures.conditioning.prompt, timestep_cond=embedding).sample
        denoised = scheduler.step(output, t, z).denoised
        if index < 3:
            after = scheduler.timesteps[index + 1]
            noise = torch.stack([streams(k, 0).normal("step", index, 0, z.shape[1:]) for k in range(2)])
            z = scheduler.add_noise(denoised, noise, after.expand(2))
        else:
            z = denoised
    torch.testing.assert_close(found.z, z, rtol=1e-4, atol=1e-4)


class Reading(Keep):
    """Keeps every particle, and looks at its value."""

    def reads(self, step):
        return True


def test_the_reward_sees_the_consistency_functions_picture(lcm, process):
    """Values are those of the decoded x0, and the last step's are those of the finished picture."""
    reward = FakeReward(takes_timestep=False)
    two = passes(lcm, 7.5, 2, reward=reward, value=PosteriorMean(lcm.decode))
    state = start(streams, 2, 1, lcm.latent_shape(), CPU)
    pictures = plain_pictures(lcm, ["red cat", "dog"])
    values = []
    parts = Parts(*two, process, select=Reading())
    with torch.no_grad():
        found = run(parts, state, pictures, streams, Ledger(2), values.append)
        finished = reward.score(lcm.decode(found.z).clamp(0, 1), ["red cat", "dog"])
    torch.testing.assert_close(values[-1].estimate.value, finished)


@pytest.mark.parametrize("consistency", [False, True])
def test_a_network_of_the_other_kind_is_refused(consistency, folder, pipeline_folder):
    wrong = pipeline_folder if consistency else folder
    said = str(consistency).lower()
    with pytest.raises(WrongWeights, match=rf"not of backbone\.consistency={said}$"):
        load(Recipe((str(wrong),), consistency=consistency), CPU, 32, 32)


def test_a_scheduler_file_of_another_class_will_do(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other/scheduler/scheduler_config.json"
    own = ("original_inference_steps", "timestep_scaling")
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in own}
    path.write_text(json.dumps({**config, "_class_name": "DDIMScheduler"}))
    found = open_lcm(tmp_path / "other").scheduler_config
    assert [found[key] for key in own] == [50, 10]
