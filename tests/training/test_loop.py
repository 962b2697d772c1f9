"""The loop of all trainings, on a lesson that anybody can follow: a line through points."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from align.training.base import Example
from align.training.log import Log
from align.training.loop import Recipe, train

RECIPE = Recipe(rounds=6, batch=4, accumulation=2, learning_rate=0.05, examine_every=2)


@dataclass(frozen=True)
class Point(Example):
    x: torch.Tensor
    y: float


class Line:
    """y = 3 x, learned from ten points a round."""

    def __init__(self):
        self.slope = nn.Parameter(torch.zeros(()))
        self.seen = []

    def parameters(self):
        return {"slope": self.slope}

    def save(self, folder):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "slope.txt").write_text(str(float(self.slope.detach())))

    def collect(self, round_, ranks):
        generator = torch.Generator().manual_seed(round_)
        xs = torch.randn(10, generator=generator)
        return ranks.share([Point(f"{round_}/{k}", x, 3 * float(x)) for k, x in enumerate(xs)])

    def loss(self, examples):
        self.seen.append([one.key for one in examples])
        error = torch.stack([(self.slope * one.x - one.y).square() * one.weight for one in examples])
        return error.sum() / sum(one.weight for one in examples), {"slope": self.slope.detach()}


@dataclass
class Distance:
    """Minus the distance to the truth, for two held-out pictures, one of which is harder."""

    line: Line
    names = ("closeness", "slope")

    def __call__(self, ranks):
        slope = float(self.line.slope.detach())
        return list(ranks.share([(-abs(3 - slope), slope), (-abs(3.5 - slope), slope)]))


def learned(folder, recipe=RECIPE, line=None):
    line = line or Line()
    return line, train(line, line, recipe, folder, Distance(line))


def lines_of(folder, what):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["what"] == what]


def test_it_learns_and_the_log_says_how(tmp_path):
    line, progress = learned(tmp_path, replace(RECIPE, rounds=60, learning_rate=0.2))
    assert float(line.slope.detach()) == pytest.approx(3, abs=0.2)
    updates = lines_of(tmp_path, "update")
    assert updates[-1]["update"] == progress.update == len(updates)
    assert updates[0]["loss"] > 100 * updates[-1]["loss"]
    assert {"loss", "slope", "gradient_norm", "learning_rate"} <= updates[0].keys()


def test_mini_batches_are_counted_through_the_rounds(tmp_path):
    line, progress = learned(tmp_path)
    sizes = [len(keys) for keys in line.seen]
    assert sizes == [4, 4, 2] * 6  # the last of a round is smaller
    assert (progress.update, progress.pending) == (9, 0)


def test_what_is_left_at_the_end_makes_no_update(tmp_path):
    _, progress = learned(tmp_path, replace(RECIPE, rounds=1))
    assert (progress.update, progress.pending) == (1, 1)


def test_an_update_is_adamw_on_the_mean_gradient_cut_to_the_norm(tmp_path):
    line, _ = learned(tmp_path, replace(RECIPE, rounds=1, batch=5, clip=0.5))
    other = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([other], lr=0.05, weight_decay=1e-4)
    points = {one.key: one for one in Line().collect(0, _Alone())}
    for keys in line.seen:
        mean = torch.stack([(other * points[k].x - points[k].y).square() for k in keys]).mean()
        (mean / 2).backward()
    nn.utils.clip_grad_norm_([other], 0.5)
    optimizer.step()
    assert float(other) == pytest.approx(float(line.slope.detach()), rel=1e-5)


class _Alone:
    @staticmethod
    def share(whole):
        return whole


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_going_on_gives_the_same_bytes(tmp_path, stop):
    """Rounds of three mini-batches, two of which are an update: so a gradient waits at every other checkpoint."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    learned(whole)

    class Killed(Line):
        def collect(self, round_, ranks):
            if round_ == stop:
                raise KeyboardInterrupt
            return super().collect(round_, ranks)

    with pytest.raises(KeyboardInterrupt):
        learned(part, line=Killed())
    learned(part)
    for name in ("checkpoint.safetensors", "best/slope.txt", "last/slope.txt"):
        assert (part / name).read_bytes() == (whole / name).read_bytes(), name
    assert lines_of(part, "update") == lines_of(whole, "update")
    assert lines_of(part, "examination") == lines_of(whole, "examination")


def test_the_best_by_the_judge_is_kept(tmp_path):
    """At so large a rate the slope runs past the truth."""
    line, progress = learned(tmp_path, replace(RECIPE, rounds=8, learning_rate=2.0, accumulation=1))
    found = {one["round"]: one["closeness"] for one in lines_of(tmp_path, "examination")}
    assert progress.best_round == max(found, key=found.get) not in (0, 8)
    assert float((tmp_path / "best/slope.txt").read_text()) != float(line.slope.detach())
    assert progress.best_value == max(found.values())


def test_a_collapse_is_told_once(tmp_path, capsys):
    class Away(Line):
        def loss(self, examples):
            value, figures = super().loss(examples)
            return -value, figures

    _, progress = learned(tmp_path, replace(RECIPE, rounds=8, learning_rate=1.0), Away())
    assert progress.collapsed
    assert progress.best_round == 0
    assert capsys.readouterr().err.count("it collapses: closeness has fallen") == 1


def test_a_gradient_that_is_not_finite_makes_no_step(tmp_path):
    class Broken(Line):
        def loss(self, examples):
            value, figures = super().loss(examples)
            return value * (torch.nan if "2/0" in [one.key for one in examples] else 1), figures

    line, progress = learned(tmp_path, replace(RECIPE, accumulation=1), Broken())
    assert progress.skipped == 1
    assert float(line.slope.detach()) > 0


def test_examples_count_by_their_weights(tmp_path):
    class Uneven(Line):
        def collect(self, round_, ranks):
            return [Point("a", torch.tensor(1.0), 1.0, weight=3.0), Point("b", torch.tensor(1.0), 0.0)]

    learned(tmp_path, replace(RECIPE, rounds=1, accumulation=1), Uneven())
    assert lines_of(tmp_path, "update")[0]["loss"] == pytest.approx(0.75)


def test_the_learning_rate_warms_up_and_falls():
    recipe = replace(RECIPE, rounds=10, learning_rate=1.0, warmup=3, decay="linear")
    assert [recipe.rate(k, 0) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert recipe.rate(9, 5) == 0.5


def test_a_mini_batch_in_parts_has_the_same_gradient(tmp_path):
    whole, _ = learned(tmp_path / "whole")
    parts, _ = learned(tmp_path / "parts", replace(RECIPE, together=3))
    assert [len(keys) for keys in parts.seen] == [3, 1, 3, 1, 2] * 6
    assert float(parts.slope.detach()) == pytest.approx(float(whole.slope.detach()), rel=1e-6)
    for one, other in zip(*(lines_of(tmp_path / name, "update") for name in ("whole", "parts")), strict=True):
        for name in ("loss", "slope", "gradient_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6)


def test_boards_see_updates_and_examinations(tmp_path):
    class Seen(list):
        closed = False

        def show(self, figures, update):
            self.append((update, dict(figures)))

        def close(self):
            self.closed = True

    line, board = Line(), Seen()
    train(line, line, RECIPE, tmp_path, Distance(line), log=Log(tmp_path, boards=[board]))
    assert [update for update, figures in board if "loss" in figures] == list(range(1, 10))
    assert [update for update, figures in board if "held out closeness" in figures] == [0, 3, 6, 9]
    assert board.closed
