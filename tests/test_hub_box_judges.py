"""The judges of today by their real names, from the hub's cache to the command's results, with tiny weights."""

import json
import math

import pytest
from hub_box import JUDGED
from PIL import Image
from rewards.judge_box import TEXT_SHA256

from align.__main__ import main
from align.config.places import group_choices
from align.rewards import hpsv3
from align.rewards.judges import GENEVAL2_DATA, JUDGES
from align.store.csvfile import read_csv

NAMES = [*JUDGES, "aesthetic25"]
GUIDES = [name for name in NAMES if name in group_choices("reward")]
TINY = [
    "backbone=sd15",
    "prompts=text",
    f"prompts.text=[{JUDGED}]",
    "backbone.height=64",
    "backbone.width=64",
    "sampler.steps=2",
    "run.gallery=false",
    "run.device=cpu",
]


@pytest.fixture(autouse=True)
def _the_boxs_text(at_home, monkeypatch):
    monkeypatch.setattr(hpsv3, "TEXT_SHA256", TEXT_SHA256)


def test_every_judge_scores_pictures_that_are_there(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate([(64, 64), (90, 60), (64, 64)]):
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(JUDGED)
    out = tmp_path / "score"
    command = ["score", str(folder), f"metrics.rewards=[{','.join(NAMES)}]", f"run.folder={out}"]
    assert main([*command, "run.device=cpu"]) == 0, capsys.readouterr().err
    rows = read_csv(out / "results.csv")
    assert len(rows) == 3
    assert set(rows["status"]) == {"ok"}
    for name in NAMES:
        assert rows[name].map(math.isfinite).all(), name
    record = json.loads((out / "run.json").read_text())["record"]["fingerprints"]
    assert record["reward vqascore_qwen25: dtype"] == "bfloat16"
    assert record["reward vqascore_qwen25: version"] == "penalty checkpoint"
    assert len(record["reward hpsv3: revision of MizzenAI/HPSv3"]) == 40
    assert record["reward mps: version"] == "overall, threshold 0.3"


@pytest.mark.parametrize("reward", GUIDES)
@pytest.mark.parametrize("method", ["best_of_n", "dps"])
def test_every_judge_ranks_and_guides(method, reward, tmp_path, capsys):
    own = ["method.particles=2"] if method == "best_of_n" else []
    command = [*TINY, f"method={method}", *own, f"reward={reward}", "metrics=none"]
    assert main([*command, f"run.folder={tmp_path}"]) == 0, capsys.readouterr().err
    (row,) = read_csv(tmp_path / "results.csv").to_dict("records")
    assert row["reward"] == row["optimised"] == reward
    assert row["nonfinite_gradients"] in (0, "") or math.isnan(row["nonfinite_gradients"])
    assert row["reward_forward"] >= 2
    if method == "dps":
        assert row["reward_backward"] > 0


def test_a_judge_without_a_gradient_is_refused_in_one_line(capsys):
    command = [*TINY, "method=dps", "reward=sum", "reward.terms.geneval2_tifa=1"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "reward geneval2_tifa has no gradient" in err


def test_large_judges_compute_in_their_own_numbers_only(capsys):
    assert main([*TINY, "method=best_of_n", "reward=hpsv3", "reward.dtype=float32"]) == 2
    assert "hpsv3 computes in bfloat16, as published" in capsys.readouterr().err


def test_prompts_of_another_benchmark_are_found_before_anything_is_made(tmp_path, capsys):
    command = [*TINY, "prompts.text=[a lighthouse]", "method=none", "metrics.rewards=[geneval2_am]"]
    assert main([*command, f"run.folder={tmp_path}"]) != 0
    assert "none of GenEval 2's" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def test_the_benchmarks_own_file_is_a_set_of_prompts(at_home, tmp_path, capsys):
    data = at_home / "align" / GENEVAL2_DATA.reference / GENEVAL2_DATA.names[0]
    prompts = ["prompts=file", f"prompts.path={data}", "prompts.tag_columns=[atom_count,skills]"]
    command = [*TINY[:1], *TINY[3:], *prompts, "method=none", "metrics.rewards=[geneval2_am,geneval2_gm]"]
    assert main([*command, f"run.folder={tmp_path}"]) == 0, capsys.readouterr().err
    (row,) = read_csv(tmp_path / "results.csv").to_dict("records")
    assert str(row["tag_atom_count"]) == "2"
    assert 0 < row["geneval2_gm"] <= row["geneval2_am"]
    first, second = map(float, row["info_geneval2_am"].split(";"))
    assert row["geneval2_am"] == pytest.approx((first + second) / 2)
    out = tmp_path / "report"
    assert main(["report", str(tmp_path), "--by", "skills", "--out", str(out)]) == 0
    by_skill = read_csv(out / "groups.csv").set_index("group")
    assert by_skill["geneval2_am"].to_dict() == {"count": first, "attribute": second}
    assert by_skill["geneval2_gm"].tolist() == [row["geneval2_gm"]] * 2


def test_doctor_tells_size_and_licence(capsys):
    main(["doctor", "backbone=sd15"])
    lines = capsys.readouterr().out.splitlines()
    told = {line.split("  ")[1].strip(): line for line in lines if line.startswith("  reward ")}
    assert told["reward hpsv3"].endswith("(16.6 GB, MIT)")
    assert any("AGPL-3.0" in line and "aesthetic25" in line for line in lines)
