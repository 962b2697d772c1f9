"""Runs with a fake sampler: rows, resume, failures, memory."""

import json

import numpy as np
import pytest
from PIL import Image

from align.__main__ import main
from align.runner import build, work
from align.sampling.ledger import Cost
from align.sampling.sampler import Outcome
from align.store.csvfile import read_csv

from .helpers import HOSTILE, FakeSampler, arguments, files


def calls(built):
    return [request for sampler in built for call in sampler.calls for request in call]


def test_a_run(fake, tmp_path, capsys):
    built = fake()
    assert main(arguments(tmp_path, "samples=2", "prompts.limit=3")) == 0
    out = capsys.readouterr().out
    for words in ("3 of shapes_demo", "6", "25 network evaluations a picture", "150 in all", "results.csv"):
        assert words in out
    assert [len(call) for call in built[0].calls] == [3, 3]
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert list(rows["sample"]) == [0, 1] * 3
    assert set(rows["status"]) == {"ok"}
    assert set(rows["method"]) == {"none"}
    assert set(rows["backbone"]) == {"shapes"}
    assert set(rows["reward"]) == set(rows["optimised"]) == {""}
    assert set(rows["check_all"]) == {0}
    assert set(rows["network_forward"]) == {25}
    assert set(rows["rounds"]) == {2}
    assert set(rows["info_candidate"]) == {3}
    assert (rows["peak_memory_mb"] > 10).all()
    outcome = FakeSampler().outcome(
        type("R", (), dict(prompt=rows["prompt"][1], negative="", seed=0, sample=1))
    )
    picture = np.asarray(Image.open(tmp_path / "run" / rows["image"][1]))
    expected = (outcome.picture * 255).round().permute(1, 2, 0).numpy()
    assert (picture == expected).all()


def test_the_record(fake, tmp_path):
    fake()
    assert main(arguments(tmp_path)) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "finished"
    record = run["record"]
    assert record["config"]["sampler"]["steps"] == 25
    assert record["prompts"]["name"] == "shapes_demo"
    assert (record["prompts"]["size"], record["prompts"]["taken"]) == (16, 8)
    assert len(record["prompts"]["sha256"]) == 64
    assert set(record["fingerprints"]) == {"backbone shapes"}
    assert record["versions"]["torch"]
    assert record["machine"]["cpus"]
    assert "git" in record


def test_the_same_command_again_does_nothing(fake, tmp_path, capsys):
    assert fake() is not None
    assert main(arguments(tmp_path)) == 0
    before = files(tmp_path / "run")
    built = fake()
    assert main(arguments(tmp_path)) == 0
    assert not built
    assert files(tmp_path / "run") == before
    assert "nothing is left to do" in capsys.readouterr().out
    assert main(arguments(tmp_path, "prompts.limit=10")) == 0
    assert len(calls(built)) == 2


def test_order_batch_and_groups_change_nothing(fake, tmp_path):
    fake()
    assert main(arguments(tmp_path / "a")) == 0
    more = ["prompts.limit=null", "prompts.shuffle_seed=3", "run.in_flight=1", "run.batch_size=5"]
    assert main(arguments(tmp_path / "b", *more)) == 0
    first, second = files(tmp_path / "a" / "run"), files(tmp_path / "b" / "run")
    pictures = {name for name in first if name != "rows"}
    assert len(pictures) == 8
    assert all(second[name] == first[name] for name in pictures)


