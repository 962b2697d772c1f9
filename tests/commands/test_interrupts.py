"""Ctrl-C and SIGTERM at moments when no run is at work: one line, exit code 130, no traceback."""

import builtins
import os
import signal

import pytest

from align import __main__
from align.__main__ import main
from align.runner.interrupts import Interrupts

from .helpers import align

LINE = "align: interrupted\n"


@pytest.mark.parametrize("name", ["align.output", "align.runner.interrupts", "align.commands.verbs"])
def test_while_modules_are_imported(name, monkeypatch, capfd):
    found = builtins.__import__

    def interrupted(module, *arguments):
        if module == name:
            raise KeyboardInterrupt
        return found(module, *arguments)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert main(["--help"]) == 130
    assert capfd.readouterr().err == LINE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_an_interrupted_import_leaves_is_no_error(number, monkeypatch, capfd):
    """Libraries catch whatever an import of theirs raises, and fail later in their own ways."""

    def dispatch(argv):
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            raise ImportError("cannot import name 'nan' from partially initialized module") from None

    monkeypatch.setattr(__main__, "dispatch", dispatch)
    before = signal.getsignal(number)
    assert main([]) == 130
    assert capfd.readouterr().err == LINE
    assert signal.getsignal(number) == before


def test_what_is_inside_tells_what_is_around_it():
    """The second Ctrl-C ends a command at once, also after the run that saw the first one."""
    with Interrupts() as outer:
        with pytest.raises(KeyboardInterrupt), Interrupts() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        assert (outer.seen, inner.seen) == (True, True)
        assert signal.getsignal(signal.SIGINT) == outer._handle


CODE = """
import os, signal, sys, threading
from align import __main__
moment, number = sys.argv[1], int(sys.argv[2])

class Finder:
    def find_spec(self, name, *rest):
        if name == moment:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
if moment == "exit":
    threading._register_atexit(os.kill, os.getpid(), number)
sys.argv[1:] = ["--help"]
__main__.program()
"""


@pytest.mark.parametrize(
    ("moment", "number"),
    [("align.output", signal.SIGINT), ("align.commands.help", signal.SIGTERM), ("exit", signal.SIGINT)],
)
def test_from_the_first_moment_of_a_process_to_the_last(moment, number, tmp_path):
    done = align(moment, str(int(number)), folder=tmp_path, code=CODE)
    assert (done.returncode, done.stderr) == (130, LINE)
