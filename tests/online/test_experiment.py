"""A small experiment on the shapes world: each picture asked about once, killed and gone on with, a black box of the user's."""

import os
import signal

import pytest
import torch
from forked import forked

from align.__main__ import main
from align.online import experiment
from align.online.query import read_asked
from align.online.rounds import DATA, SURROGATE
from align.store.index import rows_of
from align.surrogates.surrogate import read_surrogate
from scripts.pull_the_plug import content

JUDGE = '''
from align.rewards.plugins import reward

@reward(differentiable=False)
def ruddiness(pictures, prompts):
    """Asked about pictures, it counts them."""
    with open({log!r}, "a") as log:
        log.write("x" * len(pictures))
    red, green, blue = pictures.unbind(1)
    return (red - (green + blue) / 2).mean((1, 2))
'''


def words(folder, *more):
    return [
        *("online", "method=best_of_n", "method.particles=2", "sampler.steps=2", "run.threads=1"),
        *("rounds.number=2", "rounds.first=4", "rounds.each=2", "rounds.held_out=2", "rounds.evaluation=2"),
        *("prompts.limit=4", f"run.folder={folder}", *more),
    ]


def everything(folder):
    """What an experiment made: its runs, and what stands beside them."""
    runs = {path.parent.relative_to(folder): content(path.parent) for path in folder.rglob("results.csv")}
    beside = [*folder.rglob("*.safetensors"), *folder.glob("rounds.*")]
    return runs, {path.relative_to(folder): path.read_bytes() for path in beside}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment with a judge of its own, and its words."""
    folder = tmp_path_factory.mktemp("online")
    judge = folder / "judge.py"
    judge.write_text(JUDGE.format(log=str(folder / "log")))
    given = words(folder / "run", f"run.plugins=[{judge}]", "blackbox=ruddiness", "rounds.noise=0")
    assert main(given) == 0
    return folder / "run", given


def test_each_round_is_a_run_and_its_data_are_what_it_answered(made):
    folder, _ = made
    answers = 0
    for number, pictures in enumerate((4, 2, 2)):
        rows = rows_of(folder / f"round_{number:03d}")
        assert [row["method"] for row in rows] == ["best_of_n" if number else "none"] * pictures
        data = read_asked(folder / f"round_{number:03d}" / DATA)
        new = slice(answers, answers + pictures)
        assert data.prompts[new] == tuple(row["prompt"] for row in rows)
        assert torch.allclose(data.values[new], torch.tensor([row["ruddiness"] for row in rows]))
        answers += pictures
        assert len(data.values) == answers
    assert torch.allclose(data.features.norm(dim=1), torch.ones(8), atol=1e-5)


def test_a_round_follows_the_surrogate_of_the_one_before_and_says_whose_it_is(made):
    folder, _ = made
    first, second = (rows_of(folder / f"round_00{number}")[0] for number in (1, 2))
    assert first["reward"].startswith("surrogate_")
    assert first["reward"] != second["reward"]
    assert set(first["optimised"]) == {first["reward"], "ruddiness"}


def test_the_evaluation_follows_what_is_expected_alone(made):
    folder, _ = made
    last, plain = (read_surrogate(folder / place / SURROGATE) for place in ("round_002", "evaluation"))
    assert (last.optimistic, plain.optimistic) == (True, False)
    arms = {arm: rows_of(folder / "evaluation" / arm) for arm in ("plain", "surrogate")}
    pairs = [[(row["prompt"], row["seed"], row["sample"]) for row in rows] for rows in arms.values()]
    assert pairs[0] == pairs[1]


def test_lines_and_figure_are_there(made):
    folder, _ = made
    table = (folder / "rounds.csv").read_text()
    assert table.startswith("line,answers,mean,low,high\nof the round,4,")
    assert "best of N plain,8," in table
    assert "best so far" in (folder / "rounds.svg").read_text()


def test_the_same_command_again_asks_nothing(made):
    folder, given = made
    log, before = folder.parent / "log", everything(folder)
    asked = len(log.read_text())
    assert main(given) == 0
    assert len(log.read_text()) == asked
    assert everything(folder) == before


def test_more_rounds_go_on(made, capsys):
    folder, given = made
    assert main([*given, "rounds.number=3", "rounds.evaluation=0", "rounds.best_of_n=false"]) == 0
    assert len(read_asked(folder / "round_003" / DATA).values) == 10


def test_another_experiment_does_not_take_its_folder(made, capsys):
    _, given = made
    assert main([*given, "surrogate.a=2"]) == 2
    assert "surrogate.a=1.0, this command has 2.0: choose another run.folder" in capsys.readouterr().err


def dying(place):
    """The command, killed at the so manieth of: a round made, before its answers are kept, before its surrogate is fitted."""
    seen = []

    def die(inner, after):
        def wrapped(*arguments, **more):
            seen.append(inner)
            if len(seen) == place and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = inner(*arguments, **more)
            if len(seen) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return wrapped

    def command(words):
        experiment.run_all = die(experiment.run_all, True)
        experiment.save_asked = die(experiment.save_asked, False)
        experiment.learn = die(experiment.learn, False)
        return main(words)

    return command


@pytest.mark.slow
def test_killed_anywhere_it_ends_in_the_same_bytes(tmp_path):
    more = ["blackbox=jpeg_compressibility", "surrogate=bootstrap", "surrogate.epochs=3"]
    assert main(words(tmp_path / "a", *more)) == 0
    for place in (1, 3):
        assert forked(dying(place), words(tmp_path / "b", *more)).wait() == -signal.SIGKILL
    assert main(words(tmp_path / "b", *more)) == 0
    assert everything(tmp_path / "b") == everything(tmp_path / "a")
