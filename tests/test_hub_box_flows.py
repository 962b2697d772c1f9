"""Flow transformers from the hub's cache to pictures, with real names and layouts and tiny weights."""

import json
import re

import pytest
from hub_box import FAMILIES, FLUX, SD35, SD35_LARGE, forget_models, repository

from align.__main__ import main
from align.checkpoints.layout import FORMS
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.places import group_choices
from align.store.csvfile import read_csv

pytestmark = pytest.mark.usefixtures("at_home")
FLOWS = [
    *(name for name in group_choices("backbone") if re.match(r"sd35|flux_|flow_grpo|nft", name)),
    *FAMILIES,
]
METHODS = {
    "none": [],
    "best_of_n": ["method.particles=2"],
    "dymo": ["method.recurrence.cap=1"],
    "svdd": ["method.search.candidates=2", "reward=jpeg_compressibility"],
    "das": ["method.particles=2"],
}
SMALL = [
    "metrics=none",
    "prompts=text",
    "prompts.text=[a red cat and a blue dog]",
    "sampler.steps=3",
    "backbone.height=64",
    "backbone.width=64",
    "run.gallery=false",
    "run.device=cpu",
]


@pytest.fixture(scope="module", autouse=True)
def _nothing_loaded(at_home):
    yield
    forget_models()


def run(folder, *arguments):
    return main([*SMALL, f"run.folder={folder}", *arguments])


def mends(backbone, method):
    """What the lines say to give where a preset, by itself, does not fit a method."""
    (job,) = jobs_of(parse([f"backbone={backbone}", "method=none"]))
    found = job.config.backbone
    noise = ["sampler.eta=1"] if method in ("svdd", "das") else []
    maps = ["method.objective.semantic=0"] if method == "dymo" and not FORMS[found.layout].maps else []
    pair = method != "dymo" or found.family != "flow" or found.pair
    return [*noise, *maps, *([] if pair else ["method.guidance.rule=velocity"])]


# Those of one kind load and compute alike; the rest is slow.
FIRST = [("sd35_large", "dymo"), ("flux_dev", "dymo"), ("flux_schnell", "svdd"), ("sd35_medium", "das")]


@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        pytest.param(name, method, marks=() if (name, method) in FIRST else pytest.mark.slow)
        for place, name in enumerate(FLOWS)
        for turn, method in enumerate(METHODS)
        if turn == 0 or turn % 2 == place % 2 or (name, method) in FIRST
    ],
)
def test_every_flow_makes_a_picture_by_every_kind_of_method(backbone, method, tmp_path):
    assert (
        run(
            tmp_path / "run",
            f"backbone={backbone}",
            f"method={method}",
            *METHODS[method],
            *mends(backbone, method),
        )
        == 0
    )
    table = read_csv(tmp_path / "run/results.csv")
    assert list(table["status"]) == ["ok"]
    row = table.iloc[0]
    guided = method in ("dymo", "das")
    assert (row["network_backward"] > 0) == guided
    assert row["network_forward"] >= 3
    assert row["nonfinite_gradients"] == 0


def test_the_plan_tells_the_memory(tmp_path, capsys):
    assert run(tmp_path / "run", "backbone=flux_dev", "method=none") == 0
    assert re.search(
        r"memory   \d+\.\d GB of weights, \d+\.\d GB a row, text encoders \d+\.\d GB while prompts are read",
        capsys.readouterr().out,
    )


def test_doctor_tells_the_memory(capsys):
    assert main(["doctor", "backbone=sd35_large", "metrics=none"]) == 0
    assert "backbone sd35_large can run; memory: 0.0 GB of weights" in capsys.readouterr().out


def test_without_t5_its_files_are_not_asked_for(at_home, away, tmp_path, capsys):
    folder = repository(at_home / "hub", SD35_LARGE)
    away(folder / "text_encoder_3/model.safetensors.index.json")
    away(folder / "tokenizer_3/tokenizer.json")
    assert run(tmp_path / "with", "backbone=sd35_large", "method=none") == 3
    assert "'text_encoder_3/model*'" in capsys.readouterr().err  # whether it is in shards is not known
    assert run(tmp_path / "without", "backbone=sd35_large", "method=none", "backbone.t5=false") == 0
    kept = json.loads((tmp_path / "without/run.json").read_text())
    assert kept["identity"]["backbone"]["t5"] is False


@pytest.mark.parametrize(("name", "repo"), [("sd35_medium", SD35), ("flux_dev", FLUX)])
def test_nothing_there_is_told_with_the_gate_and_what_fetches_only_what_is_read(
    name, repo, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert run(tmp_path / "run", f"backbone={name}", "method=none") == 3
    error = capsys.readouterr().err
    assert (
        f"\n  {repo} is gated: accept its terms at https://huggingface.co/{repo}, then give your token in HF_TOKEN"
        in error
    )
    (command,) = [line for line in error.splitlines() if line.startswith(f"  hf download {repo} ")]
    assert "'transformer/diffusion_pytorch_model*'" in command
    assert "flux1-dev" not in command
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["backbone.storage=float8", "backbone.attention=_native_math"])
def test_a_switch_that_changes_bytes_is_another_picture(option, tmp_path):
    keys = []
    for number, more in enumerate(([], [option])):
        folder = tmp_path / str(number)
        assert run(folder, "backbone=flux_dev", "method=none", *more) == 0
        keys.append(read_csv(folder / "results.csv").iloc[0]["key"])
    assert keys[0] != keys[1]


def test_a_comparison_is_planned_with_each_methods_own_numbers(capsys):
    command = [
        "table",
        "compare",
        "backbone=flux_dev",
        "sampler.steps=4",
        "budget.calls=16",
    ]
    assert main([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    for spent in (
        "sampler.steps=16, which takes 16",
        "method.particles=4 sampler.steps=4, which takes 16",
        "method.search.candidates=5 sampler.steps=4, which takes 16",
        "method.local_search.drafts=1 method.local_search.children=[2, 2, 3] sampler.steps=4",
    ):
        assert f"16 calls a picture: {spent}" in said
