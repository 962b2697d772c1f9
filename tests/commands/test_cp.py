"""``align cp``: a preset copied under another name can be used at once, and nothing is ever replaced."""

import os
import shlex
from dataclasses import replace

import pytest
import yaml

from align import writing
from align.__main__ import main
from align.commands.cp import renamed
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.config.places import conf_folder, group_choices
from align.config.schema import GROUPS

PRESETS = [f"{group}/{name}" for group in GROUPS for name in group_choices(group)]
OF_EACH_KIND = {
    *(f"{group}/{group_choices(group)[0]}" for group in GROUPS),
    *("backbone/dpo_sd15", "method/dymo_released", "prompts/hpdv2_photo_50", "experiment/shapes_pair"),
}
"""The first of each group, one that starts from another, one whose prompts are pinned, one that needs a family's numbers."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def copy(capsys, *argv):
    """Copy; gives the file's path and the words of the command that uses it."""
    assert main(["cp", *argv]) == 0
    path, use = capsys.readouterr().out.splitlines()
    program, *words = shlex.split(use)
    assert [program, *words[:2]] == ["python", "-m", "align"]
    return path, words[2:]


def _of_a_run(words):
    """The words of a command of the verb ``online`` as those of a run."""
    return [word for word in words if word != "online"]


def config_of(*words):
    try:
        return jobs_of(parse([*words, "run.folder=x"]), [])[0].config
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("preset", sorted(OF_EACH_KIND))
def test_a_preset_is_the_same_under_its_new_name(preset, capsys, tmp_path):
    group, _, name = preset.partition("/")
    path, words = copy(capsys, preset, "mine")
    assert path == f"conf/{preset.partition('/')[0]}/mine.yaml"
    original, copied = (
        config_of(f"{group}={name}"),
        config_of(*([*words[1:3], f"{group}=mine"] if words[0] in ("table", "train") else _of_a_run(words))),
    )
    if group == "experiment" or isinstance(original, str):
        assert copied == original if group == "experiment" else copied == original.replace(name, "mine")
        return
    part = getattr(copied, group)
    assert part.name == "mine"
    assert replace(copied, **{group: replace(part, name=name)}) == original


def test_only_the_name_is_another():
    for preset in PRESETS:
        text = (conf_folder() / f"{preset}.yaml").read_text(encoding="utf-8")
        there = yaml.safe_load(text)
        copied = yaml.safe_load(renamed(text, "mine"))
        part = there.get("training", there)
        assert renamed(text, part.get("name", "x")) == text
        if "name" in part:
            part["name"] = "mine"
        assert copied == there
    assert renamed("# name: x\nname:  'x' # what rows say\nterms: {name: x}\n", "mine") == (
        "# name: x\nname: mine # what rows say\nterms: {name: x}\n"
    )


def test_a_table_is_used_as_one(capsys):
    assert copy(capsys, "experiment/dymo_table1", "mine", "-cd", "my conf") == (
        "my conf/experiment/mine.yaml",
        ["table", "-cd", "my conf", "mine"],
    )
    assert main(["table", "-cd", "my conf", "mine", "--plan", "--scale", "shapes"]) == 0


def test_a_preset_of_ones_own_is_copied_too(capsys):
    copy(capsys, "method/dymo", "mine")
    assert copy(capsys, "method/mine", "other", "--config-dir=conf")[1] == ["-cd", "conf", "method=other"]
    assert config_of("-cd", "conf", "method=other").method.name == "other"


def test_in_the_folder_of_the_presets_no_folder_has_to_be_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "align").mkdir()
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "plain.yaml").write_text("name: plain\n")
    monkeypatch.setattr("align.config.places.PACKAGE", tmp_path / "align")
    assert copy(capsys, "method/plain", "mine") == ("conf/method/mine.yaml", ["method=mine"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["methd/dymo", "mine"], "did you mean method?"),
        (["method/dimo", "mine"], "did you mean dymo?"),
        (["method", "mine"], "there is no such method; choices: best_of_n"),
        (["method/../config", "mine"], "there is no such method"),
        (["method/dymo", "das"], "method=das is there already"),
        (["method/dymo", "../mine"], "is no name of a method"),
        (["method/dymo", "mine.yaml"], "is no name of a method"),
        (["method/dymo", "Null"], "is no name of a method"),
        (["method/dymo", "1"], "is no name of a method"),
        (["method/dymo", ""], "is no name of a method"),
        (["method/dymo", "mine", "-cd", "a_file"], "cannot be written: "),
        (["method/dymo", "mine", "-cd", "a_link"], "a_link/method is no folder"),
    ],
)
def test_wrong_names_are_one_line(argv, words, tmp_path, capsys):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "a_link").symlink_to("nowhere")
    assert main(["cp", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("align: cp: ")
    assert words in err
    assert err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["a_file", "a_link"]


def test_nothing_is_replaced(capsys, tmp_path):
    path, _ = copy(capsys, "method/dymo", "mine")
    (tmp_path / path).write_text("name: mine\n")
    (tmp_path / "conf" / "method" / "folder.yaml").mkdir()
    (tmp_path / "conf" / "method" / "gone.yaml").symlink_to("nowhere")
    for name in ("mine", "folder", "gone"):
        assert main(["cp", "method/das", name]) == 2
        assert "is there already" in capsys.readouterr().err
    assert (tmp_path / path).read_text() == "name: mine\n"
    assert sorted(os.listdir(tmp_path / "conf" / "method")) == ["folder.yaml", "gone.yaml", "mine.yaml"]


def test_what_cannot_be_written_leaves_nothing(capsys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "conf" / "method").mkdir(parents=True)
    monkeypatch.setattr(writing.os, "fsync", full)
    assert main(["cp", "method/das", "mine"]) == 2
    assert "conf/method/mine.yaml cannot be written: No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "conf" / "method").iterdir())


@pytest.mark.parametrize(
    ("group", "text", "words"),
    [
        (
            "semantics",
            "name: x\nendpoint: http://elsewhere/v1\n",
            "gives semantics.endpoint, which names a host",
        ),
        ("runner", "name: x\naddress: elsewhere\n", "gives runner.address, which names a host"),
        (
            "experiment",
            "# @package _global_\nrun:\n  plugins: [a.py]\n",
            "gives run.plugins, which names code",
        ),
        ("method", "name: [\n", "mend the file's YAML"),
        ("method", "# a\n" * 300_000, "is larger than"),
    ],
)
def test_what_no_file_may_say_is_not_copied(group, text, words, tmp_path, capsys):
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "theirs.yaml").write_text(text)
    assert main(["cp", f"{group}/theirs", "mine"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path / "conf" / group) == ["theirs.yaml"]
