"""Judges that look for objects and texts: loaded from files as they are published, in tiny, and what they read of prompts."""

import json

import pytest
import torch
from PIL import Image

from align.__main__ import main
from align.config.command import Command
from align.config.compose import jobs_of
from align.rewards.errors import RewardError
from align.rewards.geneval.prompts import fault, metadata_of, tags_of
from align.rewards.geneval.verdict import relations
from align.rewards.recognisers import Ocr, in_order, upright
from align.runner.build import load_reward
from align.runner.prompts import load_prompts
from align.store.csvfile import read_csv
from rewards import box
from scripts.export_geneval import CannotExport, export

APPLE = {"tag": "single_object", "include": '[{"class":"apple","count":1}]'}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """``HF_HOME`` with a tiny CLIP and a tiny detector in the places of the published ones."""
    home = tmp_path_factory.mktemp("home")
    with torch.random.fork_rng():
        box.fill_clip(home)
        box.fill_detector(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HOME", str(home))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
        patch.delenv("ALIGN_CHECKPOINTS", raising=False)
        load_reward.cache_clear()
        yield home
    load_reward.cache_clear()


def judges(*options):
    (job,) = jobs_of(Command(options))
    return job.config.judges


def noise(seed, size=(40, 30)):
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(
        torch.randint(0, 256, (*size[::-1], 3), generator=generator, dtype=torch.uint8).numpy()
    )


def test_metadata_of_the_whole_benchmark_follows_from_its_prompts():
    (job,) = jobs_of(Command(("prompts=geneval",)))
    rows = load_prompts(job.config.prompts).rows
    words = job.config.judges.geneval
    assert len(rows) == 553
    for row in rows:
        found = {name: json.loads(row.tags[name]) for name in ("include", "exclude") if name in row.tags}
        assert fault(found, words.classes, words.colours) is None, row
        assert ("exclude" in found) == (row.tags["tag"] == "counting")
        assert len(found["include"]) == (
            2 if row.tags["tag"] in ("two_object", "position", "color_attr") else 1
        )


@pytest.mark.parametrize(
    ("tag", "prompt", "include"),
    [
        ("single_object", "a photo of an oven", [{"class": "oven", "count": 1}]),
        ("counting", "a photo of four buses", [{"class": "bus", "count": 4}]),
        ("counting", "a photo of two wine glasses", [{"class": "wine glass", "count": 2}]),
        ("counting", "a photo of three horses", [{"class": "horse", "count": 3}]),
        ("counting", "a photo of two benchs", [{"class": "bench", "count": 2}]),
        ("colors", "a photo of an orange hot dog", [{"class": "hot dog", "count": 1, "color": "orange"}]),
        (
            "position",
            "a photo of a couch left of a toaster",
            [{"class": "toaster", "count": 1}, {"class": "couch", "count": 1, "position": ["left of", 0]}],
        ),
    ],
)
def test_what_a_prompt_asks_for(tag, prompt, include):
    assert metadata_of(prompt, tag)["include"] == include


def test_what_is_no_prompt_of_the_benchmark_stays_as_it_is():
    assert metadata_of("a cat", "counting") is None
    assert tags_of("a cat", {"tag": "colors"}) == {"tag": "colors"}
    assert tags_of("a photo of a cat", {"tag": "single_object", "include": "mine"})["include"] == "mine"


@pytest.mark.parametrize(
    ("include", "words"),
    [
        ([], "does not say which objects"),
        ([1], "it is no object"),
        ([{"class": "dog", "count": 0}], "whole number"),
        ([{"class": "dog", "count": 1, "color": "mauve"}], "no colour 'mauve'"),
        ([{"class": "dog", "count": 1, "position": ["left of", 0]}], "an earlier entry"),
    ],
)
def test_metadata_that_asks_for_nothing_that_there_is(include, words):
    assert words in fault({"include": include}, ["dog"], ["red"])


def test_a_relation_is_the_other_way_round_from_the_other_side():
    a, b = (0, 0, 10, 10), (50, 60, 70, 80)
    assert relations(a, b, 0.1) == {"left of", "above"}
    assert relations(b, a, 0.1) == {"right of", "below"}
    assert relations(a, a, 0.1) == set()


@pytest.mark.parametrize("name", ["geneval", "geneval_strict"])
def test_geneval_loads_from_the_published_files_and_judges(name, home):
    reward = load_reward(name, torch.device("cpu"), judges=judges("judges.geneval.threshold=0.0"))
    reward.know({"a": {"tag": "single_object", "include": [{"class": "apple", "count": 1}]}})
    seen = reward.detector(noise(0))
    assert seen.masks.shape == (100, 30, 40)
    assert (seen.scores[:-1] >= seen.scores[1:]).all()
    values = reward.score_images([noise(0), noise(1), noise(0)], ["a"] * 3)
    assert values.isfinite().all()
    assert values[0] == values[2]
    alone = reward.score_images([noise(1)], ["a"])
    assert alone.tolist() == values[1:2].tolist()
    with pytest.raises(RewardError, match="does not say which objects"):
        reward.score_images([noise(0)], ["b"])


def test_pictures_that_are_there_are_judged_by_the_metadata_of_their_table(home, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(3):
        noise(number).save(folder / f"{number}.png")
        lines.append({"image": f"{number}.png", "prompt": "an apple", **APPLE})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ["score", str(folder), "metrics.rewards=[geneval]", f"run.folder={tmp_path / 'scores'}"]
    assert main([*asked, "run.gallery=false"]) == 0
    rows = read_csv(tmp_path / "scores/results.csv")
    assert rows["geneval"].isin([0, 1]).all()
    assert rows["tag_tag"].eq("single_object").all()
    (folder / "metadata.jsonl").write_text(json.dumps({"image": "0.png", "prompt": "an apple"}))
    capsys.readouterr()
    assert main([*asked[:-1], f"run.folder={tmp_path / 'others'}"]) == 2
    assert "geneval cannot judge 'an apple'" in capsys.readouterr().err


def test_the_best_by_geneval_of_some_and_the_folders_of_its_program(home, tmp_path):
    options = [
        "prompts=geneval",
        "prompts.limit=2",
        "method=best_of_n",
        "method.particles=2",
        "sampler.steps=2",
    ]
    options += ["reward=geneval", "metrics=none", f"run.folder={tmp_path / 'run'}", "run.gallery=false"]
    assert main(options) == 0
    assert export(tmp_path / "run", tmp_path / "out") == 2
    told = json.loads((tmp_path / "out/00001/metadata.jsonl").read_text())
    assert told["include"] == [{"class": "cow", "count": 1}]
    assert told["prompt"] == "a photo of a cow"
    row = read_csv(tmp_path / "run/results.csv").iloc[1]
    assert (tmp_path / "out/00001/samples/00000.png").read_bytes() == (
        tmp_path / "run" / row["image"]
    ).read_bytes()
    with pytest.raises(CannotExport, match="is not empty"):
        export(tmp_path / "run", tmp_path / "out")


def test_lines_are_read_from_above_and_from_the_left():
    boxes = [(50, 12, 80, 20), (0, 40, 10, 50), (0, 10, 40, 20), (60, 35, 70, 50)]
    assert in_order(boxes) == [(0, 10, 40, 20), (50, 12, 80, 20), (0, 40, 10, 50), (60, 35, 70, 50)]
    assert upright(torch.tensor([[3, 1], [9, 2], [8, 7], [2, 6]])) == (2, 1, 9, 7)
    assert upright(torch.tensor([1, 2, 3, 4])) == (1, 2, 3, 4)


def test_what_is_read_is_judged_against_the_quoted_text_or_a_column():
    seen = []
    read = lambda image: seen.append(image.size) or [("HELLO", 0.9), ("noise", 0.0)]  # noqa: E731
    reward = Ocr("ocr", read, {})
    picture = noise(0)
    assert reward.score_images([picture] * 2, ['a sign "Hello"'] * 2).tolist() == [1, 1]
    assert len(seen) == 1
    with pytest.raises(RewardError, match="no text in straight double quotes"):
        reward.score_images([picture], ["a sign"])
    other = Ocr("ocr", read, {}, column="sign")
    other.know({"a sign": {"sign": "Help"}})
    assert other.score_images([picture], ["a sign"]).tolist() == [0.5]
