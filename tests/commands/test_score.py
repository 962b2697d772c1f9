"""``align score``: pictures and prompts stay paired, every picture has its row, and a finished folder is gone on with."""

import csv
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scoring.helpers import Judge, write

from align.__main__ import main
from align.runner import build
from align.scoring import work
from align.store.csvfile import read_csv


@pytest.fixture
def judge(monkeypatch):
    judge = Judge()
    monkeypatch.setattr(build, "load_reward", lambda name, device: judge)
    monkeypatch.setattr(build, "check_reward", lambda name, device: None)
    return judge


@pytest.fixture
def pictures(tmp_path):
    """Ten pictures of different sizes and colours, and a table of their prompts in another order."""
    folder = tmp_path / "pictures"
    (folder / "sub folder").mkdir(parents=True)
    names = [f"{'sub folder/' * (k % 2)}{k}.{'png' if k % 3 else 'bmp'}" for k in range(10)]
    for k, name in enumerate(names):
        Image.new("RGB", (8 + k, 20 - k), (20 * k, 20 * k, 20 * k)).save(folder / name)
    rows = [(name, "x" * (k + 1)) for k, name in enumerate(names)]
    random.Random(0).shuffle(rows)
    write(folder / "prompts.csv", rows)
    return folder


def score(pictures, *more, folder=None):
    """The command; returns its code and rows."""
    folder = folder or pictures.parent / "scores"
    options = [f"run.folder={folder}", "run.gallery=false", "run.threads=1"]
    metrics = (
        [] if any(str(text).startswith("metrics") for text in more) else ["metrics.rewards=[shapes_pick]"]
    )
    code = main(["score", str(pictures), *options, *metrics, *map(str, more)])
    return code, read_csv(folder / "results.csv") if (folder / "results.csv").is_file() else None


def expected(name):
    k = int(Path(name).stem)
    return 100 * (k + 1) + np.float32(20 * k) / 255


def test_judges_that_have_no_room_for_each_other_measure_one_after_another(pictures, judge, monkeypatch):
    _, plain = score(pictures)
    turns = []
    monkeypatch.setattr(work, "waiting", lambda files, beside: frozenset({"shapes_pick", "shapes_hps"}))
    monkeypatch.setattr(build, "forget_rewards", lambda: turns.append(1))
    both = "metrics.rewards=[shapes_pick,shapes_hps]"
    code, rows = score(pictures, both, folder=pictures.parent / "turns")
    assert code == 0
    assert len(turns) == 2
    assert set(rows["status"]) == {"ok"}
    for name in ("shapes_pick", "shapes_hps"):
        assert list(rows[name]) == list(plain["shapes_pick"])


def test_pictures_and_prompts_are_paired_whatever_the_order_and_size(pictures, judge):
    code, rows = score(pictures)
    assert code == 0
    assert list(rows["info_picture"]) != sorted(rows["info_picture"])  # in the order of the table
    for name, prompt, value in zip(rows["info_picture"], rows["prompt"], rows["shapes_pick"], strict=True):
        assert len(prompt) == int(Path(name).stem) + 1
        assert value == pytest.approx(expected(name), abs=1e-4)
    table = list(csv.reader((pictures / "prompts.csv").open()))[1:]
    write(pictures.parent / "other.csv", table[::-1])
    _, again = score(pictures, "--prompts", pictures.parent / "other.csv", folder=pictures.parent / "turned")
    values = dict(zip(rows["info_picture"], rows["shapes_pick"], strict=True))
    assert dict(zip(again["info_picture"], again["shapes_pick"], strict=True)) == values  # to the last bit
    assert list(again["info_picture"]) == list(rows["info_picture"])[::-1]


