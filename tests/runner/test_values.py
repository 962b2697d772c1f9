"""How the expected reward is estimated: which files a run needs for it, what is refused, and the way from options to pictures."""

import json

import pytest
import torch
from diffusers import AutoencoderTiny
from fakes import CPU, FakeBackbone, FakeReward, words_graph

from align.__main__ import main
from align.checkpoints.reference import EMBEDDED
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.runner.estimate import network_evaluations
from align.runner.files import Files
from align.runner.plan import identity
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.sampling.value_network import ValueNetwork, ValueShape, save_value_network
from align.semantics.sources import PromptGraphs
from align.store.csvfile import read_csv
from runner.test_build import _none_needed, command

SVDD = ["method=svdd", "sampler=ddim_ancestral", "method.search.candidates=3"]
NETWORK, SMALL = "method.value.estimate=network", "method.value.estimate=small_decoder"


def compose(*overrides):
    return jobs_of(parse(list(overrides)))[0].config


@pytest.fixture
def fake_reward(monkeypatch, reward):
    monkeypatch.setattr(build, "load_reward", lambda name, device: reward)
    monkeypatch.setattr("align.rewards.registry.REWARDS", _none_needed())
    yield reward
    build._backbone.cache_clear()


@pytest.fixture
def value_network(tmp_path):
    """A network for the tiny pipeline's latents and text, random."""
    torch.manual_seed(0)
    shape = ValueShape(
        (4, 8, 8), 16, ("shapes_pick", "shapes_hps"), (0.0, 0.0), (1.0, 1.0), width=16, layers=1
    )
    save_value_network(ValueNetwork(shape), tmp_path / "value")
    return tmp_path / "value"


@pytest.fixture
def small_decoder(tmp_path):
    """A small decoder for the tiny pipeline's latents, random."""
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(4,) * 3,
        decoder_block_out_channels=(4,) * 3,
        num_encoder_blocks=(1,) * 3,
        num_decoder_blocks=(1,) * 3,
    ).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(("more", "folder"), [([SMALL], "small_decoder"), ([NETWORK], "value_network")])
def test_null_means_what_comes_with_the_shapes_world(more, folder):
    (needed,) = Files(compose(*SVDD, *more)).value
    assert needed.folder == EMBEDDED["shapes"] / folder
    assert needed.mend.startswith("python scripts/train_")
    assert not needed.missing()


