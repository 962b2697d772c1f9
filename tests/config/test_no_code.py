"""A YAML file of somebody else can be tried without fear: nothing that it names is imported, run, read or asked."""

import os
import sys
from functools import partial

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from align.__main__ import main
from align.commands.parser import parse
from align.config.command import Command
from align.config.compose import jobs_of, said_of
from align.config.errors import ConfigError
from align.config.no_code import refuse_hydra
from align.config.places import conf_folder
from align.runner import launch

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


def one_line(arguments, capsys):
    """The refusal of a command."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "hunter2" not in error
    return error


def own(folder, text, group="experiment"):
    """The flags that have a file of somebody else under the name ``mine``."""
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / "mine.yaml").write_text(
        f"# @package _global_\n{text}" if group == "experiment" else text
    )
    return [f"{group}=mine", "--config-dir", str(folder)]


@pytest.mark.parametrize(
    "text",
    [
        "run: {plugins: [evil.py]}",
        "semantics: {endpoint: http://evil.example/v1, model: m, source: llm}",
        "semantics: {key_variable: SECRET}",
        "runner: {address: evil.example:10001}",
        "negative: ${oc.env:SECRET}",
        "prompts: {text: [a cube, 'a ${oc.env:SECRET}']}",
        "negative: '${${prompts.version}:SECRET}'\nprompts: {version: oc.env}",
        "negative: ${by_family:{shapes:'${oc.env:SECRET}'}}",
        "negative: '${by_family:{shapes:a\\${oc.env:SECRET}}}'",
        "negative: ${now:${oc.env:SECRET}}",
        "negative: '\\\\${oc.env:SECRET}'",
        "defaults: [{override /method: '${oc.env:SECRET}'}]",
        "hydra: {job: {env_copy: [SECRET]}}",
        "hydra: {job: {env_copy: [NOT_THERE]}}",
        "hydra: {sweeper: {params: {run.plugins: '[evil.py]'}}}",
        "hydra: {overrides: {task: ['run.plugins=[evil.py]']}}",
        "hydra: {launcher: {python: evil}}",
        "hydra: null",
    ],
)
def test_what_only_the_command_line_may_say_is_refused_in_a_file(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", "hunter2")
    assert "evil.py: " not in one_line(own(tmp_path, text), capsys)


def test_a_file_may_say_options_places_numbers_and_the_characters_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    text = "negative: '\\${oc.env:SECRET}'\nseed: ${samples}\nhydra: {sweep: {dir: elsewhere}, job: {name: mine}}\n"
    (job,) = jobs_of(parse(own(tmp_path, f"{text}run: {{root: 'made-${{now:%Y}}'}}")))
    assert job.config.negative == "${oc.env:SECRET}"
    assert job.config.seed == 1
    assert job.hydra.sweep.dir == "elsewhere"


def test_the_command_line_says_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "tame")
    asked = ["run.root=${oc.env:SECRET}", "hydra.job.env_copy=[SECRET]", "+hydra.job.env_set.A=b"]
    asked += ["semantics=llm", "semantics.endpoint=https://own.example/v1", "semantics.model=m"]
    asked += ["semantics.key_variable=SECRET", "runner.address=auto", "hydra/launcher=basic"]
    (job,) = jobs_of(parse([*asked, *own(tmp_path, "runner: {address: evil.example:1}")]))
    assert job.config.run.root == "tame"
    assert job.config.runner.address == "auto"
    assert job.hydra.job.env_set == {"A": "b", "SECRET": "tame"}


def test_an_option_beside_it_does_not_stand_for_it(tmp_path, capsys):
    for beside in (["run={batch_size: 4}"], ["-m", "run={plugins: [own.py]},{batch_size: 4}"]):
        assert "run.plugins in a config file" in one_line(
            [*beside, *own(tmp_path, "run: {plugins: [evil.py]}")], capsys
        )


TABLE = """
table:
  {{paper: dymo, number: 1, title: t, baseline: a, shapes: dymo_tables_shapes, rows: {{a: {{label: a, shapes: [{row}]}}}}}}
