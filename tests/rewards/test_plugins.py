"""Rewards of a user's own: a Python file that the command line names."""

import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch

from align.__main__ import main
from align.config.plugins import read_plugins
from align.rewards.errors import RewardError
from align.rewards.registry import REWARDS, find, load
from align.runner import build
from align.store.csvfile import read_csv

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## A reward of your own\n")[2].partition("\n## ")[0]
SNIPPET = SECTION.partition("```python\n")[2].partition("```")[0]
HEAD = "from align.rewards.plugins import reward\n\n\n"
BRIGHT = (
    HEAD
    + "@reward(differentiable=True)\ndef bright(pictures, prompts):\n    return pictures.mean((1, 2, 3))\n"
)


@pytest.fixture(autouse=True)
def _forgotten():
    """Names and files of a test are unknown to the next one."""
    known = dict(REWARDS)
    yield
    REWARDS.clear()
    REWARDS.update(known)
    for name in [name for name in sys.modules if name.startswith("align_plugin_")]:
        del sys.modules[name]
    build.load_reward.cache_clear()


@pytest.fixture
def write(tmp_path):
    """Writes a Python file; its path."""

    def to(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return to


@pytest.mark.slow
def test_the_readme_tells_a_new_user_the_truth(tmp_path, monkeypatch):
    joined = SECTION.replace("\\\n", "")
    (command,) = re.findall(r"^    python -m align (.*)$", joined, re.MULTILINE)
    (name,) = re.findall(r"^`(\w+\.py)`, anywhere", SECTION.strip(), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(SNIPPET)
    assert main(shlex.split(command)) == 0
    rows = read_csv(next(Path("outputs").glob("*/results.csv")))
    assert len(rows) == 2
    assert set(rows["reward"]) == {"redness"}
    assert rows["redness"].notna().all()
    assert rows["shapes_pick"].notna().all()


def test_the_readmes_reward_is_short_and_does_what_it_says(write):
    assert len(SNIPPET.splitlines()) <= 15
    read_plugins([write(SNIPPET)])
    pictures = torch.zeros(2, 3, 4, 4)
    pictures[0, 0], pictures[1, 1] = 1, 1
    assert load("redness").score(pictures, ["a", "b"]).tolist() == [1, -0.5]
    assert REWARDS["redness"].summary == "How much more red than green and blue a picture is."


@pytest.mark.parametrize(
    "end", ["raise SystemExit('bye')", "raise type('Panic', (BaseException,), {})('bye')"]
)
def test_what_would_end_the_program_is_an_error_of_the_reward(write, end):
    """Libraries that are not written in Python panic so."""
    read_plugins([write(HEAD + f"@reward(differentiable=False)\ndef ends(pictures, prompts): {end}\n")])
    with pytest.raises(RewardError, match=r"bye.*: raise an error instead"):
        load("ends").score(torch.zeros(1, 3, 4, 4), ["a"])


def test_a_handler_of_signals_may_end_the_program_inside_of_a_reward(write):
    """As submitit's does when SLURM takes the job away."""

    def leave(number, frame):
        sys.exit(7)

    before = signal.signal(signal.SIGUSR2, leave)
    try:
        text = "import os, signal\n" + HEAD + "@reward(differentiable=False)\n"
        text += "def waits(pictures, prompts): os.kill(os.getpid(), signal.SIGUSR2)\n"
        read_plugins([write(text)])
        with pytest.raises(SystemExit, match="7"):
            load("waits").score(torch.zeros(1, 3, 4, 4), ["a"])
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_gradients_reach_the_pictures(write):
    read_plugins([write(BRIGHT)])
    pictures = torch.rand(2, 3, 4, 4, requires_grad=True)
    load("bright").score(pictures, ["a", "b"]).sum().backward()
    assert torch.allclose(pictures.grad, torch.full_like(pictures, 1 / 48))


def test_a_judge_may_return_plain_numbers(write):
    read_plugins(
        [
            write(
                HEAD
                + "@reward(differentiable=False)\ndef length(pictures, prompts): return [len(p) for p in prompts]"
            )
        ]
    )
    assert load("length").score(torch.rand(2, 3, 4, 4), ["a", "bcd"]).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pictures.mean()", r"shape \(\) for 2 pictures: return one a picture"),
        ("pictures.detach().mean((1, 2, 3))", "bad has no gradient: write @reward\\(differentiable=False\\)"),
    ],
)
def test_what_a_function_does_not_keep_is_said(write, body, words):
    read_plugins([write(HEAD + f"@reward(differentiable=True)\ndef bad(pictures, prompts): return {body}")])
    with pytest.raises(ValueError, match=words):
        load("bad").score(torch.rand(2, 3, 4, 4, requires_grad=True), ["a", "b"])


def test_another_text_of_the_file_is_another_reward(write):
    path = write(BRIGHT)
    read_plugins([path])
    first = find("bright")[0].fingerprint()
    write(BRIGHT.replace("mean", "amax"))
    assert find("bright")[0].fingerprint() != first
    write(BRIGHT)
    assert find("bright")[0].fingerprint() == first


def test_a_file_is_run_once(write, tmp_path):
    path = write(BRIGHT + f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n")
    read_plugins([path])
    read_plugins([path])
    assert (tmp_path / "runs").read_text() == "x"


BAD = {
    "a column's name": (
        HEAD + "@reward(differentiable=False)\ndef tag_x(pictures, prompts): pass\n",
        "column tag_x of",
    ),
    "no file": (None, "there is no file"),
    "syntax": ("def f(:\n", "line 1: SyntaxError"),
    "raises": ("x = 1\nboom\n", "line 2: NameError"),
    "exits": ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
    "no reward": ("x = 1\n", "adds no reward"),
    "taken": (BRIGHT.replace("bright", "shapes_pick"), "there is a reward shapes_pick already"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(write, tmp_path, capsys, case):
    text, words = BAD[case]
    path = str(tmp_path / "none.py") if text is None else write(text)
    assert main([f"run.plugins=[{path}]"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("align: run.plugins: ")
    assert path in error
    assert words in error


def test_a_judge_without_gradient_does_not_guide(write, capsys):
    path = write(BRIGHT.replace("True", "False"))
    guided = ["method=dymo", "reward=sum", "reward.terms.bright=1"]
    assert main([f"run.plugins=[{path}]", *guided]) == 2
    assert "reward bright has no gradient and method=dymo needs one" in capsys.readouterr().err


def test_a_config_file_cannot_name_code_to_run(write, tmp_path, capsys):
    path = write(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/evil.yaml").write_text(
        f"# @package _global_\n# looks harmless\nrun:\n  plugins: [{path}]\n"
    )
    assert main(["--config-dir", str(tmp_path / "conf"), "experiment=evil"]) == 2
    assert "give it on the command line" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
