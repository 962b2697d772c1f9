"""Toy densities through the same command as everything else."""

import pytest
import torch

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.runner.default_folder import in_folders
from align.runner.prepare import prepare
from align.store.csvfile import read_csv
from align.toy.problems import REWARDS


@pytest.fixture(autouse=True)
def _forget_backbones():
    yield
    build._backbone.cache_clear()


@pytest.mark.parametrize("name", ["toy_gaussian", "toy_gmm", "toy_gmm2", "toy_swiss_roll"])
def test_plain_sampling_runs(name, tmp_path):
    assert main([f"+experiment={name}", "method=none", "samples=3", f"run.folder={tmp_path}"]) == 0
    table = read_csv(tmp_path / "results.csv")
    assert list(table["status"]) == ["ok"] * 3
    assert list(table["network_forward"]) == [100] * 3
    assert set(table["backbone"]) == {name}


@pytest.mark.parametrize("method", ["best_of_n", "dps"])
def test_the_problems_own_reward_guides_and_selects(method, tmp_path):
    few = ["samples=2", "sampler.steps=5", f"run.folder={tmp_path}"]
    assert main(["experiment=toy_swiss_roll", f"method={method}", *few]) == 0
    table = read_csv(tmp_path / "results.csv")
    assert list(table["status"]) == ["ok"] * 2
    assert set(table["reward"]) == {"toy_swiss_roll"}
    assert (table["reward_forward"] > 0).all()


METHODS = ["none", "best_of_n", "svdd", "dsearch", "fk", "das", "das_released", "smc", "tds", "gradient"]
PROBLEMS = ["toy_gaussian", "toy_gmm", "toy_gmm2", "toy_swiss_roll"]


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        *(("toy_gmm2", method) for method in METHODS),
        *(
            (problem, method)
            for problem in PROBLEMS
            if problem != "toy_gmm2"
            for method in ("best_of_n", "das")
        ),
    ],
)
def test_every_method_tells_the_coordinates_and_filters_the_evidence(problem, method, tmp_path):
    few = ["samples=2", "sampler.steps=4", "run.batch_size=8", f"run.folder={tmp_path}"]
    assert main([f"+experiment={problem}", f"method={method}", *few]) == 0
    table = read_csv(tmp_path / "results.csv")
    assert list(table["status"]) == ["ok"] * 2
    reward = REWARDS["toy_linear" if problem == "toy_gaussian" else problem]
    axes = [f"info_x{k}" for k in range(reward.dimension)]
    x = torch.tensor(table[axes].to_numpy())
    assert x[0].tolist() != x[1].tolist()
    filters = method in ("fk", "das", "das_released", "smc", "tds")
    assert ("info_log_evidence" in table) == filters
    if filters:
        assert list(table["info_value"]) == pytest.approx(reward(x).tolist(), abs=2e-3)
        assert torch.isfinite(torch.tensor(table["info_log_evidence"].to_numpy())).all()
    if method in ("das", "smc", "tds"):
        assert all(len(str(trace).split()) == 4 for trace in table["info_ess"])


def test_the_ten_samples_of_a_prompt_may_come_of_one_filter(tmp_path):
    """As the published toy figures do: ten particles returned of each run."""
    few = [
        "samples=10",
        "method.particles=20",
        "method.returned=10",
        "sampler.steps=4",
        f"run.folder={tmp_path}",
    ]
    assert main(["+experiment=toy_gmm", "method=das", *few]) == 0
    table = read_csv(tmp_path / "results.csv")
    assert len(set(table["info_log_evidence"])) == 1
    assert list(table["network_forward"]) == [8] * 10


def test_an_experiment_may_be_added_or_chosen():
    jobs = [jobs_of(parse([text, "method=none"]))[0] for text in EITHER]
    added, chosen = (job.config for job in in_folders(jobs))
    assert added == chosen
    assert added.run.folder == "outputs/toy_gmm/toy_gmm-none-toy-seed0"
    assert (added.reward.terms, added.sampler.steps, added.sampler.eta) == ({"toy_gmm": 1}, 100, 1)


EITHER = ("+experiment=toy_gmm", "experiment=toy_gmm")


def test_the_density_is_part_of_the_identity_and_models_with_weights_have_none():
    def prepared(*overrides):
        return prepare([jobs_of(parse([*overrides, "samples=1"]))[0].config])[0]

    one, two = prepared("experiment=toy_gmm"), prepared("experiment=toy_gmm2")
    assert one.items[0].key != two.items[0].key
    assert prepared("backbone=toy_gmm", "backbone.name=other").items[0].key == one.items[0].key
    assert "density" not in prepared("metrics=none").identity["backbone"]