def test_a_score_is_gone_on_with_and_only_what_is_new_is_measured(pictures, judge):
    score(pictures)
    count = len(judge.seen)
    code, rows = score(pictures)
    assert (code, len(judge.seen)) == (0, count)
    Image.new("RGB", (5, 5), "white").save(pictures / "0.bmp")  # another picture of that name
    with open(pictures / "prompts.csv", "a") as file:
        file.write("0.bmp,a second prompt\n")
    code, more = score(pictures)
    assert code == 0
    assert set(judge.seen[count:]) == {"x", "a second prompt"}
    assert len(more) == 11  # the row of the picture that is no more is gone
    assert sorted(more.loc[more["info_picture"] == "0.bmp", "shapes_pick"]) == [101, 1501]
    old = rows[rows["info_picture"] != "0.bmp"].set_index("key")["shapes_pick"]
    assert (more.set_index("key").loc[old.index, "shapes_pick"] == old).all()


def test_pictures_are_kept_byte_by_byte_and_never_written_to(pictures, judge):
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    _, rows = score(pictures)
    for image, name in zip(rows["image"], rows["info_picture"], strict=True):
        kept = pictures.parent / "scores" / image
        assert kept.read_bytes() == (pictures / name).read_bytes()
        assert kept.suffix == Path(name).suffix
        assert not kept.is_symlink()
        kept.unlink()
    assert score(pictures)[0] == 0
    assert {path: path.read_bytes() for path in pictures.rglob("*.*")} == before


def test_what_cannot_be_read_is_its_own_row(pictures, judge, capsys):
    bad = {"4.png": b"", "sub folder/5.png": b"no picture", "7\x1b[2J.png": b"left out"}
    for name, data in bad.items():
        (pictures / name).write_bytes(data)
    code, rows = score(pictures)
    assert code == 1
    failed = rows[rows["status"] != "ok"].set_index("info_picture")["status"]
    assert sorted(failed.index) == ["4.png", "sub folder/5.png"]
    assert failed["4.png"] == "failed: 4.png: the file is empty"
    assert rows["shapes_pick"].notna().sum() == 8
    out = capsys.readouterr().out
    assert r"1 picture (7\x1b[2J.png) that prompts.csv does not name" in out
    Image.new("RGB", (9, 9)).save(pictures / "4.png")
    Image.new("RGB", (9, 9)).save(pictures / "sub folder/5.png")
    code, rows = score(pictures)
    assert (code, len(rows)) == (0, 10)
    assert set(rows["status"]) == {"ok"}


@pytest.mark.parametrize("ending", ["jsonl", "json", "tsv", "parquet"])
def test_tables_of_every_kind_name_pictures_prompts_seeds_and_tags(pictures, judge, ending, tmp_path):
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    rows = [
        {"file_name": name, "text": f"prompt {k}", "seed": k, "kind": "a"} for k, name in enumerate(names)
    ]
    path = pictures / f"metadata.{ending}"
    (pictures / "prompts.csv").unlink()
    if ending == "tsv":
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = map(json.dumps, rows)
        path.write_text("\n".join(lines) if ending == "jsonl" else json.dumps(rows))
    code, found = score(pictures, "prompts.column=text")
    assert code == 0
    assert list(found["info_picture"]) == names
    assert list(found["prompt"]) == [f"prompt {k}" for k in range(len(names))]
    assert list(found["seed"]) == list(range(len(names)))
    assert set(found["tag_kind"]) == {"a"}


def test_prompts_may_stand_in_texts_beside_the_pictures(pictures, judge, capsys):
    (pictures / "prompts.csv").unlink()
    for path in pictures.rglob("*.[pb][nm][gp]"):
        path.with_suffix(".txt").write_text("y" * int(path.stem) + "\n")
    code, rows = score(pictures)
    assert code == 0
    assert all(
        len(prompt) == int(Path(name).stem)
        for name, prompt in zip(rows["info_picture"], rows["prompt"], strict=True)
    )
    (pictures / "2.txt").unlink()
    assert score(pictures, folder=pictures.parent / "other") == (2, None)
    assert "1 picture (2.png) without a prompt, which shapes_pick read" in capsys.readouterr().err
    code, rows = score(pictures, "metrics.rewards=[jpeg_compressibility]")
    assert code == 0  # which reads none


