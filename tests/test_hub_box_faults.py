"""Missing and damaged files of real configurations: an exit code, a line that helps, nothing half done."""

import json
import shlex

import pytest
import torch
from hub_box import FIXED_VAE, SD15, SDXL, forget_models
from rewards.box import BERT, HEAD, HPS, IMAGEREWARD, PICKSCORE, SPM
from safetensors.torch import load_file, save_file

from align.__main__ import main
from align.checkpoints.layout import PICKLES
from align.checkpoints.reference import snapshot
from align.rewards.published import AESTHETIC_HEAD
from align.store.csvfile import read_csv

RUN = [
    "method=dymo",
    "prompts=text",
    "prompts.text=[a red cat and a blue dog]",
    "sampler.steps=2",
    "method.recurrence.cap=1",
    "backbone.height=64",
    "backbone.width=64",
    "run.gallery=false",
    "run.device=cpu",
]
DPO = "mhdang/dpo-sdxl-text2image-v1"
UNET = "unet/diffusion_pytorch_model.safetensors"
HALF = "diffusion_pytorch_model.fp16.safetensors"
FETCH_HEAD = "python -m align doctor --fetch 'metrics.rewards=[aesthetic]'"


@pytest.fixture(autouse=True)
def _nothing_loaded(at_home):
    forget_models()
    yield
    forget_models()


def run(folder, *arguments):
    return main([*RUN, f"run.folder={folder}", *arguments])


def place(box, repo, name):
    """Path of a file; without a repository, in the project's own cache."""
    return box / "align" / name if repo is None else snapshot(repo) / name


@pytest.mark.parametrize(
    ("backbone", "repo", "file", "whose"),
    [
        ("dpo_sdxl", DPO, UNET, "backbone dpo_sdxl unet"),
        ("sdxl", FIXED_VAE, "diffusion_pytorch_model.safetensors", "backbone sdxl vae"),
        ("sdxl", SPM, "sdxl_step-aware_preference_model.bin", f"reward spm_sdxl ({SPM})"),
        ("sdxl", HPS, "HPS_v2_compressed.pt", "reward hpsv2"),
        ("sdxl", BERT, "vocab.txt", f"reward imagereward ({BERT})"),
        ("sdxl", None, HEAD, f"reward aesthetic ({AESTHETIC_HEAD.reference})"),
    ],
)
def test_a_missing_file_is_named_with_its_command(
    backbone, repo, file, whose, at_home, away, tmp_path, capfd
):
    path = away(place(at_home, repo, file))
    assert run(tmp_path / "run", f"backbone={backbone}") == 3
    error = capfd.readouterr().err
    assert f"\n  {whose}: {path.name} in " in error
    assert f"\n  {FETCH_HEAD if repo is None else f'hf download {repo} {file}'}\n" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_the_command_of_the_aesthetic_head_fetches_it(at_home, away, monkeypatch, capfd):
    path = away(place(at_home, None, HEAD))
    asked = []

    def fetch(url, sha256, target):
        asked.append((url, sha256, target))
        target.write_bytes(path.with_name(f"{path.name}.away").read_bytes())

    monkeypatch.setattr("align.checkpoints.fetch.fetch_url", fetch)
    words = shlex.split(FETCH_HEAD)
    assert main(words[3:]) == 0
    assert asked == [(AESTHETIC_HEAD.url, AESTHETIC_HEAD.sha256, path)]
    assert path.is_file()