def test_another_configuration_in_the_folder_is_refused(fake, tmp_path, capsys):
    fake()
    assert main(arguments(tmp_path)) == 0
    capsys.readouterr()
    before = files(tmp_path / "run")
    assert main(arguments(tmp_path, "sampler.steps=5")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "sampler.steps=25" in err
    assert "run.extend=true" in err
    assert files(tmp_path / "run") == before
    assert main(arguments(tmp_path, "sampler.steps=5", "run.extend=true")) == 0
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 16


def test_a_failed_item_is_kept_and_tried_again(fake, tmp_path, capsys):
    prompts = "prompts.text=[one,two,three,four,five]"
    more = ["prompts=text", prompts, "run.in_flight=4"]
    built = fake(fail=("three",), broken=("five",))
    assert main(arguments(tmp_path, *more)) == 1
    assert "item 2 failed: ValueError: cannot draw 'three'" in capsys.readouterr().out
    rows = read_csv(tmp_path / "run" / "results.csv").set_index("prompt")
    assert rows.loc["three", "status"] == "failed: ValueError: cannot draw 'three'"
    assert rows.loc["five", "status"] == "failed: the picture is not finite"
    assert rows.loc["three", "image"] == ""
    assert rows.loc["five", "network_forward"] == 25
    assert list(rows["status"]).count("ok") == 3
    built = fake()
    assert main(arguments(tmp_path, *more)) == 0
    assert [prompt for prompt, *_ in calls(built)] == ["three", "five"]
    assert set(read_csv(tmp_path / "run" / "results.csv")["status"]) == {"ok"}


def test_stop_on_error(fake, tmp_path):
    built = fake(fail=("two",))
    more = ["prompts=text", "prompts.text=[one,two,three,four]", "run.in_flight=2", "run.on_error=stop"]
    assert main(arguments(tmp_path, *more)) == 1
    assert {prompt for prompt, *_ in calls(built)} == {"one", "two"}


def test_out_of_memory_halves(fake, tmp_path, capsys):
    fake()
    assert main(arguments(tmp_path / "a")) == 0
    built = fake(most=2)
    assert main(arguments(tmp_path / "b", "run.in_flight=8", "run.batch_size=8")) == 0
    assert [sampler.batch_size for sampler in built] == [8, 4, 2]
    assert [len(call) for sampler in built for call in sampler.calls] == [
        8,
        8,
        8,
    ]  # never the group in flight
    assert "out of memory" in capsys.readouterr().out
    assert files(tmp_path / "a" / "run") == files(tmp_path / "b" / "run")


@pytest.mark.parametrize("most", [10**9, 2])
def test_pictures_of_one_group_of_particles_are_never_parted(fake, tmp_path, most):
    """Not at the end of a handful of items, nor when memory runs out."""
    built = fake(most=most)
    grouped = ["method.particles=2", "method.returned=2", "samples=6", "prompts.limit=2"]
    assert main(arguments(tmp_path, *grouped, "run.in_flight=5", "run.batch_size=4")) == 0
    for call in (call for sampler in built for call in sampler.calls):
        assert len(call) % 2 == 0
        for one, two in zip(call[::2], call[1::2], strict=True):
            assert one[:2] == two[:2]
            assert one[2] // 2 == two[2] // 2
    made = [
        item for sampler in built if sampler.batch_size <= most for call in sampler.calls for item in call
    ]
    assert len(made) == len(set(made)) == 12


def test_a_group_that_fits_in_no_memory_fails_as_a_whole(fake, tmp_path):
    fake(most=0)
    grouped = ["method.particles=2", "method.returned=2", "samples=2", "prompts.limit=1"]
    assert main(arguments(tmp_path, *grouped)) == 1
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert len(rows) == 2
    assert rows["status"].str.contains("failed: RuntimeError: CUDA out of memory").all()


def test_out_of_memory_at_one_fails_the_item(fake, tmp_path):
    fake(most=0)
    assert main(arguments(tmp_path, "prompts.limit=2")) == 1
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert rows["status"].str.contains("failed: RuntimeError: CUDA out of memory").all()


def test_a_lost_device_ends_the_run_without_failed_rows(fake, tmp_path, capsys):
    fake(lost=True)
    assert main(arguments(tmp_path)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "illegal memory access" in err
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 0
    fake()
    assert main(arguments(tmp_path)) == 0


def test_a_full_disk_is_one_line(fake, tmp_path, capsys, monkeypatch):
    from align.store import store

    def full(*_):
        raise OSError(28, "No space left on device")

    fake()
    with monkeypatch.context() as patch:
        patch.setattr(store, "save_picture", full)
        assert main(arguments(tmp_path)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "No space left" in err
    assert main(arguments(tmp_path)) == 0


class Metric:
    """A reward that gives no number for one prompt, raises for another, and sees at most ``most`` pictures at once."""

    name = "shapes_pick"
    batch = None

    def __init__(self, most=8, refused=("refused",), answer=None):
        self.most, self.refused, self.answer = most, refused, answer
        self.seen = []

    def score_images(self, images, prompts, batch):
        assert len(images) == len(prompts) == batch
        self.seen.append(prompts)
        if batch > self.most:
            raise MemoryError("out of memory")
        if set(prompts) & set(self.refused):
            raise UnicodeError("cannot read this")
        values = [float("nan") if prompt == "nan" else float(len(prompt)) for prompt in prompts]
        return values if self.answer is None else self.answer(values)


@pytest.fixture
def metric(monkeypatch):
    """Put a metric in the place of ``shapes_pick``."""

    def install(**options):
        made = Metric(**options)
        monkeypatch.setattr(build, "load_reward", lambda name, device: made)
        return made

    return install


def measured(folder, *more):
    """A run of a handful of prompts with the metric; its exit code, and its rows by prompt."""
    texts = ["one", "seven", "nan", "refused", "four", "eleven", "two", "three", "twelve"]
    command = ["prompts=text", f"prompts.text=[{','.join(texts)}]", "prompts.limit=null", "run.in_flight=9"]
    code = main(arguments(folder, *command, "metrics.rewards=[shapes_pick]", *more))
    return code, read_csv(folder / "run" / "results.csv").set_index("prompt")


def test_metrics_that_are_not_finite_or_raise_are_empty_cells(fake, metric, tmp_path, capsys):
    built = fake()
    metric()
    code, rows = measured(tmp_path)
    assert code == 1
    assert np.isnan(rows.loc["nan", "shapes_pick"])
    assert np.isnan(rows.loc["refused", "shapes_pick"])
    said = rows["status"].to_dict()
    assert said.pop("nan") == "ok: shapes_pick is not finite"
    assert said.pop("refused") == "ok: shapes_pick failed: UnicodeError: cannot read this"
    assert set(said.values()) == {"ok"}  # one bad prompt costs no other of its call
    assert rows.loc["eleven", "shapes_pick"] == 6
    assert rows["check_all"].isna().all()  # none of these prompts is a caption
    assert "the same command measures them again" in capsys.readouterr().err
    assert "cannot read this" in (tmp_path / "run" / "errors.log").read_text()
    assert "Traceback" in (tmp_path / "run" / "errors.log").read_text()
    built.clear()
    mended = metric(refused=())
    code, rows = measured(tmp_path)
    assert code == 0
    assert not built, "pictures were made again"
    assert mended.seen == [["refused"] * 8], "what is not finite is a result"
    assert rows.loc["refused", "status"] == "ok"
    assert rows.loc["refused", "shapes_pick"] == 7


def test_a_metric_without_memory_makes_smaller_calls(fake, metric, tmp_path, capsys):
    fake()
    roomy, tight = metric(refused=()), None
    _, rows = measured(tmp_path / "roomy")
    tight = metric(refused=(), most=3)
    code, same = measured(tmp_path / "tight")
    assert code == 0
    assert same["shapes_pick"].to_dict() == pytest.approx(rows["shapes_pick"].to_dict(), nan_ok=True)
    assert {len(prompts) for prompts in roomy.seen} == {8}
    sizes = [len(prompts) for prompts in tight.seen]
    assert sizes[:2] == [8, 4]
    assert set(sizes[2:]) == {2}
    assert "out of memory: shapes_pick measures 2 pictures a call" in capsys.readouterr().out


def test_a_judge_that_has_no_room_beside_the_model_waits_until_all_pictures_are_made(
    fake, metric, tmp_path, monkeypatch
):
    built = fake()
    judge = metric(refused=())
    left = []
    monkeypatch.setattr(work, "waiting", lambda files, beside: frozenset({"shapes_pick"}))
    monkeypatch.setattr(build, "forget_backbone", lambda: left.append((len(built), len(judge.seen))))
    monkeypatch.setattr(build, "forget_rewards", lambda: None)
    code, rows = measured(tmp_path, "run.in_flight=2")
    assert code == 0
    assert left == [(1, 0)], "one sampler was built, and nothing measured before it left"
    assert rows.loc["eleven", "shapes_pick"] == 6
    assert set(rows["status"]) == {"ok", "ok: shapes_pick is not finite"}
    code, _ = measured(tmp_path, "run.in_flight=2")
    assert code == 0
    assert len(left) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda values: values[:3], "reward shapes_pick returned 3 values for 8 pictures"),
        (lambda values: ["a"] * len(values), "reward shapes_pick returned a list of str for 8 pictures"),
        (lambda values: None, "reward shapes_pick returned None for 8 pictures"),
        (lambda values: [values], "returned numbers of shape (1, 8) for 8 pictures"),
    ],
)
def test_a_metric_that_returns_something_else_is_called_that(fake, metric, tmp_path, capsys, answer, words):
    built = fake()
    metric(answer=answer)
    code, rows = measured(tmp_path)
    err = capsys.readouterr().err
    assert code == 1
    assert err.count("\n") == 1
    assert words in err
    assert "nothing was sampled" in err
    assert not built
    assert len(rows) == 0
    metric(refused=())
    assert measured(tmp_path)[0] == 0  # the same command goes on


