"""Multiruns through another launcher of Hydra."""

import pytest
from runner.helpers import fake_weights

from .helpers import align

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
build.build_sampler = lambda config, size: FakeSampler(size)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_another_launcher_does_the_jobs(tmp_path):
    (tmp_path / "hydra_plugins" / "echo").mkdir(parents=True)
    (tmp_path / "hydra_plugins" / "echo" / "__init__.py").write_text(PLUGIN)
    (tmp_path / "bright.py").write_text(REWARD)
    fake_weights(tmp_path / "weights")
    from .helpers import ROOT

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
    refused = align("hydra/launcher=echo", *options, folder=tmp_path, code=code)
    assert refused.returncode == 2
    assert "add -m" in refused.stderr
