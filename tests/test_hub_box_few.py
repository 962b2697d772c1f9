"""Few-step models from the hub's cache to pictures, and against the published pipelines' own calls, with tiny weights."""

import json

import pytest
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from hub_box import DMD2, HYPER, SD_TURBO, SDXL, SDXL_TURBO, repository

from align.__main__ import main
from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.registry import Recipe, load
from align.backbones.unet import UNetBackbone
from align.processes.few import few
from align.store.csvfile import read_csv

pytestmark = pytest.mark.usefixtures("at_home")
TINY = [
    *("prompts=text", "prompts.text=[a red cat]", "metrics=none", "method=none", "run.gallery=false"),
    *("backbone.height=64", "backbone.width=64", "run.device=cpu"),
]
CPU = torch.device("cpu")


@pytest.fixture
def rows(monkeypatch):
    """How many rows go through the network, and at which timestep, call by call."""
    seen = []
    own = UNetBackbone._outputs

    def watched(self, z, step, conditioning, embedded, halves):
        seen.append((len(z) * len(halves), step.time))
        return own(self, z, step, conditioning, embedded, halves)

    monkeypatch.setattr(UNetBackbone, "_outputs", watched)
    return seen


def run(folder, *more):
    return main([*TINY, f"run.folder={folder}", *more])


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("sd_turbo", [999]),
        ("sdxl_turbo", [999]),
        ("hyper_sdxl", [800]),
        ("dmd2_sdxl", [999, 749, 499, 249]),
    ],
)
def test_one_row_goes_through_the_network_at_each_published_timestep(name, times, tmp_path, rows):
    assert run(tmp_path / "run", f"backbone={name}") == 0
    assert rows == [(1, time) for time in times]
    (row,) = read_csv(tmp_path / "run/results.csv").to_dict("records")
    assert (row["status"], row["network_forward"]) == ("ok", len(times))


def test_their_files_are_those_of_the_record(box, tmp_path):
    pictures = set()
    for name, repos in (
        ("hyper_sdxl", [SDXL, HYPER]),
        ("dmd2_sdxl", [SDXL, DMD2]),
        ("dmd2_sdxl", [SDXL]),  # without the updates
    ):
        more = ["backbone.lora=null"] if len(repos) == 1 else []
        folder = tmp_path / f"{len(pictures)}"
        assert run(folder, f"backbone={name}", "sampler=turbo", *more) == 0
        record = (folder / "run.json").read_text()
        assert all(f"{repo}@{repository(box / 'hub', repo).name}" in record for repo in repos)
        (picture,) = read_csv(folder / "results.csv")["image"]
        pictures.add((folder / picture).read_bytes())
    assert len(pictures) == 3


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("repo", "layout", "pipeline"),
    [(SD_TURBO, "sd", StableDiffusionPipeline), (SDXL_TURBO, "sdxl", StableDiffusionXLPipeline)],
)
def test_latents_are_those_of_the_pipelines_own_call(repo, layout, pipeline, steps, box):
    """Text encoders, heads, sizes and steps, from the same start noise and the same noise of the steps."""
    folder, prompt = repository(box / "hub", repo), "a red cat and a dog"
    backbone = load(Recipe((str(folder),), layout=layout, guidance="none"), CPU, 64, 64)
    theirs = pipeline.from_pretrained(folder, **({"safety_checker": None} if layout == "sd" else {}))
    theirs.scheduler = EulerAncestralDiscreteScheduler.from_config(
        theirs.scheduler.config, timestep_spacing="trailing"
    )
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    expected = theirs(
        prompt=prompt, height=64, width=64, num_inference_steps=steps, guidance_scale=0.0, latents=noise.clone(),
        generator=generator, output_type="latent",
    ).images  # fmt: skip
    process, generator = few(backbone.scheduler_config, steps, 1), torch.Generator().manual_seed(2)
    conditioning = Conditioning.of([backbone.encode(prompt, "")])
    z = process.initial * noise
    for step in process.steps:
        found = backbone.predict(z, step, conditioning, Guider())
        z = process.kernel(found.x0, found.eps, step).sample(torch.randn(noise.shape, generator=generator))
    assert (z - expected).abs().max() < 2e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["backbone=sd_turbo", "sampler.guidance_scale=4"], "sampler.guidance_scale=4 is not read"),
        (["backbone=sd_turbo", "negative=blurry"], "negative=blurry is not read by backbone=sd_turbo"),
        (["backbone=sd_turbo", "method=dymo"], "which backbone=sd_turbo has not"),
        (["backbone=sd_turbo", "method=svdd"], "give sampler.steps above 1"),
        (["backbone=hyper_sdxl", "sampler.steps=2"], "sampler.timesteps=[800] are not sampler.steps=2"),
        (["backbone=hyper_sdxl", "sampler.timesteps=[1000]"], "the largest is 999"),
        (["backbone=hyper_sdxl", "sampler.kernel=cps"], "give sampler.kernel=eta or stochastic"),
        (["backbone=sdxl", "sampler.timesteps=[800]"], "sampler.timesteps=[800] is read with sampler.kind=few"),
        (["backbone=dmd2_sdxl", f"backbone.unet={DMD2}:dmd2_sdxl_1step_unet_fp16.bin"], "is a pickle"),
        (["backbone=lcm", "sampler=turbo"], "sampler=turbo does not fit backbone=lcm"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(options, said, tmp_path, capsys):
    assert run(tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_methods_without_a_pair_run_on_two_steps(tmp_path, rows):
    more = ["method=svdd", "sampler.steps=2", "method.search.candidates=2", "reward=jpeg_compressibility"]
    assert run(tmp_path / "run", "backbone=sd_turbo", *more) == 0
    assert {time for _, time in rows} == {999, 499}


def test_what_a_network_does_without_has_a_part_in_the_identity(tmp_path):
    found = {}
    for name, more in (
        ("turbo", []),
        ("pair", ["backbone.guidance=pair"]),
        ("listed", ["sampler.timesteps=[999]"]),
    ):
        assert run(tmp_path / name, "backbone=sd_turbo", *more) == 0
        found[name] = json.loads((tmp_path / name / "run.json").read_text())["identity"]
    assert found["turbo"]["backbone"]["guidance"] == "none"
    assert "guidance" not in found["pair"]["backbone"]
    assert found["turbo"]["sampler"]["start"] == "level"
    assert found["listed"]["sampler"]["timesteps"] == [999]
    assert run(tmp_path / "many", "backbone=sd15", "sampler.steps=2") == 0
    other = json.loads((tmp_path / "many/run.json").read_text())["identity"]["sampler"]
    assert not {"timesteps", "start", "kernel"} & other.keys()
