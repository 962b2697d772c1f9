"""The judges of today by their real names, from the hub's cache to the command's results, with tiny weights."""

import json
import math

import pytest
import torch
from hub_box import JUDGED
from PIL import Image
from rewards.judge_box import TEXT_SHA256
from transformers.models.pp_ocrv5_server_det.image_processing_pp_ocrv5_server_det import (
    PPOCRV5ServerDetImageProcessor,
)

from align.__main__ import main
from align.config.places import group_choices
from align.rewards import hpsv3, recognisers
from align.rewards.judges import GENEVAL2_DATA, JUDGES
from align.rewards.looking import LOOKING
from align.rewards.published import PUBLISHED
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
    published = {**PUBLISHED, **LOOKING}
    assert all(one.about for spec in published.values() for one in spec.weights)


READERS = ("ocr", "ocr_server", "ocr_got")
PLACES = [[[4, 4], [60, 4], [60, 20], [4, 20]], [[8, 36], [50, 36], [50, 50], [8, 50]]]


@pytest.fixture
def written(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.effect_noise((64, 64), 80).convert("RGB").save(folder / "0.png")
    (folder / "0.txt").write_text('a shop "Aa"')
    command = ["score", str(folder), f"run.folder={tmp_path / 'score'}", "run.device=cpu"]
    return lambda *names: [*command, f"metrics.rewards=[{','.join(names)}]"]


def test_every_reader_reads_a_picture(at_home, written, tmp_path, capsys, monkeypatch):
    """All but the boxes, which OpenCV cuts out of the detector's map."""
    monkeypatch.setattr(recognisers, "MOST_TOKENS", 4)
    monkeypatch.setattr("align.rewards.spec.find_spec", lambda module: module)
    seen = []

    def boxes(self, found, target_sizes):
        seen.append((found.last_hidden_state.shape, target_sizes.tolist()))
        return [{"boxes": torch.tensor(PLACES, dtype=torch.int16)}]

    monkeypatch.setattr(PPOCRV5ServerDetImageProcessor, "post_process_object_detection", boxes)
    assert main(written(*READERS)) == 0, capsys.readouterr().err
    (row,) = read_csv(tmp_path / "score/results.csv").to_dict("records")
    assert row["status"] == "ok"
    assert row["ocr"] == row["ocr_server"] == 1.0  # two lines of "a"
    assert 0 <= row["ocr_got"] <= 1
    assert seen[-2:] == [((1, 1, 64, 64), [[64.0, 64.0]])] * 2


def test_a_reader_without_its_package_is_refused_before_any_work(
    at_home, written, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("align.rewards.spec.find_spec", lambda module: None if module == "cv2" else module)
    assert main(written("ocr")) == 2
    err = capsys.readouterr().err
    assert err.startswith("align: ocr needs cv2, which is not there: pip install -e '.[ocr]'")
    assert err.count("\n") == 1
    assert not (tmp_path / "score/results.csv").exists()
    main(["doctor"])
    assert f"  {'ocr_server':<16} needs cv2" in capsys.readouterr().out
