"""What all verbs have in common: help of one shape, errors of one kind, -v and --version; and each has its file."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import align.commands
from align.__main__ import main
from align.commands.verbs import RUN, VERBS

from .helpers import align as command

GIVEN = {
    "report": ["nowhere"],
    "gallery": ["nowhere", "--out", "page.html"],
    "graph": ["a cat", "semantics=x"],
}
GIVEN |= {"table": ["nowhere"], "score": ["nowhere"], "cp": ["method/nothing", "mine"]}
"""What is well said and cannot be done; ``method=nothing`` for the others."""
NEEDS = {"table": "NAME|tables", "score": "PICTURES|pictures", "report": "FOLDER", "gallery": "--out"}
NEEDS |= {"graph": "PROMPT", "cp": "GROUP/NAME, NEW"}
"""The verbs that need an argument, and what they say of it."""
SECTIONS = ["usage", "arguments", "options", "of every verb", "examples"]


def error_of(capsys, *argv):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert len(err) < 600
    return err


def test_each_has_a_module_and_each_module_a_verb():
    files = {path.stem for path in Path(align.commands.__file__).parent.glob("*.py")}
    assert files - {"__init__", "parser", "verbs", "help"} == set(VERBS)
    assert all(callable(import_module(f"align.commands.{verb}").main) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_one_shape(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert main([verb, "-h"]) == 0
    assert capsys.readouterr().out == text
    sections = re.findall(r"^([a-z ]+):", text, re.MULTILINE)
    ours = [name for name in sections if name in SECTIONS]
    assert ours == SECTIONS
    assert verb == RUN or sections == SECTIONS
    told = VERBS[verb]
    start = f"usage: python -m align {'' if verb == RUN else verb + ' '}{told.arguments} [OPTIONS]\n\n"
    assert text.startswith(start + told.summary[0].upper() + told.summary[1:] + ".\n")
    assert max(map(len, text.splitlines())) <= 124
    for flag in ("-h, --help", "-v, --verbose", "--version"):
        assert re.search(rf"^  {flag} ", text, re.MULTILINE)
    examples = text.partition("examples:\n")[2].splitlines()
    assert len(examples) >= 4
    assert all(line.startswith("  python -m align") for line in examples[::2])
    assert all(line.startswith("      ") for line in examples[1::2])


def test_the_help_of_the_command_lists_them(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert re.search(
            rf"^  {re.escape(f'align {name} {verb.arguments}')} +{re.escape(verb.summary)}$",
            text,
            re.MULTILINE,
        )
    assert main(["run", "--help"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_flag_names_the_nearest(verb, capsys):
    begin = "align: " if verb == RUN else f"align: {verb}: "
    see = f"see python -m align {'' if verb == RUN else verb + ' '}--help\n"
    err = error_of(capsys, verb, "--verbos")
    assert err.startswith(f"{begin}unknown flag --verbos; did you mean --verbose?")
    assert err.endswith(see)
    err = error_of(capsys, verb, "--xyzzy=3")
    assert err.startswith(f"{begin}unknown flag --xyzzy; flags: ")
    assert err.endswith(see)


@pytest.mark.parametrize("verb", NEEDS)
def test_a_missing_argument_is_named(verb, capsys):
    err = error_of(capsys, verb)
    assert err.startswith(f"align: {verb}: ")
    assert re.search(rf"({NEEDS[verb]})\b(?!, OPTION)", err)
    assert err.endswith(f"; see python -m align {verb} --help\n")


@pytest.mark.parametrize("verb", VERBS)
def test_verbose_shows_where_an_error_came_from(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = GIVEN.get(verb, ["method=nothing"])
    line = error_of(capsys, verb, *said)
    for flag in ("-v", "--verbose"):
        assert main([flag, verb, *said]) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.endswith(line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_version_is_that_of_the_command(verb, capsys):
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert main([verb, "--version"]) == 0
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("verb", ["doctor", "score", "table", "graph"])
def test_a_folder_of_configs_that_is_none_is_told_alike(verb, capsys):
    words = {"score": ["x"], "table": ["x"], "graph": ["x"]}.get(verb, [])
    assert "--config-dir nowhere is not a folder" in error_of(capsys, verb, *words, "-cd", "nowhere")


def test_words_after_two_dashes_are_no_flags(capsys):
    assert main(["graph", "--", "--a red cat"]) == 0
    assert '"prompt": "--a red cat"' in capsys.readouterr().out


LIGHT = """
import sys
from align.__main__ import main
code = main(sys.argv[1:])
heavy = {"torch", "hydra", "pandas", "matplotlib", "jinja2", "PIL"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_that_it_does_not_need(verb, tmp_path):
    done = command(verb, "--help", folder=tmp_path, code=LIGHT)
    assert done.returncode == 0, done.stderr