WRONG = {
    "no such folder": (["nowhere"], "there is no nowhere"),
    "no pictures": (["empty"], "holds no pictures"),
    "a picture": (["pictures/2.png"], "is one picture"),
    "an option of runs": (["pictures", "method=dymo"], "takes no method"),
    "nothing to measure": (["pictures", "metrics=none"], "measures nothing"),
    "another separator": (["pictures", "--prompts", "missing.csv"], "missing.csv"),
    "a missing picture": (
        ["pictures", "--prompts", "names.csv"],
        "1 picture (gone.png (line 3)) that are not in",
    ),
    "no column of pictures": (["pictures", "--prompts", "prompt.csv"], "no column image or file_name"),
    "the same sample": (["pictures", "--prompts", "twice.csv"], "line 2 and"),
    "two tables": (["two"], "prompts.csv and metadata.csv"),
    "outside": (["two/inner"], "is outside of two/inner"),
    "results among the pictures": (["pictures", "run.folder=pictures"], "is the folder of the pictures"),
    "a folder for the copy": (["pictures", "--out", "empty"], "--out empty is a folder"),
    "no folder for the copy": (["pictures", "--out", "gone/x.csv"], "there is no folder gone"),
    "a copy over what is read": (
        ["pictures", "--out", "pictures/prompts.csv"],
        "would replace what is read",
    ),
    "a copy over the journal": (["pictures", "--out", "made/journal.jsonl"], "there is no folder made"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_one_line_before_any_work(case, pictures, judge, capsys, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    (pictures.parent / "empty").mkdir()
    write("names.csv", [("2.png", "a"), ("gone.png", "b")])
    write("prompt.csv", [("a",)], ["prompt"])
    write("twice.csv", [("2.png", "a", 0), ("4.png", "a", 0)], ["image", "prompt", "sample"])
    inner = pictures.parent / "two" / "inner"
    inner.mkdir(parents=True)
    for name in ("prompts.csv", "metadata.csv"):
        write(inner.parent / name, [("a.png", "b")])
    write(inner / "prompts.csv", [("../../pictures/2.png", "b")])
    arguments, said = WRONG[case]
    metrics = [] if any("metrics" in text for text in arguments) else ["metrics.rewards=[shapes_pick]"]
    folder = [] if any("run.folder" in text for text in arguments) else ["run.folder=made"]
    assert main(["score", *arguments, *metrics, *folder]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert not Path("made").exists()


def test_an_earlier_run_gains_metrics_or_is_scored_apart(pictures, judge, capsys):
    """A score is a run's folder too."""
    _, before = score(pictures)
    code, rows = score(pictures.parent / "scores", "metrics.rewards=[jpeg_compressibility]")
    assert code == 0
    assert list(rows["shapes_pick"]) == list(before["shapes_pick"])  # nothing is lost
    assert rows["jpeg_compressibility"].nunique() > 1 or rows["jpeg_compressibility"].notna().all()
    assert list(rows["key"]) == list(before["key"])
    run = json.loads((pictures.parent / "scores" / "run.json").read_text())
    assert run["identity"]["score"]["label"] == "pictures"
    assert score(pictures)[0] == 0  # and the first command still goes on with it
    code, apart = score(pictures.parent / "scores", folder=pictures.parent / "apart")
    assert code == 0
    for name in ("prompt", "seed", "sample", "method", "shapes_pick"):
        assert list(apart[name]) == list(before[name]), name


def test_a_score_in_place_goes_by_the_journal_and_leaves_the_run_its_status(pictures, judge, capsys):
    """The table of a run that was killed is behind; and a run that is not at its end is not ended by being scored."""
    _, before = score(pictures)
    home = pictures.parent / "scores"
    table, record = home / "results.csv", home / "run.json"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:3]))
    run = json.loads(record.read_text()) | {"status": "interrupted", "plan": {"items": 12}}
    record.write_text(json.dumps(run))
    code, rows = score(home, "metrics.rewards=[jpeg_compressibility]")
    assert code == 0
    assert list(rows["key"]) == list(before["key"])
    assert rows["jpeg_compressibility"].notna().all()
    after = json.loads(record.read_text())
    for name in ("status", "plan", "counts", "identity"):
        assert after[name] == run[name], name
    assert [one["session"] for one in after["sessions"]] == [1, 2]
    (home / "journal.jsonl").rename(home / "elsewhere")
    kept = table.read_bytes()
    assert score(home, "metrics.rewards=[jpeg_compressibility]")[0] == 2
    assert "journal.jsonl, which holds the rows of" in capsys.readouterr().err
    assert table.read_bytes() == kept


def test_names_of_pictures_and_labels_do_nothing_to_the_terminal(pictures, judge, capsys):
    (pictures / "odd\x1b[31m.png").write_bytes(b"")
    assert score(pictures, "--label", "a\x1b[31mb\nc")[0] == 0
    assert main(["score", "nowhere\x1b[31m"]) == 2
    write(pictures / "prompts.csv", [("odd\x1b[31m.png", "it cannot be read")])
    assert score(pictures, "run.extend=true")[0] == 1
    (pictures.parent / "scores").rename(pictures.parent / "x\x1b[31m")
    assert main(["report", str(pictures.parent / "x\x1b[31m")]) == 0
    told = "".join(capsys.readouterr())
    assert "\x1b" not in told
    for name in ("odd\\x1b[31m.png", "a\\x1b[31mb?c", "nowhere\\x1b[31m"):
        assert name in told


def test_report_and_gallery_take_scores_and_compare_them_by_label(pictures, judge, capsys, tmp_path):
    for label in ("first", "second"):
        more = ["--label", label, "--out", str(tmp_path / f"{label}.csv"), f"run.root={tmp_path}"]
        assert main(["score", str(pictures), "metrics.rewards=[shapes_pick]", *more]) == 0
        assert len(read_csv(tmp_path / f"{label}.csv")) == 10
    folders = sorted(map(str, tmp_path.glob("score-*")))
    assert [re.sub("-[0-9a-f]{8}$", "", os.path.basename(one)) for one in folders] == [
        "score-first",
        "score-second",
    ]
    capsys.readouterr()
    assert main(["report", *folders, "--baseline", "first"]) == 0
    assert "Paired difference to first" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["gallery", *folders, "--out", str(page)]) == 0
    assert page.read_text().count("data:image/") == 20


def test_missing_weights_come_before_the_work(pictures, capsys, at_home_of_nothing):
    assert main(["score", str(pictures), f"run.folder={pictures.parent / 'made'}"]) == 3
    err = capsys.readouterr().err
    assert "yuvalkirstain/PickScore_v1" in err
    assert not (pictures.parent / "made").exists()


@pytest.fixture
def at_home_of_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("ALIGN_CHECKPOINTS", raising=False)


@pytest.mark.parametrize(
    ("was", "becomes"), [(",0,0,", ",0,x,"), ("images/", "../two/"), ("images/", "images/\\x00")]
)
def test_a_run_is_read_from_its_journal_whatever_its_table_says(was, becomes, pictures, judge):
    score(pictures)
    folder = pictures.parent / "scores"
    text = (folder / "results.csv").read_text()
    assert was in text
    (folder / "results.csv").write_text(text.replace(was, becomes))
    apart = pictures.parent / "apart"
    assert main(["score", str(folder), "metrics.rewards=[shapes_pick]", f"run.folder={apart}"]) == 0
    assert len(read_csv(apart / "results.csv")) == 10
