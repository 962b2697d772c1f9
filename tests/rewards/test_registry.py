import subprocess
import sys

import pytest

from align.errors import MissingWeights
from align.rewards.errors import UnknownReward
from align.rewards.registry import REWARDS, find, load, spec


def test_registry_does_not_import_torch():
    code = "import align.rewards.registry, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownReward, match=r"unknown reward 'shape_pick'; did you mean shapes_pick"):
        spec("shape_pick")


def test_missing_weights_are_one_line(tmp_path):
    assert find("shapes_pick", tmp_path)[0].missing()
    with pytest.raises(MissingWeights) as caught:
        load("shapes_pick", folder=tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "shapes_pick").mkdir()
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(MissingWeights, match=r"config\.json"):
        load("shapes_pick", folder=tmp_path)


EMBEDDED = [name for name, spec in REWARDS.items() if not (spec.facts or spec.section)]


@pytest.mark.parametrize("name", EMBEDDED)
def test_facts_known_beforehand_are_those_of_the_loaded_reward(name):
    reward = load(name)
    assert reward.name == name
    assert reward.differentiable == REWARDS[name].differentiable
    assert reward.takes_timestep == REWARDS[name].takes_timestep
    files = [key for key in reward.fingerprint if key.endswith(".safetensors")]
    assert all(len(reward.fingerprint[key]) == 64 for key in files)
    assert bool(files) == bool(REWARDS[name].weights)
