"""The check of a GPU, on tiny networks and a CPU: what it measures, and what a failing stage costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import gpu_check

ROOT = Path(__file__).parents[1]


def result(name, **more):
    return {"backbone": "sd15", "name": name, "pictures": 1, "look": "", "same": ""} | more


def test_rates_are_by_what_one_picture_of_the_kind_needs():
    results = [
        result("guided, counted", look="count", tflop=8.0, seconds=9.0),
        result("guided", seconds=2.0, pictures_sha256=["a"]),
        result("guided", pictures=4, seconds=4.0, pictures_sha256=["a"] * 4),
        result("guided again", look="compare", same="guided", seconds=2.0, pictures_sha256=["a"]),
        result("guided, checkpointed", seconds=4.0),
        result("plain", seconds=1.0),
    ]
    gpu_check.add_rates(results, 40.0)
    assert [one.get("tflop_per_second") for one in results] == [None, 4.0, 8.0, 4.0, 2.0, None]
    assert results[2]["share_of_peak"] == 0.2
    assert results[3]["equal"] is True
    results[3]["pictures_sha256"] = ["b"]
    gpu_check.add_rates(results, None)
    assert results[3]["equal"] is False


def test_the_table_says_what_failed_beside_what_was_measured():
    told = gpu_check.table(
        [
            result("guided", seconds=2.0, evaluations=4, gb=3.0, tflop_per_second=4.0, share_of_peak=0.1),
            result("plain", error="out of\nmemory | no"),
        ],
        "a card",
    )
    assert "| sd15 | guided | 1 | 2.000 | 0.500 | 4.0 | 10% | 3.0 |  |" in told
    assert "| sd15 | plain | 1 |  |  |  |  |  | out of memory / no |" in told


def fake_worker(monkeypatch, answers):
    """Processes that answer by a list of lists, the next list for the next process."""
    begun = []

    class Process:
        returncode = 0

        def wait(self):
            return 0

    class Fake:
        process = Process()

        def __init__(self, backbone, first, argv, args):
            begun.append(first)
            self.left = answers.pop(0)

        def answer(self, seconds):
            return self.left.pop(0)

    monkeypatch.setattr(gpu_check, "Worker", Fake)
    return begun


def test_a_stage_that_hangs_costs_only_itself(monkeypatch, tmp_path):
    names = [gpu_check.Stage(name, "sd15", ()) for name in "abc"]
    monkeypatch.setattr(gpu_check, "stages", lambda backbone: names)
    lost = {"error": "not done in 45 s", "lost": True}
    begun = fake_worker(monkeypatch, [[{"ready": True}, lost], [{"ready": True}, {"gb": 1}, {"gb": 2}]])
    args = gpu_check.options([str(tmp_path)])
    found = list(gpu_check.all_stages("sd15", [], args, float("inf")))
    assert [one.get("error") or one["gb"] for one in found] == ["not done in 45 s", 1, 2]
    assert begun == [0, 1]


def test_no_stage_begins_when_time_is_over(monkeypatch, tmp_path):
    args = gpu_check.options([str(tmp_path)])
    found = list(gpu_check.all_stages("sdxl", [], args, 0.0))
    assert {one["error"] for one in found} == {"no time was left"}
    assert len(found) == len(gpu_check.stages("sdxl"))


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu(tmp_path):
    backbone = "sdxl"
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["TORCHDYNAMO_DISABLE"] = (
        "1"  # a CPU compiles for minutes; compiled blocks have tests of their own
    )
    tiny = f"--tiny --side 64 --steps 2 --dtype float32 --device cpu --limit 200 --backbones {backbone}"
    subprocess.run(
        ["bash", str(ROOT / "scripts/gpu_check.sh"), str(tmp_path), *tiny.split()],
        check=True,
        env=environment,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    results = {(one["name"], one["pictures"]): one for one in figures["results"]}
    assert not [one for one in results.values() if "error" in one]
    assert results["guided again", 1]["equal"] is True
    # Two forward passes' worth for a gradient, a decoding and a reward more than a plain evaluation.
    assert results["guided, counted", 1]["tflop"] > 2 * results["plain, counted", 1]["tflop"] > 0
    assert results["guided", 4]["evaluations"] == 4 * results["guided", 1]["evaluations"] == 8
    assert "| of peak |" in (tmp_path / "figures.md").read_text()
    assert "Self CPU" in (tmp_path / f"profile-{backbone}.txt").read_text()
