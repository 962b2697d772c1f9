"""GenEval as recorded: verdicts of its program and of Flow-GRPO's server, its colours and its detector."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from golden.judges import given, judges  # noqa: F401
from PIL import Image
from safetensors.torch import load_file

from align.reading import read_json
from align.rewards.geneval.verdict import Found, Rules, kept, overall, strict_score, verdict

TEXTS = "texts.json"


def cases(folder):
    rows = read_json(folder / "geneval/verdicts.json")["rows"]
    return list(zip(read_json(folder / "geneval/cases.json"), rows, strict=True))


def kept_of(case):
    found = {
        name: [Found(tuple(row[:4]), row[4], place) for place, row in enumerate(rows)]
        for name, rows in case["detections"].items()
    }
    return kept(found, Rules(), counting=case["metadata"]["tag"] == "counting")


def colours_of(case):
    return lambda name, some: case["colours"][name][: len(some)]


def test_the_same_objects_are_kept(judges):  # noqa: F811
    for case, row in cases(judges):
        scores = {name: [one.score for one in objects] for name, objects in kept_of(case).items()}
        assert scores == row["kept"], case["note"]


def test_verdicts_and_the_benchmarks_number(judges):  # noqa: F811
    by_task = defaultdict(list)
    for case, row in cases(judges):
        found = verdict(case["metadata"], kept_of(case), colours_of(case), Rules())
        assert found.correct == row["correct"], case["note"]
        assert found.correct == (not found.reasons)
        by_task[case["metadata"]["tag"]].append(found.correct)
    recorded = read_json(judges / "geneval/verdicts.json")
    tasks = {tag: np.mean(values) for tag, values in by_task.items()}
    assert tasks == pytest.approx(recorded["by_task"])
    assert overall(tasks) == pytest.approx(recorded["overall"])


def test_the_graded_reward_of_flow_grpos_server(judges):  # noqa: F811
    for case, row in cases(judges):
        right, score = strict_score(case["metadata"], kept_of(case), colours_of(case), Rules())
        assert score == pytest.approx(row["server_score"], abs=1e-6), case["note"]
        assert right == row["server_strict"], case["note"]
