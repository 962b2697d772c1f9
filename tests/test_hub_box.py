"""Every backbone from the hub's cache to pictures, with real names and layouts and tiny weights."""

import pytest
import torch
from hub_box import (
    FIXED_VAE,
    SD15,
    SDXL,
    forget_models,
    repository,
    write_backbones,
    write_sd,
)

from align.__main__ import main
from align.config.places import group_choices
from align.runner import build
from align.store.csvfile import read_csv

NAMES = [
    name
    for name in group_choices("backbone")
    if name != "alignprop_sd15" and not name.startswith(("shapes", "toy_"))
]
CHEAP = [
    "method=none",
    "metrics=none",
    "prompts=text",
    "prompts.text=[a red cat,two dogs]",
    "sampler.steps=2",
    "backbone.height=32",
    "backbone.width=64",
    "run.batch_size=2",
    "run.gallery=false",
    "run.device=cpu",
]


@pytest.fixture(autouse=True)
def _nothing_loaded(at_home):
    yield
    forget_models()


@pytest.fixture
def without(box, away):
    """Take a file of a repository away for the time of a test."""
    return lambda repo, name: away(repository(box / "hub", repo) / name)


STEPS = {"hyper_sdxl": "sampler.steps=1"}
"""Of backbones whose sampler lists its timesteps."""


def run(folder, *arguments):
    return main([*CHEAP, f"run.folder={folder}", *arguments])


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_makes_pictures(name, tmp_path):
    assert run(tmp_path / "run", f"backbone={name}", STEPS.get(name, "sampler.steps=2")) == 0
    assert set(read_csv(tmp_path / "run/results.csv")["status"]) == {"ok"}
    text = (tmp_path / "run/run.json").read_text()
    assert f'"backbone {name}": ' in text