"""


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("'run.plugins=[evil.py]'", "run.plugins"),
        ("'run={plugins: [evil.py]}'", "run.plugins"),
        ("'semantics.endpoint=http://evil.example'", "semantics.endpoint"),
        ("'negative=\\${oc.env:SECRET}'", "negative"),
        ("'+hydra.job.env_set.A=b'", "hydra.job.env_set"),
        ("'hydra/launcher=joblib'", "hydra/launcher"),
    ],
)
def test_rows_of_a_table_are_a_files_word(row, word, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", "hunter2")
    _, *flags = own(tmp_path, TABLE.format(row=row))
    for jobs in ("1", "2"):
        assert word in one_line(["table", "mine", "--scale", "shapes", "--jobs", jobs, *flags], capsys)
    if word == "run.plugins":  # what the command names itself goes before the row's, and is read
        asked = ["--for", "a", "run.plugins=[mine.py]"]
        assert "no file mine.py" in one_line(["table", "mine", "--scale", "shapes", *asked, *flags], capsys)


@pytest.fixture(scope="module")
def hydras():
    """Hydra's own part with a launcher of SLURM, as the command line chose it; a fresh one at each call."""
    with initialize_config_dir(str(conf_folder()), job_name="align", version_base="1.3"):
        composed = compose("config", ["hydra/launcher=submitit_slurm"], return_hydra_config=True).hydra
    return lambda: OmegaConf.merge(composed, {})


@pytest.fixture
def refused(hydras):
    """Looks at Hydra's part after a file has said something."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

    def look(path, value, said=("hydra/launcher",)):
        hydra = hydras()
        OmegaConf.set_struct(hydra, False)
        OmegaConf.update(hydra, path, value, force_add=True)
        refuse_hydra(hydra, frozenset(said), 1)

    return look


HARMFUL = [
    ("job.env_set", {"LD_PRELOAD": "evil.so"}),
    ("job.env_copy", ["SECRET"]),
    ("job.name", "a\nrm -rf ~"),
    ("sweep.dir", "${negative}"),
    ("sweep.dir", "a\nb"),
    ("launcher.setup", ["rm -rf ~"]),
    ("launcher.python", "evil"),
    ("launcher.srun_args", ["--evil"]),
    ("launcher.additional_parameters", {"wrap": "evil"}),
    ("launcher.comment", "evil"),
    ("launcher.submitit_folder", "/elsewhere"),
    ("launcher.partition", "gpu\nrm -rf ~"),
    ("launcher.pre_dispatch", "__import__('os')"),
    ("callbacks.x", {"a": 1}),
    ("job_logging.handlers", {"x": {"filename": "a"}}),
    ("verbose", ["x"]),
    ("something_new", 1),
]


@pytest.mark.parametrize(("path", "value"), HARMFUL)
def test_what_a_file_may_say_of_hydra_is_listed(path, value, refused):
    with pytest.raises(ConfigError, match=rf"hydra\.{path}"):
        refused(path, value)


def test_a_launchers_resources_are_on_the_list(refused):
    said = {
        "partition": "gpu",
        "timeout_min": 240,
        "gres": "gpu:a100:2",
        "mem_gb": 32,
        "constraint": "a100|h100",
    }
    for name, value in said.items():
        refused(f"launcher.{name}", value)
    refused("launcher.setup", ["module load cuda"], ("hydra/launcher", "hydra.launcher.setup"))


def test_no_file_chooses_a_launcher_nor_reaches_through_one(refused):
    with pytest.raises(ConfigError, match="hydra/launcher"):
        refused("output_subdir", None, ())
    inside = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.os.system"
    with pytest.raises(ConfigError, match="no plugin of Hydra"):
        refused("launcher._target_", inside)


def test_a_job_that_is_composed_elsewhere_is_looked_at_again(monkeypatch, capsys):
    """What a launcher does with it: the files may be others by then, and the command's word comes with the job."""
    command = parse(["prompts.limit=1"])
    overrides = ["++prompts.limit=1"]
    with initialize_config_dir(str(conf_folder()), job_name="align", version_base="1.3"):
        composed = compose("config", overrides, return_hydra_config=True)
    hydra = composed.hydra
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: hydra)
    monkeypatch.setattr(launch, "_run", len)
    job = partial(launch.run_job, said=said_of(command), overrides=1)
    assert job(composed) == 1
    for path, value in (("run.plugins", ["evil.py"]), ("negative", "${oc.env:SECRET}")):
        changed = OmegaConf.merge(composed, {})
        OmegaConf.update(changed, path, value)
        assert job(changed) == 2
        assert path in capsys.readouterr().err
    hydra.overrides.task.append("run.plugins=[evil.py]")
    assert job(composed) == 2
    assert "hydra.overrides" in capsys.readouterr().err
    assert said_of(Command(("seed=1",), told=("run.plugins=[evil.py]",))) == {"seed"}
