"""Multiruns through another launcher of Hydra."""

from functools import cache
from importlib.util import find_spec

import pytest
from runner.helpers import fake_weights, files

from align.__main__ import main

from .helpers import ROOT, align

PLUGIN = """
from dataclasses import dataclass
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

class EchoLauncher(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        print("elsewhere", len(job_overrides), flush=True)
        return super().launch(job_overrides, initial_job_idx)

@dataclass
class EchoConfig:
    _target_: str = "hydra_plugins.echo.EchoLauncher"

ConfigStore.instance().store(group="hydra/launcher", name="echo", node=EchoConfig)
"""
REWARD = """
from align.rewards.plugins import reward

@reward(differentiable=False)
def bright(pictures, prompts):
    return pictures.mean((1, 2, 3))
"""
CODE = """
import sys
sys.path[:0] = [".", "TESTS"]
from runner.helpers import FakeSampler
from align.__main__ import main
from align.runner import build
build.build_sampler = lambda config, calls, files=None: FakeSampler(calls.most)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_another_launcher_does_the_jobs(tmp_path):
    (tmp_path / "hydra_plugins" / "echo").mkdir(parents=True)
    (tmp_path / "hydra_plugins" / "echo" / "__init__.py").write_text(PLUGIN)
    (tmp_path / "bright.py").write_text(REWARD)
    fake_weights(tmp_path / "weights")
    options = ["backbone.weights=weights", "metrics=none", "prompts.limit=2", "run.gallery=false"]
    options += ["run.plugins=[bright.py]", "reward=sum", "reward.terms.bright=1"]
    sweep = ["-m", "hydra/launcher=echo", "method=none,best_of_n", "method.particles=1"]
    code = CODE.replace("TESTS", str(ROOT / "tests"))
    done = align(*sweep, *options, folder=tmp_path, code=code)
    assert done.returncode == 0, done.stderr
    assert "elsewhere 2" in done.stdout
    made = sorted(path.name for path in (tmp_path / "outputs").iterdir() if path.name != "multirun")
    assert [name.partition("-shapes_demo")[0] for name in made] == ["shapes-best_of_n", "shapes-none"]
    assert all((tmp_path / "outputs" / name / "results.csv").exists() for name in made)
    assert not (tmp_path / "multirun").exists()


SMALL = ["metrics=none", "sampler.steps=2", "run.gallery=false", "run.threads=1", "run.batch_size=2"]


def made(folder, seed):
    (run,) = (path for path in (folder / "outputs").glob(f"*seed{seed}*") if path.is_dir())
    return files(run)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Does a job here, without a launcher, once; its files."""

    @cache
    def run(*options):
        folder = tmp_path_factory.mktemp("alone") / "run"
        assert main([*options, *SMALL, f"run.folder={folder}"]) == 0
        return files(folder)

    return run


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="needs the extra joblib")
def test_joblib_runs_jobs_side_by_side(tmp_path, alone):
    sweep = ["-m", "seed=0,1", "prompts.limit=2", *SMALL]
    done = align(*sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        assert made(tmp_path, seed) == alone(f"seed={seed}", "prompts.limit=2")


STOPS = """
import os
import signal
from pathlib import Path
from align.rewards.plugins import reward

@reward(differentiable=False)
def stops(pictures, prompts):
    if (told := os.environ.get("STOPS_IN")) and not (mark := Path(told) / "stopped").exists():
        journal = Path(told) / "run" / "journal.jsonl"
        if journal.exists() and journal.read_bytes().count(b'"row"') >= 2:
            mark.touch()
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR2)
    return pictures.mean((1, 2, 3))
"""
"""A reward in which SLURM stops the job that uses it: once, as soon as two items are committed."""


@pytest.fixture(scope="module")
def stops(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "stops.py"
    file.write_text(STOPS)
    return file


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_submitit_launcher") is None, reason="needs the extra submitit"
)
def test_a_stopped_job_of_submitit_is_submitted_again_and_goes_on(tmp_path, stops, alone):
    """SLURM sends SIGTERM, and the signal on which submitit asks for the job anew and counts it if its time is nearly over.

    To submitit that is so in the last ten minutes: of a job of ten it always is, and a busy machine has time enough.
    """
    options = ["prompts.limit=4", "samples=2", "run.in_flight=2", "sampler.eta=1", f"run.plugins=[{stops}]"]
    options += ["method=best_of_n", "method.particles=2", "reward=sum", "reward.terms.stops=1"]
    command = ["-m", "seed=0", *options, *SMALL, "run.folder=run", "hydra/launcher=submitit_local"]
    command += ["hydra.launcher.timeout_min=10", "+hydra.launcher.max_num_timeout=5"]
    done = align(*command, folder=tmp_path, STOPS_IN=str(tmp_path))
    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.*"))
    assert "this job is timed-out" in logs
    assert "4 remaining timeouts" in logs
    assert "Bypassing signal SIGTERM" in logs
    assert files(tmp_path / "run") == alone("seed=0", *options)
    journal = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert journal.count(b'"row"') == 8, "an item was made twice"
