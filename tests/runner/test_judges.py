"""Judges elsewhere in whole runs: whatever a server does, no picture is lost, the row says why, the same command goes on."""

import sys
from pathlib import Path

import pytest
from PIL import Image
from rewards.judge_server import good, serving

from align.__main__ import main
from align.config.command import Command
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import judges
from align.runner.prompts import load_prompts
from align.store.csvfile import read_csv

from .helpers import arguments

SERVER = Path(__file__).parents[2] / "scripts/reward_server.py"


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(server, fake, tmp_path, capsys):
    """The command with ``metrics=http``: its code, rows, errors, and how many pictures it made."""

    def one(*more):
        built = fake()
        options = ["metrics.rewards=[http]", "metrics.checker=false"]
        options += [f"judges.http.endpoint={server.url}", "judges.http.retries=0", "judges.http.batch=3"]
        code = main(arguments(tmp_path, "method=none", *options, *more))
        made = sum(len(call) for sampler in built for call in sampler.calls)
        folder = tmp_path / "run"
        rows = read_csv(folder / "results.csv") if (folder / "results.csv").is_file() else None
        return code, rows, capsys.readouterr().err, made

    return one


def after(number, then):
    """A server that answers so many requests well, and then otherwise."""
    left = [number]

    def answer(request):
        left[0] -= 1
        return good(request) if left[0] >= 0 else then(request)

    return answer


def asked(server):
    return [one["id"] for request in server.asked for one in request["items"]]


def test_every_picture_is_judged_once(run, server):
    code, rows, _, made = run()
    assert code == 0
    assert made == 8
    assert rows["http"].notna().all()
    number = len(server.asked)
    assert len(set(asked(server))) == len(asked(server))
    assert run()[0] == 0
    assert len(server.asked) == number


SPOILT = {
    "is killed": lambda request: "drop",
    "answers nonsense": lambda request: b"<html>",
    "answers a wrong count": lambda request: good(request, scores=[1.0] * 50, errors=[None] * 50),
    "is another one": lambda request: good(request, model="m@2"),
    "is broken": lambda request: 500,
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_server_that_fails_in_mid_run_costs_no_picture(case, run, server):
    server.usual = after(4, SPOILT[case])
    code, rows, error, made = run()
    assert code == 1
    assert "http cannot be measured" in error
    assert "the same command goes on" in error
    assert rows["image"].astype(bool).all()
    without = rows["http"].isna()
    assert rows.loc[without, "status"].str.startswith("ok: http failed: ").all()
    assert without.any()
    assert not without.all()
    kept = made
    server.usual = good
    code, rows, _, made = run()
    assert code == 0
    assert made == 8 - kept
    assert rows["http"].notna().all()
    assert rows["status"].eq("ok").all()


def test_a_row_that_fails_says_why_and_is_tried_again(run, server):
    why = lambda request: good(  # noqa: E731
        request, errors=["no face" if k == 0 else None for k, _ in enumerate(request["items"])]
    )
    server.usual = after(2, why)  # the trial on grey pictures takes some
    code, rows, _, _ = run()
    assert code == 1
    failed = rows[rows["http"].isna()]
    assert len(failed) > 0
    assert failed["status"].str.contains("no face").all()
    server.usual = good
    code, rows, _, made = run()
    assert (code, made) == (0, 0)
    assert rows["http"].notna().all()


def test_nobody_listens_and_nothing_is_made(run, server):
    server.close()
    code, rows, error, made = run()
    assert code == 2
    assert rows is None
    assert made == 0
    assert error.count("\n") == 1
    assert "cannot be used" in error


def test_the_record_says_who_judged(run, server, tmp_path):
    server.health = {"model": "mine", "version": "3"}
    run()
    record = (tmp_path / "run/run.json").read_text()
    assert '"reward http: judge\'s model": "mine"' in record


def test_a_server_that_guides_is_asked_for_what_can_win(server, tmp_path, monkeypatch):
    """With ``best_of_n`` the highest score wins, and a row without a score never does."""
    server.usual = lambda request: good(
        request, errors=["broken" if k % 2 else None for k, _ in enumerate(request["items"])]
    )
    options = ["backbone=toy_gmm", "prompts=toy", "prompts.limit=1", "method=best_of_n", "method.particles=4"]
    options += ["reward=http", f"judges.http.endpoint={server.url}", "metrics=none", "sampler.steps=2"]
    assert main([*options, f"run.folder={tmp_path / 'run'}", "run.gallery=false"]) == 0
    rows = read_csv(tmp_path / "run/results.csv")
    assert rows["status"].eq("ok").all()
    assert rows["optimised"].eq("http").all()


def test_pictures_that_are_there_are_judged_by_another_interpreter(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for shade in (0, 255):
        Image.new("RGB", (16, 16), (shade,) * 3).save(folder / f"{shade}.png")
        (folder / f"{shade}.txt").write_text("a square")
    command = f"[{sys.executable},{SERVER},jpeg_incompressibility,--pipe]"
    options = ["metrics.rewards=[process,jpeg_incompressibility]", f"judges.process.command={command}"]
    assert (
        main(["score", str(folder), *options, f"run.folder={tmp_path / 'scores'}", "run.gallery=false"]) == 0
    )
    rows = read_csv(tmp_path / "scores/results.csv")
    assert rows["process"].tolist() == rows["jpeg_incompressibility"].tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["metrics.rewards=[http]"], r"give judges\.http\.endpoint=URL"),
        (["metrics.rewards=[vlm]", "judges.vlm.endpoint=http://localhost:1"], r"give judges\.vlm\.model"),
        (["metrics.rewards=[process]"], r"give 'judges\.process\.command="),
        (["metrics.rewards=[http]", "judges.http.endpoint=ftp://x"], "is no URL"),
        (["metrics.rewards=[http]", "judges.http.endpoint=http://u:p@x"], "holds a password"),
        (["reward=http", "method=best_of_n"], r"give judges\.http\.endpoint=URL"),
        (["reward=http", "method=dymo", "judges.http.endpoint=http://x"], "reward http has no gradient"),
    ],
)
def test_what_is_missing_is_one_line(options, words):
    with pytest.raises(ConfigError, match=words):
        jobs_of(Command(tuple(options)))


