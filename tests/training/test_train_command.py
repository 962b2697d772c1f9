"""``python -m align train spo`` and ``spm``: as published on tiny weights, killed, refused."""

import json
import math
import signal
import time

import pytest
from forked import forked
from tiny import save_pipeline

from align.__main__ import main

PROMPTS = json.dumps(["a cat", "a dog", "a fox", "a quiet morning"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_pipeline(folder)
    return folder


def words(weights, folder, *more):
    """A small training on tiny weights, which follows a reward of the shapes world."""
    return [
        "train",
        "spo",
        "backbone=sd15",
        f"backbone.weights={weights}",
        "backbone.dtype=float32",
        "backbone.height=32",
        "backbone.width=32",
        "backbone.attention_stride=1",
        "reward=shapes_pick",
        "training.examine.judges=[shapes_aesthetic]",
        "training.examine.prompts=shapes_val_pair",
        "training.examine.number=2",
        "training.examine.every=1",
        "training.spo.threshold=0",
        "training.learning_rate=0.001",
        "training.each=2",
        "training.rounds=2",
        "training.batch=5",
        "training.spo.candidates=2",
        "sampler.steps=6",
        "prompts=text",
        f"prompts.text={PROMPTS}",
        f"run.folder={folder}",
        "run.device=cpu",
        *more,
    ]


def lines_of(folder, what):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["what"] == what]


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(weights, folder)) == 0
    return folder


def test_a_training_says_what_it_costs_and_what_came_of_it(weights, tmp_path, capsys):
    assert main(words(weights, tmp_path / "run", "training.rounds=1")) == 0
    said = capsys.readouterr().err
    assert "a prompt takes 7 network evaluations under guidance, 4 decoded and judged pictures" in said
    assert "there are 4 prompts" in said
    assert "round 1 of 1" in said
    assert f"the best weights are in {tmp_path / 'run' / 'best'}" in said
    first = lines_of(tmp_path / "run", "update")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_another_training_is_refused_in_its_folder(weights, whole, capsys):
    assert main(words(weights, whole, "training.spo.beta=5")) == 2
    assert (
        "holds a training with training.spo.beta=10.0, not 5.0: give run.folder=OTHER"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_kill_costs_a_round_at_most(weights, whole, tmp_path):
    folder = tmp_path / "run"
    started = forked(main, words(weights, folder))
    while not (folder / "checkpoint.safetensors").exists():
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert main(words(weights, folder)) == 0
    for name in ("checkpoint.safetensors", "last/pytorch_lora_weights.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert lines_of(folder, "update") == lines_of(whole, "update")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["sampler.eta=0"], "draws no noise to choose from: give sampler=ddim_ancestral"),
        (["sampler.steps=4"], "training.spo.first=4 is not before the end of 4 steps"),
        (["training.examine.judges=[shapes_pick]"], "the first decides which weights are best"),
        (["training.examine.judges=[shapes_pik]"], "is no reward; did you mean shapes_pick"),
        (["training.examine.prompts=text"], "prompts"),
        (["backbone.compile=true"], "backbone.compile=true passes no gradient"),
        (["training.boards=[wandb]"], "training.boards names wandb, which is not installed"),
        (["training.learning_rate=-1"], "is out of range"),
        (["training.rate=1"], "unknown option training.rate"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(weights, tmp_path, capsys, more, said):
    assert main(words(weights, tmp_path / "run", *more)) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert err.count("\\n") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train"], "give first what is trained: alignprop, dpo"),
        (["train", "backbone=shapes"], "give first what is trained"),
        (["train", "sop"], "there is no training sop; did you mean spm or spo"),
        (["training=spo"], "give python -m align train spo"),
    ],
)
def test_a_command_that_names_no_training(argv, said, capsys):
    assert main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("backbone", ["sd15", "sdxl"])
def test_the_published_settings_run_on_tiny_weights(backbone, tmp_path):
    """All numbers as they are, but for two prompts and one round."""
    common = [
        "train",
        "spo",
        f"backbone={backbone}",
        "backbone.height=64",
        "backbone.width=64",
        "prompts=text",
        f"prompts.text={PROMPTS}",
        "prompts.limit=2",
        "training.rounds=1",
        "training.spo.threshold=0",
        "training.examine.number=2",
        f"run.folder={tmp_path / 'run'}",
        "run.device=cpu",
    ]
    assert main(common) == 0
    record = json.loads((tmp_path / "run" / "training.json").read_text())["config"]
    numbers = ("lora.rank", "batch", "accumulation", "learning_rate", "spo.candidates", "spo.inner")
    assert [record[f"training.{name}"] for name in numbers] == {
        "sd15": [4, 40, 1, 6e-5, 4, 0],
        "sdxl": [64, 8, 2, 1e-5, 2, 3],
    }[backbone]
    assert (record["sampler.steps"], record["sampler.eta"], record["sampler.guidance_scale"]) == (
        20,
        1.0,
        5.0,
    )
    assert lines_of(tmp_path / "run", "examination")


@pytest.mark.slow
def test_the_preference_model_begins_as_the_clip_and_learns(tmp_path):
    folder = tmp_path / "run"
    common = ["train", "spm", "backbone=shapes", "prompts.limit=6", "sampler.steps=4", "training.each=4"]
    common += ["training.batch=4", "training.warmup=0", "training.examine.number=2", "run.device=cpu"]
    assert main([*common, "training.rounds=2", f"run.root={tmp_path}", f"run.folder={folder}"]) == 0
    found = lines_of(folder, "examination")
    assert {"right", "right_at_0", "right_at_951"} <= found[0].keys()
    assert {path.name for path in (folder / "best").iterdir()} >= {"config.json", "model.safetensors"}