@pytest.mark.parametrize(
    ("backbone", "repository"),
    [("sd15", "madebyollin/taesd"), ("lcm", "madebyollin/taesd"), ("sdxl", "madebyollin/taesdxl")],
)
def test_null_means_the_published_decoder_of_a_family(backbone, repository, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    own = ["sampler=lcm"] if backbone == "lcm" else []
    config = compose(f"backbone={backbone}", "reward=jpeg_compressibility", *SVDD, *own, SMALL)
    (needed,) = Files(config).value
    assert needed.missing() == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert needed.mend == f"hf download {repository} config.json diffusion_pytorch_model.safetensors"
    assert needed in Files(config).all()


def test_a_missing_decoder_ends_a_run_before_it_starts(tmp_path, monkeypatch, capsys, pipeline_folder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("align.rewards.registry.REWARDS", _none_needed())
    more = [*SVDD, SMALL, "method.value.weights=madebyollin/taesd"]
    assert main(command(pipeline_folder, tmp_path / "run", *more)) == 3
    assert "hf download madebyollin/taesd config.json" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.csv").exists()


def test_looks_are_guided_as_the_prediction_is(reward, backbone):
    config = compose(*SVDD, "method.value.estimate=looks", "sampler.guidance_rescale=0.7")
    value = build.assemble(config, backbone, reward, None, Calls(2), torch.device("cpu")).parts.judge.value
    assert (value.guider.scale, value.guider.rescale) == (config.sampler.guidance_scale, 0.7)


@pytest.mark.parametrize("estimate", ["posterior", "looks"])
def test_other_estimates_need_no_files(estimate):
    assert Files(compose(*SVDD, f"method.value.estimate={estimate}")).value == []
    assert Files(compose("method=none")).value_piece is None


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([*SVDD, "method.value.weights=somewhere"], r"method\.value\.weights.*posterior.*give"),
        (["method=none", NETWORK], r"method=none compares none: give method=svdd"),
        ([*SVDD, "method.value.steps=5"], r"is read with method.value.estimate=lookahead only"),
        (["method=best_of_n", "method.value.estimate=looks"], r"method=best_of_n compares none"),
        (["experiment=toy_gmm", *SVDD, SMALL], r"small_decoder: backbone=toy_gmm decodes nothing"),
        (
            ["experiment=toy_gmm", *SVDD, NETWORK],
            r"none comes with backbone=toy_gmm: give method\.value\.weights",
        ),
        (
            ["backbone=sd15", "reward=jpeg_compressibility", *SVDD, NETWORK],
            r"none comes with backbone=sd15: give method\.value\.weights=FOLDER",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_mend(more, words):
    with pytest.raises(ConfigError, match=words):
        compose(*more)


def test_a_reward_that_the_network_does_not_know_is_refused(
    fake_reward, value_network, pipeline_folder, tmp_path, capsys
):
    more = [*SVDD, NETWORK, f"method.value.weights={value_network}", "reward=shapes_aesthetic"]
    assert main(command(pipeline_folder, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert "trained for shapes_pick, shapes_hps, not shapes_aesthetic" in error
    assert len(error.strip().splitlines()) == 1


def test_a_network_for_other_latents_is_told(fake_reward, tmp_path, pipeline_folder, capsys):
    shape = ValueShape((8, 8, 8), 16, ("shapes_pick",), (0.0,), (1.0,), width=16, layers=1)
    save_value_network(ValueNetwork(shape), tmp_path / "value")
    more = [*SVDD, NETWORK, f"method.value.weights={tmp_path / 'value'}", "reward=shapes_pick"]
    assert main(command(pipeline_folder, tmp_path / "run", *more)) == 3
    assert "reads latents (8, 8, 8)" in capsys.readouterr().err


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("judge", ["reward=shapes_pick", "reward=sum"])
def test_svdd_mc_runs_from_the_command(judge, fake_reward, value_network, pipeline_folder, tmp_path):
    more = [*SVDD, NETWORK, f"method.value.weights={value_network}", judge]
    if judge == "reward=sum":
        more += ["reward.terms.shapes_pick=1", "reward.terms.shapes_hps=0.5"]
    assert main(command(pipeline_folder, tmp_path / "run", *more)) == 0
    table = read_csv(tmp_path / "run" / "results.csv")
    names = ["network_forward", "decoder_forward", "reward_forward", "value_forward"]
    assert {tuple(row) for row in table[names].to_numpy().tolist()} == {(3, 1, 0, 2 * 3)}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "method svdd network" in json.dumps(record)


def test_svdd_runs_with_a_small_decoder(fake_reward, small_decoder, pipeline_folder, tmp_path):
    more = [*SVDD, SMALL, f"method.value.weights={small_decoder}", "reward=shapes_pick"]
    assert main(command(pipeline_folder, tmp_path / "run", *more)) == 0
    table = read_csv(tmp_path / "run" / "results.csv")
    names = ["network_forward", "decoder_forward", "reward_forward", "value_forward"]
    assert {tuple(row) for row in table[names].to_numpy().tolist()} == {(7, 7, 6, 0)}


def test_what_the_files_hold_decides_a_picture_and_not_where_they_are():
    config = compose(*SVDD, NETWORK, "method.value.weights=here")
    other = compose(*SVDD, NETWORK, "method.value.weights=there")
    keys = [identity(one, "b", {"shapes_pick": "r"}, None, "v") for one in (config, other)]
    assert keys[0] == keys[1]
    assert identity(config, "b", {"shapes_pick": "r"}, None, "w") != keys[0]


@pytest.mark.parametrize(
    ("estimate", "evaluations"),
    [
        ("posterior", 1 + 24 * 3),
        ("network", 25),
        ("looks", 1 + 24 * 3 * 4),
        ("lookahead", 1 + 3 * (23 * 2 + 1)),
    ],
)
def test_the_estimate_of_the_cost_knows_the_value(estimate, evaluations):
    config = compose(*SVDD, "sampler.steps=25", f"method.value.estimate={estimate}")
    assert network_evaluations(config) == (evaluations, evaluations)


@pytest.mark.parametrize("estimate", ["lookahead", "looks"])
@pytest.mark.parametrize(
    "options",
    [
        ["method=svdd"],
        ["method=dsearch", "method.particles=4", "method.search.schedule=all"],
        ["method=dsearch_r", "method.particles=4", "method.search.replace=0.5"],
        ["method=fk"],
        ["method=das", "method.particles=2"],
    ],
    ids=lambda options: options[0],
)
def test_the_plan_tells_what_further_evaluations_of_valued_states_come_to(options, estimate):
    few = f"method.value.{'looks' if estimate == 'looks' else 'steps'}=3"
    config = compose(*options, few, f"method.value.estimate={estimate}", "sampler.steps=5", "sampler.eta=1")
    pairs, number = PromptGraphs(words_graph).pairs, config.method.returned
    sampler = build.assemble(config, FakeBackbone(), FakeReward(), pairs, Calls(1), CPU)
    made = sampler.sample([Request("red cat blue dog", sample=k) for k in range(number)])
    least, most = network_evaluations(config)
    assert least == most == sum(one.cost.network_forward for one in made) / number