@pytest.mark.parametrize("path", ["http.endpoint", "vlm.endpoint"])
def test_a_file_names_only_hosts_that_the_users_own_settings_hold(path, tmp_path, monkeypatch):
    section, name = path.split(".")
    folder = tmp_path / "conf/judges"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"# Mine\nname: mine\n{section}:\n  {name}: http://Box:8000/v1\n")
    command = Command(("judges=mine",), config_dir=tmp_path / "conf")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    with pytest.raises(ConfigError, match=rf"judges\.{section}\.{name} .*, or a line http://box:8000 in ~/"):
        jobs_of(command)
    hosts = tmp_path / "settings/align/hosts"
    hosts.parent.mkdir(parents=True)
    hosts.write_text("# those of the lab\nhttp://box:9000\n")
    with pytest.raises(ConfigError):
        jobs_of(command)
    hosts.write_text("http://box:8000\n")
    (job,) = jobs_of(command)
    assert getattr(getattr(job.config.judges, section), name) == "http://Box:8000/v1"


def test_no_file_names_a_program(tmp_path):
    folder = tmp_path / "conf/judges"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# Mine\nname: mine\nprocess:\n  command: [evil]\n")
    with pytest.raises(ConfigError, match=r"judges\.process\.command .* names code"):
        jobs_of(Command(("judges=mine",), config_dir=tmp_path / "conf"))


def test_metrics_whose_prompts_lack_what_they_read_are_refused_before_the_run():
    (job,) = jobs_of(Command(("prompts=geneval", "metrics.rewards=[geneval]")))
    whole = load_prompts(job.config.prompts)
    rows = [(row.text, row.tags) for row in whole.rows]
    judges.check_prompts(["geneval"], job.config.judges, rows)
    with pytest.raises(
        ConfigError, match=r"geneval cannot judge 'a cat': it does not say .* prompts=geneval"
    ):
        judges.check_prompts(["geneval"], job.config.judges, [("a cat", {})])
    odd = '[{"class":"unicorn","count":1}]'
    with pytest.raises(ConfigError, match="knows no class 'unicorn'"):
        judges.check_prompts(["geneval"], job.config.judges, [("a unicorn", {"include": odd})])
    with pytest.raises(ConfigError, match=r"ocr cannot judge 'a', 'b', 'c' and 1 more: it has no text"):
        judges.check_prompts(["ocr"], job.config.judges, [(prompt, {}) for prompt in "abcd"])
    judges.check_prompts(["ocr"], job.config.judges, [('a shop "Open"', {})])
    one, two = ({"include": f'[{{"class":"{name}","count":1}}]'} for name in ("cat", "dog"))
    with pytest.raises(ConfigError, match="the prompt a is listed with different tag or include or exclude"):
        judges.check_prompts(["geneval"], job.config.judges, [("a", one), ("a", two)])
    judges.check_prompts(["geneval"], job.config.judges, [("a", one), ("a", {**one, "id": "7"})])
