"""The Python API: docs/python.md runs as it stands, and what cannot be had is one line."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny import save_pipeline

import align
from align import borrowed
from align.__main__ import main
from align.config.errors import ConfigError
from align.pictures import PictureError
from align.rewards.base import Reward
from align.store.errors import ReportError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    made, better, table, run = (names[name] for name in ("made", "better", "table", "run"))
    # The same modules, prompts and options are the same pictures, whoever holds the modules.
    assert [one.image.tobytes() for one in made] == [one.image.tobytes() for one in better]
    assert made[0].cost["network_backward"] == 8
    assert made[0]._repr_png_().startswith(b"\x89PNG")
    assert list(table.columns[:2]) == ["prompt", "shapes_hps"]
    assert table["shapes_hps"].notna().all()
    assert len(run.rows) == 2
    assert run.image(1).size == (64, 64)
    with pytest.raises(PictureError, match=r"there is no row 99 in .*: it has 2"):
        run.image(99)


def test_a_sample_has_the_bytes_of_the_command(tmp_path):
    options = ["sampler.steps=3", "run.batch_size=2", "seed=5"]
    command = [*options, "prompts=text", "prompts.text=[a red circle]", "run.gallery=false", "metrics=none"]
    assert main([*command, f"run.folder={tmp_path / 'run'}"]) == 0
    (made,) = align.sample("a red circle", *options[:2], seed=5)
    assert made.image.tobytes() == align.open_run(tmp_path / "run").image(0).tobytes()


def test_prompts_are_texts_of_any_kind():
    texts = ["${seed}", 'a "red" circle, [b]=c', "line\nend"]
    made = align.sample(texts, "sampler.steps=1")
    assert [one.prompt for one in made] == texts


@pytest.fixture
def pipeline(tmp_path):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    save_pipeline(tmp_path)
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(tmp_path / "vae"),
        unet=UNet2DConditionModel.from_pretrained(tmp_path / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(tmp_path / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(tmp_path / "tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(tmp_path / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


OPTIONS = ("sampler.steps=2", "backbone.attention_stride=null", "semantics=auto")


def test_a_pipeline_is_afterwards_as_it_was(pipeline):
    pipeline.unet.train().requires_grad_(True)
    mode = torch.get_deterministic_debug_mode()
    before = {name: type(one) for name, one in pipeline.unet.attn_processors.items()}
    made = align.improve(pipeline, ["a b", "c"], *OPTIONS, reward="shapes_pick", samples=2)
    assert [(one.prompt, one.sample, one.error) for one in made] == [
        ("a b", 0, None),
        ("a b", 1, None),
        ("c", 0, None),
        ("c", 1, None),
    ]
    assert made[0].image.size == (32, 32)
    assert pipeline.unet.training
    assert all(one.requires_grad for one in pipeline.unet.parameters())
    assert {name: type(one) for name, one in pipeline.unet.attn_processors.items()} == before
    assert torch.get_deterministic_debug_mode() == mode


def test_recomputing_is_the_pipelines_own_again(pipeline):
    pipeline.unet.enable_gradient_checkpointing()

    def own():
        layers = [*pipeline.unet.modules(), *pipeline.vae.modules()]
        return [{name: vars(one).get(name) for name in borrowed._RECOMPUTING} for one in layers]

    before = own()
    for more in ((), ("backbone.checkpointing=true",), ()):
        (made,) = align.improve(pipeline, "a red circle", *OPTIONS, *more, reward="shapes_pick")
        assert made.error is None
        assert own() == before


def test_options_of_a_call_count_or_are_refused(pipeline):
    given = (*OPTIONS, "seed=3", "samples=2", "negative=c")
    made = align.improve(pipeline, iter(["a", "b"]), *given, method="none", reward="shapes_pick")
    assert [(one.prompt, one.seed, one.sample) for one in made] == [(p, 3, k) for p in "ab" for k in (0, 1)]
    (other,) = align.improve(pipeline, "a", *OPTIONS, method="none", reward="shapes_pick", seed=3)
    assert other.image.tobytes() != made[0].image.tobytes()
    for option in ("backbone.compile=true", "backbone.lora=x.safetensors", "backbone.dtype=float16"):
        with pytest.raises(ConfigError, match="the pipeline has its own"):
            align.improve(pipeline, "a", *OPTIONS, option, reward="shapes_pick")


def test_prompts_of_a_call_are_taken_as_the_command_takes_them(pipeline):
    given = (*OPTIONS, "prompts.limit=2", "prompts.offset=1")
    made = align.improve(pipeline, ["a", "b", "b", "c"], *given, method="none", reward="shapes_pick")
    assert [(one.prompt, one.sample) for one in made] == [("b", 0), ("b", 1)]


def test_loras_of_the_pipeline_count(pipeline):
    from peft import LoraConfig

    (plain,) = align.improve(pipeline, "a", *OPTIONS, method="none", reward="shapes_pick")
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    (adapted,) = align.improve(pipeline, "a", *OPTIONS, method="none", reward="shapes_pick")
    assert plain.image.tobytes() != adapted.image.tobytes()


def test_what_cannot_be_improved_is_one_line(pipeline):
    class Blind(Reward):
        differentiable = False

        def score(self, pictures, prompts, step=None):
            return pictures.mean((1, 2, 3))

    with pytest.raises(ConfigError, match="Blind has no name: give its class one"):
        align.improve(pipeline, "a", *OPTIONS, reward=Blind())
    Blind.name = "blind"
    with pytest.raises(ConfigError, match="blind has none: give another reward"):
        align.improve(pipeline, "a", *OPTIONS, reward=Blind())
    for kind, reward in (("NoneType", None), ("SimpleNamespace", SimpleNamespace(differentiable=True))):
        with pytest.raises(ConfigError, match=f"{kind} is no reward"):
            align.improve(pipeline, "a", *OPTIONS, reward=reward)
    with pytest.raises(ConfigError, match="no UNet2DConditionModel"):
        align.improve(SimpleNamespace(), "a", reward="shapes_pick")
    with pytest.raises(ConfigError, match="no such reward"):
        align.improve(pipeline, "a", *OPTIONS, reward="shapes_pik")
    for part in ("text_encoder", "tokenizer", "scheduler"):
        kept = getattr(pipeline, part)
        setattr(pipeline, part, None)
        with pytest.raises(ConfigError, match=f"StableDiffusionPipeline has no {part}: give"):
            align.improve(pipeline, "a", *OPTIONS, reward="shapes_pick")
        setattr(pipeline, part, kept)
    pipeline.unet._hf_hook = object()
    with pytest.raises(ConfigError, match="offloads"):
        align.improve(pipeline, "a", *OPTIONS, reward="shapes_pick")


def test_what_cannot_be_had_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="did you mean dymo"):
        align.sample("a", method="dimo")
    with pytest.raises(ConfigError, match="give a text"):
        align.sample([])
    with pytest.raises(ConfigError, match="give a text"):
        align.sample(None)
    with pytest.raises(ConfigError, match="2 pictures for 1 prompts"):
        align.score([Image.new("RGB", (8, 8))] * 2, ["a"], [])
    with pytest.raises(ConfigError, match="there is no metric 'shapes_pic'; did you mean shapes_pick"):
        align.score([], [], ["shapes_pic"])
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ReportError, match="is no run's folder: it has no results"):
            align.open_run(folder)


def test_wrong_kinds_of_arguments_are_one_line():
    grey = Image.new("RGB", (64, 64))
    assert len(align.score(iter([grey]), iter(["a"]), iter(["checker"]))) == 1
    for given, words in (
        (([grey], "a", ["checker"]), "give lists"),
        (([grey], ["a"], "checker"), "give lists"),
        (([torch.zeros(3, 8, 8)], ["a"], ["checker"]), "Tensor is no picture"),
    ):
        with pytest.raises(ConfigError, match=words):
            align.score(*given)
    with pytest.raises(ConfigError, match="one by one"):
        align.sample("a", ["sampler.steps=3"])


def test_the_package_imports_nothing_heavy():
    code = "import sys, align; align.__all__; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        _ = align.sampel