def test_a_finished_run_is_measured_by_more_metrics_and_makes_nothing_again(fake, metric, tmp_path, capsys):
    built = fake()
    metric(refused=())
    assert measured(tmp_path / "both")[0] == 0
    assert measured(tmp_path / "later", "metrics=none", "metrics.rewards=[]")[0] == 0
    before = files(tmp_path / "later" / "run")
    built.clear()
    capsys.readouterr()
    assert measured(tmp_path / "later")[0] == 0
    out = capsys.readouterr().out
    assert "9, 9 done already, 0 to make, 9 of those done to measure" in out
    assert "to measure: checker, shapes_pick" in out
    assert "9/9 measured" in out
    assert not built
    after = files(tmp_path / "later" / "run")
    assert after == files(tmp_path / "both" / "run")
    assert {**after, "rows": before["rows"]} == before


def test_a_metric_of_other_weights_is_measured_anew(fake, metric, tmp_path, monkeypatch):
    built = fake()
    metric(refused=())
    measured(tmp_path)
    built.clear()
    again = metric(refused=(), answer=lambda values: [value + 1 for value in values])
    assert measured(tmp_path)[1].loc["one", "shapes_pick"] == 3
    assert not again.seen
    monkeypatch.setattr("align.runner.files.Files.reward_fingerprint", lambda files, name: "others")
    assert measured(tmp_path)[1].loc["one", "shapes_pick"] == 4
    assert not built


