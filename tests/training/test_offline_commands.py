"""``python -m align train dpo|kto|alignprop`` at the settings of Stable Diffusion, on tiny weights."""

import json
import math

import pytest
from tiny import save_pipeline

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from training.test_picture_pairs import table

PROMPTS = ["a cat", "a dog", "a fox", "a quiet morning"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_pipeline(folder)
    return folder


def train(kind, weights, folder, *more):
    return main(
        [
            "train",
            kind,
            "backbone=sd15",
            f"backbone.weights={weights}",
            "backbone.dtype=float32",
            "backbone.height=32",
            "backbone.width=32",
            "backbone.attention_stride=1",
            "training.examine.judges=[]",
            "training.accumulation=1",
            "training.rounds=1",
            "training.each=4",
            "training.batch=4",
            "sampler.steps=3",
            "prompts=text",
            f"prompts.text={json.dumps(PROMPTS)}",
            f"run.root={folder}",
            f"run.folder={folder}/run",
            *more,
        ]
    )


def updates(folder):
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["what"] == "update"]


JPEG = ("training.pairs.labels=reward", "reward=jpeg_compressibility", "training.pairs.each=3")


def test_dpo_of_a_data_set_begins_at_ln_2(weights, tmp_path):
    data = ("training.pairs.labels=data", f"training.pairs.path={table(tmp_path)}")
    assert train("dpo", weights, tmp_path, *data, "training.each=3", "training.batch=3") == 0
    (update,) = updates(tmp_path)
    assert update["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert update["gradient_norm"] > 0
    assert (tmp_path / "run" / "best" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_pairs_are_drawn_once_and_a_training_goes_on_as_if_nothing_had_been(kind, weights, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(kind, weights, whole, *JPEG, "training.rounds=2") == 0
    assert train(kind, weights, stopped, *JPEG) == 0
    drawn = stopped / "pairs-sd15-seed0" / "portion-00000.safetensors"
    made = drawn.stat().st_mtime_ns
    assert train(kind, weights, stopped, *JPEG, "training.rounds=2") == 0
    assert drawn.stat().st_mtime_ns == made
    for name in ("last/pytorch_lora_weights.safetensors", "checkpoint.safetensors"):
        assert (whole / "run" / name).read_bytes() == (stopped / "run" / name).read_bytes()


def test_alignprop_follows_a_reward(weights, tmp_path):
    assert train("alignprop", weights, tmp_path, "reward=shapes_aesthetic") == 0
    (update,) = updates(tmp_path)
    assert update["loss"] == pytest.approx(-update["reward"])
    assert update["finite"] == 1
    assert update["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("alignprop", ("reward=jpeg_compressibility",), "has no gradient, which AlignProp follows"),
        ("dpo", (), "training.pairs.path=null is no data set of pairs"),
        ("kto", ("training.pairs.labels=world",), "captions of the shapes world and not 'a cat'"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_any_work(kind, options, said, weights, tmp_path, capsys):
    assert train(kind, weights, tmp_path, *options) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "backbone", "updates_of"),
    [("dpo", "sd15", 2048), ("dpo", "sdxl", 2048), ("kto", "sd15", 2048), ("alignprop", "sdxl", 128)],
)
def test_the_published_sizes_compose(kind, backbone, updates_of):
    config = jobs_of(parse([f"training={kind}", f"backbone={backbone}"]))[0].config
    training = config.training
    assert training.batch * training.accumulation == training.each == updates_of
    assert config.method.name == "none"
    assert kind == "alignprop" or training.pairs.labels == "data"