def test_the_box_is_small_and_always_the_same(box, tmp_path):
    write_backbones(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [(box / "hub" / path).read_bytes() == (tmp_path / path).read_bytes() for path in files].count(
        False
    ) == 0
    sizes = {}
    for path in files:
        sizes[path.parts[0]] = sizes.get(path.parts[0], 0) + (tmp_path / path).stat().st_size
    assert max(sizes.values()) < 2_000_000, sizes


def test_the_commit_is_recorded(box, tmp_path):
    assert run(tmp_path / "run", "backbone=dpo_sdxl") == 0
    text = (tmp_path / "run/run.json").read_text()
    for repo in (SDXL, FIXED_VAE, "mhdang/dpo-sdxl-text2image-v1"):
        assert f"{repo}@{repository(box / 'hub', repo).name}" in text


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_full_files_are_read_for_float32(name, tmp_path, without):
    repo = {"sd15": SD15, "sdxl": SDXL}[name]
    without(repo, "unet/diffusion_pytorch_model.fp16.safetensors")
    assert run(tmp_path / "run", f"backbone={name}", "backbone.dtype=float32") == 0


@pytest.mark.parametrize(
    ("name", "repo", "file", "more"),
    [
        ("sd15", SD15, "tokenizer/merges.txt", ""),
        ("sdxl", SDXL, "text_encoder_2/model.fp16.safetensors", ""),
        ("sdxl", FIXED_VAE, "config.json", " vae"),
        ("kto_sd15", "jacklishufan/diffusion-kto", "unet/diffusion_pytorch_model.safetensors", " unet"),
    ],
)
def test_a_missing_file_is_named_with_its_command(name, repo, file, more, tmp_path, without, capsys):
    gone = without(repo, file)
    if file.endswith(".fp16.safetensors"):
        without(repo, file.replace(".fp16", ""))
    assert run(tmp_path / "run", f"backbone={name}") == 3
    error = capsys.readouterr().err
    assert f"backbone {name}{more}: " in error
    assert gone.name in error
    assert f"\n  hf download {repo} {file}\n" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_of_pickles_says_how_they_are_converted(tmp_path, capsys):
    write_sd(tmp_path / "sd", 1)
    (tmp_path / "sd/unet/diffusion_pytorch_model.safetensors").rename(
        tmp_path / "sd/unet/diffusion_pytorch_model.bin"
    )
    assert run(tmp_path / "run", "backbone=sd15", f"backbone.weights={tmp_path / 'sd'}") == 3
    assert (
        "this converts them: python -c 'from diffusers import StableDiffusionPipeline"
        in capsys.readouterr().err
    )


def test_a_broken_index_is_one_line_before_any_work(tmp_path, capsys):
    write_sd(tmp_path / "sd", 1)
    (tmp_path / "sd/unet/diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "sd/unet/diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    capsys.readouterr()
    assert run(tmp_path / "run", "backbone=sd15", f"backbone.weights={tmp_path / 'sd'}") == 3
    error = capsys.readouterr().err
    assert error.startswith("align: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_doctor_refuses_to_fetch_offline(capsys, without):
    without(SD15, "vae/config.json")
    assert main(["doctor", "--fetch", "backbone=sd15", "metrics=none"]) == 3
    error = capsys.readouterr().err
    assert "HF_HUB_OFFLINE is set" in error
    assert f"hf download {SD15} vae/config.json" in error


def test_doctor_fetches_what_is_missing_and_looks_again(capsys, without, monkeypatch, box):
    gone = without(SD15, "vae/config.json")
    asked = []

    def fetch(reference, names):
        asked.append((reference.repo, list(names)))
        gone.write_bytes(gone.with_name(f"{gone.name}.away").read_bytes())

    monkeypatch.setattr("align.checkpoints.fetch.fetch_hub", fetch)
    try:
        assert main(["doctor", "--fetch", "backbone=sd15", "metrics=none"]) == 0
    finally:
        gone.unlink(missing_ok=True)
    assert asked == [(SD15, ["vae/config.json"])]
    assert "fetching backbone sd15: vae/config.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["doctor", "--fetch", "-m", "backbone=sd15,spo_sd15", "metrics=none", "method=none"],
        ["table", "dymo_table1", "--only", "plain,spo", "--fetch", "metrics=none"],
    ],
    ids=["sweep", "table"],
)
def test_all_runs_of_a_command_are_fetched_for(command, capsys, without):
    without(SD15, "vae/config.json")
    without("SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep", "vae/config.json")
    assert main(command) == 3
    out = capsys.readouterr()
    assert "fetching backbone sd15: vae/config.json" in out.out
    assert "fetching backbone spo_sd15: vae/config.json" in out.out
    assert "HF_HUB_OFFLINE is set" in out.err


def test_doctor_looks_at_every_backbone_of_a_sweep(capsys, without):
    without("SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep", "vae/config.json")
    assert main(["doctor", "-m", "backbone=sd15,spo_sd15"]) == 3
    out = capsys.readouterr().out
    assert "backbone sd15 can run\n" in out
    assert "backbone spo_sd15 cannot run yet\n" in out


def test_doctor_has_nothing_to_fetch(capsys):
    assert main(["doctor", "--fetch", "backbone=sdxl", "metrics=none"]) == 0
    assert "all files of this configuration are there" in capsys.readouterr().out


def test_alternatives_stand_in_for_the_presets_weights_only(box, tmp_path, monkeypatch, capsys):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    write_sd(repository(cache, "runwayml/stable-diffusion-v1-5"), 1)
    assert run(tmp_path / "run", "backbone=sd15") == 0
    assert "runwayml/stable-diffusion-v1-5@" in (tmp_path / "run/run.json").read_text()
    assert run(tmp_path / "own", "backbone=sd15", "backbone.weights=me/mine") == 3
    assert "hf download me/mine" in capsys.readouterr().err


def test_the_wrong_layout_is_one_line(tmp_path):
    from align.commands.parser import parse
    from align.config.compose import jobs_of
    from align.errors import WeightsError
    from align.runner.files import Files

    (job,) = jobs_of(parse(["backbone=sdxl", f"backbone.unet={SD15}:unet", *CHEAP]))
    with pytest.raises(WeightsError, match=r"not of backbone\.layout=sdxl"):
        build._backbone(job.config.backbone, Files(job.config).pieces, torch.device("cpu"))