def test_a_reward_that_always_fails_costs_no_sampling(fake, monkeypatch, tmp_path, capsys):
    def fails(*_):
        raise ZeroDivisionError("division by zero")

    built = fake()
    monkeypatch.setattr(build, "load_reward", lambda name, device: type("R", (), {"score": fails})())
    assert main(arguments(tmp_path, "method=best_of_n", "method.particles=2")) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "reward shapes_pick fails on a grey picture (ZeroDivisionError: division by zero)" in err
    assert not built
    assert "Traceback" in (tmp_path / "run" / "errors.log").read_text()
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 0


def test_a_group_that_fails_whole_ends_the_run_after_one_attempt(fake, tmp_path, capsys):
    def third_call_fails(requests):
        calls.append(len(requests))
        if len(calls) == 2:
            raise ValueError("something else is broken")

    calls = []
    fake(hook=third_call_fails)
    assert main(arguments(tmp_path)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "3 items failed together (ValueError: something else is broken)" in err
    assert "the same command goes on" in err
    assert calls == [3, 3]  # neither halves nor the rest
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert (
        list(rows["status"].str.startswith("failed: ValueError: something else")) == [False] * 3 + [True] * 3
    )
    assert main(arguments(tmp_path)) == 0
    assert calls == [3, 3, 3, 2]


def test_a_group_whose_items_all_fail_alike_ends_the_run(fake, tmp_path, capsys, monkeypatch):
    """As with a reward that is no number for any picture: nothing raises."""

    def broken(self, request):
        return Outcome(None, Cost(1), {}, "no particle has a finite reward")

    fake()
    monkeypatch.setattr(FakeSampler, "outcome", broken)
    assert main(arguments(tmp_path)) == 1
    assert "3 items failed alike (no particle has a finite reward)" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "run" / "results.csv")) == 3


def test_what_ended_a_run_keeps_nothing_from_being_made(fake, tmp_path):
    """Whatever cannot be drawn comes last the next time."""

    def poison(requests):
        drawn.append([request.prompt for request in requests])
        if any(request.prompt == "two" for request in requests):
            raise ValueError("no")

    drawn = []
    fake(hook=poison)
    more = ["prompts=text", "prompts.text=[one,two,three,four]", "run.in_flight=1"]
    assert main(arguments(tmp_path, *more)) == 1
    assert main(arguments(tmp_path, *more)) == 1
    assert drawn == [["one"], ["two"], ["three"], ["four"], ["two"]]


def test_a_sweep_compares_its_runs(fake, tmp_path, monkeypatch, capsys):
    fake()
    monkeypatch.chdir(tmp_path)
    common = [text for text in arguments(tmp_path) if "folder" not in text and "gallery" not in text]
    assert (
        main(
            [
                "-m",
                *common,
                "backbone.weights=weights",
                "prompts.limit=2",
                "method=none,best_of_n",
                "seed=0,1",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "Paired difference to none" in out
    made = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    folders = [
        f"shapes-{method}-shapes_demo-seed{seed}-weights=weights"
        for method in ("best_of_n", "none")
        for seed in (0, 1)
    ]
    assert made == sorted([*folders, "gallery.html", "contact_sheet.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "weights"]
    assert (tmp_path / "outputs" / folders[0] / "gallery.html").exists()


def test_missing_weights_of_one_run_stop_all(fake, tmp_path, monkeypatch):
    built = fake()
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *arguments(tmp_path), "backbone.weights=weights,nowhere"]) == 3
    assert not built
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_hostile_prompts_round_trip(fake, tmp_path):
    fake()
    assert len(HOSTILE) >= 40
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in HOSTILE))
    more = ["prompts=file", f"prompts.path={path}", "prompts.limit=null"]
    assert main(arguments(tmp_path / "x", *more)) == 0
    rows = read_csv(tmp_path / "x" / "run" / "results.csv")
    assert list(rows["prompt"]) == HOSTILE
    assert set(rows["status"]) == {"ok"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hostile.jsonl", "x"]
    assert sorted(one.name for one in (tmp_path / "x").iterdir()) == ["run", "weights"]
    assert all((tmp_path / "x" / "run" / image).is_file() for image in rows["image"])
    assert main(arguments(tmp_path / "x", *more)) == 0
