"""A YAML file of somebody else can be tried without fear: nothing that it names is imported or run."""

import os
import sys

import pytest

from align.__main__ import main

EVIL = "hydra_plugins_evil_module"
FILES = {
    "an option of ours": ("method", "name: mine\n_target_: {code}\n", ["method._target_"]),
    "a nested option of ours": ("method", "name: mine\nguidance:\n  _target_: {code}\n", ["_target_"]),
    "a launcher": (
        "hydra/launcher",
        "_target_: {code}\n",
        ["hydra.launcher._target_", "no plugin of Hydra", "hydra/launcher"],
    ),
    "within a launcher": (
        "hydra/launcher",
        "_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\nx:\n  _target_: {code}\n",
        ["hydra.launcher.x._target_"],
    ),
    "a sweeper": ("hydra/sweeper", "_target_: {code}\n", ["hydra.sweeper._target_"]),
    "a callback": (
        "reward",
        "# @package hydra.callbacks\nx:\n  _target_: {code}\n",
        ["hydra.callbacks"],
    ),
    "a factory of the log": (
        "reward",
        "# @package hydra\njob_logging:\n  filters:\n    x:\n      (): {code}\n",
        ["hydra.job_logging.filters.x"],
    ),
    "a class of the log": (
        "reward",
        "# @package hydra\nhydra_logging:\n  handlers:\n    x:\n      class: {code}\n",
        ["hydra.hydra_logging.handlers.x.class"],
    ),
    "an object of the log": (
        "reward",
        "# @package hydra\njob_logging:\n  handlers:\n    x:\n      stream: ext://{code}\n",
        ["hydra.job_logging.handlers.x.stream"],
    ),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("more", [[], ["-m", "seed=0,1"]])
def test_code_that_a_file_names_is_refused_and_never_imported(case, more, tmp_path, monkeypatch, capsys):
    group, text, words = FILES[case]
    marker = tmp_path / "it_ran"
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(marker)!r}, 'w')\ndef run(*_, **__): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own" / group).mkdir(parents=True)
    (tmp_path / "own" / group / "mine.yaml").write_text(text.format(code=f"{EVIL}.run"))
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    assert main([f"{group}=mine", "--config-dir", "own", *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error
    assert EVIL not in sys.modules
    assert not marker.exists()
    assert sorted(os.listdir()) == before