def cut(path, old):
    path.write_bytes(old.read_bytes()[: old.stat().st_size // 2])


def without_a_tensor(path, old):
    tensors = load_file(old)
    del tensors[sorted(tensors)[3]]
    save_file(tensors, path, metadata={"format": "pt"})


def another_shape(path, old):
    tensors = load_file(old)
    tensors[sorted(tensors)[3]] = torch.zeros(5, 7)
    save_file(tensors, path, metadata={"format": "pt"})


def wrong_keys(path, old):
    torch.save({f"wrong.{key}": value for key, value in torch.load(old, weights_only=True).items()}, path)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def malicious(path, old):
    torch.save({"state_dict": {"a": Bomb(path.with_name("exploded"))}}, path)


def nothing(path, old):
    path.write_bytes(b"")


def other_json(path, old):
    path.write_text("[1, 2]")


def unknown_block(path, old):
    content = json.loads(old.read_text())
    path.write_text(json.dumps(content | {"down_block_types": ["NoSuchBlock"] * 4}))


def odd_heads(path, old):
    content = json.loads(old.read_text())
    content.get("text_config", content)["num_attention_heads"] = 3
    path.write_text(json.dumps(content))


MENDED = {f"unet/{HALF}", "tokenizer/vocab.json", "unet/config.json", "sdxl_step-aware_preference_model.bin"}
"""A file of each kind: weights, words, a config, and a pickle, of which a converted copy is kept."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "backbone", "repo", "file"),
    [
        (cut, "dpo_sdxl", DPO, UNET),
        (without_a_tensor, "sd15", SD15, f"unet/{HALF}"),
        (another_shape, "sd15", SD15, f"unet/{HALF}"),
        (without_a_tensor, "sd15", SD15, f"vae/{HALF}"),
        (cut, "sdxl", FIXED_VAE, "diffusion_pytorch_model.safetensors"),
        (cut, "sd15", SD15, "text_encoder/model.fp16.safetensors"),
        (without_a_tensor, "sd15", SD15, "text_encoder/model.fp16.safetensors"),
        (another_shape, "sdxl", SDXL, "text_encoder_2/model.fp16.safetensors"),
        (cut, "sd15", SD15, "tokenizer/vocab.json"),
        (cut, "sd15", SD15, "tokenizer/merges.txt"),
        (cut, "sd15", SD15, "unet/config.json"),
        (cut, "sd15", SD15, "vae/config.json"),
        (other_json, "sd15", SD15, "text_encoder/config.json"),
        (other_json, "sdxl", SDXL, "model_index.json"),
        (cut, "sdxl", SDXL, "model_index.json"),
        (cut, "sd15", SD15, "scheduler/scheduler_config.json"),
        (cut, "sd15", PICKSCORE, "model.safetensors"),
        (cut, "sd15", PICKSCORE, "tokenizer.json"),
        (other_json, "sd15", PICKSCORE, "config.json"),
        (odd_heads, "sd15", PICKSCORE, "config.json"),
        (odd_heads, "sd15", SD15, "text_encoder/config.json"),
        (other_json, "sd15", SD15, "unet/config.json"),
        (unknown_block, "sd15", SD15, "vae/config.json"),
        (other_json, "sd15", SD15, "scheduler/scheduler_config.json"),
        (wrong_keys, "sdxl", SPM, "sdxl_step-aware_preference_model.bin"),
        (cut, "sdxl", SPM, "sdxl_step-aware_preference_model.bin"),
        (malicious, "sd15", HPS, "HPS_v2_compressed.pt"),
        (nothing, "sd15", HPS, "HPS_v2_compressed.pt"),
        (wrong_keys, "sd15", IMAGEREWARD, "ImageReward.pt"),
        (nothing, "sd15", BERT, "vocab.txt"),
        (cut, "sd15", BERT, "vocab.txt"),
        (wrong_keys, "sd15", None, HEAD),
    ],
)
def test_damage_is_one_line_and_mending_it_is_enough(
    damage, backbone, repo, file, at_home, away, tmp_path, capfd
):
    kept = {path for path in at_home.rglob("*") if path.is_file()}
    path = away(place(at_home, repo, file))
    whole = path.with_name(f"{path.name}.away")
    damage(path, whole)
    assert run(tmp_path / "run", f"backbone={backbone}") == 3
    error = capfd.readouterr().err
    assert torch.get_default_dtype() == torch.float32  # which later runs of the process rely on
    assert error.startswith("align: ")
    assert error.count("\n") == 1, error
    assert str(path if path.suffix in PICKLES else path.parent) in error
    if (tmp_path / "run").exists():  # JSON is read before there is a folder, tensors after
        assert len(read_csv(tmp_path / "run/results.csv")) == 0
        assert not list((tmp_path / "run/images").iterdir())
    converted = at_home / "align/converted"
    new = {one for one in at_home.rglob("*") if one.is_file() and one.parent != converted} - kept
    assert new <= {whole}, "the bomb went off, or something was left"
    assert not list(converted.glob(".*"))

    if file not in MENDED:
        return
    path.unlink()
    path.write_bytes(whole.read_bytes())
    forget_models()
    assert run(tmp_path / "run", f"backbone={backbone}") == 0  # the same folder, now with the right file
    assert list(read_csv(tmp_path / "run/results.csv")["status"]) == ["ok"]


def test_the_bomb_is_live(tmp_path):
    malicious(tmp_path / "x.pt", None)
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "exploded").exists()


@pytest.mark.slow
def test_a_failed_load_costs_the_next_run_of_a_sweep_nothing(at_home, away, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = away(place(at_home, DPO, "unet/config.json"))
    unknown_block(path, path.with_name(f"{path.name}.away"))
    more = ["backbone=dpo_sdxl,sdxl", "run.root=sweep"]
    assert main(["-m", *RUN, *more]) == 3
    (made,) = (path for path in (tmp_path / "sweep").iterdir() if "dpo" not in path.name and path.is_dir())
    assert list(read_csv(made / "results.csv")["status"]) == ["ok"]
    forget_models()
    assert run(tmp_path / "alone", "backbone=sdxl") == 0
    both = [next((folder / "images").iterdir()).read_bytes() for folder in (made, tmp_path / "alone")]
    assert both[0] == both[1]


@pytest.mark.slow
def test_damaged_metrics_are_found_before_any_picture_is_made(at_home, away, tmp_path, monkeypatch):
    path = away(place(at_home, HPS, "HPS_v2_compressed.pt"))
    nothing(path, None)
    built = []
    monkeypatch.setattr("align.runner.build.build_sampler", lambda *given: built.append(given))
    assert run(tmp_path / "run", "backbone=sd15") == 3
    assert not built
