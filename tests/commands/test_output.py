"""Whatever standard output and standard error are: no command stops at them, and the exit code is a sensible one."""

import io
import json
import logging
import re
import subprocess
import sys

import pytest
from rich.console import Console

from align import __main__
from align.__main__ import main
from align.config.errors import ConfigError
from align.pages.terminal import grid

from .helpers import ROOT


@pytest.fixture
def stream(monkeypatch):
    """Put a stream of an encoding in the place of standard output and standard error; gives what was written."""

    def put(encoding, errors="strict"):
        kept = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(kept, encoding, errors, write_through=True))
        return lambda: kept.getvalue().decode(encoding, "surrogateescape")

    return put


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "utf-8"])
def test_characters_that_a_stream_lacks_are_replaced(encoding, stream, monkeypatch):
    told = "┌─┐ 3 × 4 – naïve 猫 \udcff"

    def dispatch(argv):
        from rich.console import Console

        print(told)
        Console().print(told)
        raise ConfigError(told)

    monkeypatch.setattr(__main__, "dispatch", dispatch)
    written = stream(encoding)
    assert main([]) == 2
    lines = written().splitlines()
    assert len(lines) == 3
    assert {len(line) for line in lines[:2]} == {len(told)}  # so tables keep their columns
    if encoding == "ascii":
        assert lines[0] == "?-? 3 x 4 - na?ve ? ?"


def test_names_that_are_no_text_are_printed_where_a_stream_does_so(stream, monkeypatch):
    monkeypatch.setattr(__main__, "dispatch", lambda argv: print("a\udcff, naïve") or 0)
    written = stream("ascii", "surrogateescape")
    assert main([]) == 0
    assert written() == "a\udcff, na?ve\n"


def test_what_is_given_back_is_exact_in_every_encoding(stream):
    import yaml

    written = stream("ascii")
    assert main(["graph", "a naïve cat"]) == 0
    assert json.loads(written())["prompt"] == "a naïve cat"
    written = stream("ascii")
    assert main(["--cfg", "job", "negative='naïve'"]) == 0
    assert yaml.safe_load(written())["negative"] == "naïve"


SHELL = """
"$PY" -m align --version >&-; echo $?
"$PY" -m align nonsense 2>&-; echo $?
"$PY" -m align --help >/dev/full; echo $?
"$PY" -m align nonsense 2>/dev/full; echo $?
"$PY" -m align --cfg job | true; echo ${PIPESTATUS[0]}
PYTHONUNBUFFERED=1 "$PY" -m align --help >/dev/full; echo $?
"""


def test_streams_that_are_closed_full_or_left(tmp_path):
    environment = {"PY": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", SHELL], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    *codes, piped, unbuffered = done.stdout.split()
    assert codes == ["0", "2", "1", "2"]
    assert piped in ("0", "1")  # whether `true` was gone already
    assert unbuffered == "1"
    assert set(done.stderr.splitlines()) == {
        "align: not all output could be written: No space left on device"
    }


def test_an_error_that_nobody_thought_of_is_one_line(monkeypatch, capsys):
    def dispatch(argv):
        raise KeyError("what\nwas that")

    monkeypatch.setattr(__main__, "dispatch", dispatch)
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "align: internal error: KeyError: 'what\\nwas that'; the same command with -v shows where it happened\n"
    )
    assert main(["-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not logging.getLogger("align").handlers


def test_verbose_shows_where_an_error_came_from(capsys):
    assert main(["report", "nowhere", "--verbose"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("align: report: nowhere is not a folder\n")


def test_version(capsys):
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("align ")
    assert ", Python 3." in line
    assert ", torch " in line


def test_names_of_others_do_not_steer_the_terminal(capsys):
    assert main(["report", "no\x1b[2J\x9bfolder"]) == 2
    assert capsys.readouterr().err == "align: report: no\\x1b[2J\\x9bfolder is not a folder\n"
    console = Console(file=io.StringIO())
    console.print(grid("a\x1btitle", {"row\x07": {"column\x1b": "cell\x1b"}}))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", console.file.getvalue())
