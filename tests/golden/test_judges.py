"""The judges of today against their published programs on tiny models: ``--golden DIR``, a folder with ``judges``."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from align.rewards.aesthetic25 import load_aesthetic25
from align.rewards.geneval2 import load_geneval2
from align.rewards.hpsv3 import load_hpsv3
from align.rewards.judges import MPS_CONDITION, VQASCORE_QUESTION
from align.rewards.mps import load_mps
from align.rewards.preprocess import to_pictures
from align.rewards.vqascore import load_vqascore

LIMIT = 1e-5
"""Absolute of scores, relative of probabilities."""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class Judged:
    """A folder's pictures, prompts and texts."""

    def __init__(self, folder):
        self.folder = folder
        self.prompts = read(folder / "pictures/prompts.json")
        self.images = [Image.open(folder / f"pictures/{k}.png") for k in range(4)]

    def values(self, reward, rows):
        prompts = [self.prompts[row["prompt"]] if "prompt" in row else "" for row in rows]
        return reward.score_images([self.images[row["picture"]] for row in rows], prompts)

    def package(self, folder):
        """HPSv3's package file with the texts of this folder."""
        texts = read(self.folder / "texts.json")
        path = folder / "data_collator_qwen.py"
        names = {"INSTRUCTION": "hpsv3_instruction", "prompt_with_special_token": "hpsv3_suffix"}
        path.write_text("".join(f"{name} = {texts[key]!r}\n" for name, key in names.items()))
        return path


@pytest.fixture(scope="module")
def judged(golden):
    folder = None if golden is None else golden / "judges"
    if folder is None or not folder.is_dir():
        pytest.skip("needs --golden DIR with judges")
    return Judged(folder)


@pytest.fixture
def hpsv3(judged, tmp_path):
    folder = judged.folder / "hpsv3"
    package = judged.package(tmp_path)
    return load_hpsv3("hpsv3", folder / "HPSv3.safetensors", folder / "base", package, dtype=torch.float32)


def agrees(found, expected, *, relative=False):
    expected = torch.tensor(expected)
    scale = expected.abs() if relative else torch.ones(())
    assert ((found - expected).abs() <= LIMIT * scale).all()


def test_the_questions_are_the_published_ones(judged):
    texts = read(judged.folder / "texts.json")
    assert texts["vqascore_question"] == VQASCORE_QUESTION
    assert texts["mps_condition"] == MPS_CONDITION


def test_hpsv3(judged, hpsv3):
    recorded = read(judged.folder / "hpsv3/scores.json")
    rows = recorded["rows"]
    agrees(judged.values(hpsv3, rows), [row["mu"] for row in rows])
    for row in rows:
        shown = hpsv3.shown(judged.images[row["picture"]])
        question = hpsv3.text.format(text_prompt=judged.prompts[row["prompt"]]) + hpsv3.suffix
        given = hpsv3.vl.inputs(shown, question)
        assert given["image_grid_thw"].tolist() == [row["grid_thw"]]
        assert given["input_ids"].shape == (1, row["tokens"])
        if "input_ids" in row:
            assert given["input_ids"][0].tolist() == row["input_ids"]
    patches, _ = hpsv3.vl.patches(hpsv3.shown(judged.images[0]))
    pixels = load_file(judged.folder / "hpsv3/pixels_0.safetensors")
    torch.testing.assert_close(patches[:6], pixels["first_rows"], rtol=0, atol=LIMIT)
    torch.testing.assert_close(patches[-1:], pixels["last_row"], rtol=0, atol=LIMIT)
    assert list(patches.shape) == recorded["pixels_0"]["shape"]


def test_hpsv3_with_the_positions_of_the_model_is_another_number(judged, hpsv3):
    wrong = read(judged.folder / "hpsv3/scores.json")["not_this"]
    value = judged.values(hpsv3, [wrong])
    assert abs(float(value) - wrong["mu_with_three_axis_positions"]) > 1000 * LIMIT


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("penalty", ["checkpoint", "none"])
def test_vqascore(kind, penalty, judged):
    recorded = read(judged.folder / f"vqascore/scores_{kind}.json")
    rows = recorded["rows"]
    folder = judged.folder / "vqascore" / kind
    reward = load_vqascore(
        "vqascore", folder, dtype=torch.float32, question=VQASCORE_QUESTION, penalty=penalty
    )
    key = "score" if penalty == "checkpoint" else "score_without_repetition_penalty"
    agrees(judged.values(reward, rows), [row.get(key, row["score"]) for row in rows], relative=True)


@pytest.mark.parametrize(
    ("mean", "key"), [("arithmetic", "soft_tifa_am"), ("geometric", "soft_tifa_gm"), ("hard", "tifa")]
)
def test_geneval2(mean, key, judged, tmp_path):
    records = read(judged.folder / "geneval2/atoms.json")
    rows = read(judged.folder / "geneval2/scores.json")["rows"]
    data = tmp_path / "geneval2_data.jsonl"
    data.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    folder = judged.folder / "vqascore/qwen3_vl"
    reward = load_geneval2("geneval2", folder, data, dtype=torch.float32, mean=mean)
    images = [judged.images[record["picture"]] for record in records]
    prompts = [record["prompt"] for record in records]
    agrees(reward.score_images(images, prompts), [row[key] for row in rows], relative=True)
    atoms = "tifa_list" if mean == "hard" else "soft"
    with torch.no_grad():
        for image, prompt, row in zip(images, prompts, rows, strict=True):
            agrees(reward.atoms(reward.shown(image), prompt), row[atoms], relative=True)


@pytest.mark.parametrize(("threshold", "key"), [(0.3, "score"), (0.01, "score_threshold_0.01")])
def test_mps(threshold, key, judged):
    folder = judged.folder / "mps"
    rows = read(folder / "scores.json")["rows"]
    weights = folder / "mps.safetensors"
    reward = load_mps("mps", weights, folder / "clip", condition=MPS_CONDITION, threshold=threshold)
    agrees(judged.values(reward, rows), [row[key] for row in rows])
    for row in rows:
        (text,) = reward.texts([judged.prompts[row["prompt"]]])
        assert int((text[1:, -1] == 0).sum()) == row[f"kept_{threshold:g}"]


def test_aesthetic25(judged):
    folder = judged.folder / "aesthetic25"
    reward = load_aesthetic25("aesthetic25", folder / "siglip", folder / "aesthetic_predictor_v2_5.pth")
    rows = read(folder / "scores.json")["rows"]
    agrees(judged.values(reward, rows), [row["score"] for row in rows])
    recorded = load_file(folder / "pixels_0.safetensors")
    (image,) = reward.size_images(judged.images[:1])
    pixels = reward.pixels(to_pictures([image]), torch.device("cpu"), torch.float32)
    torch.testing.assert_close(pixels, recorded["pixel_values"], rtol=0, atol=LIMIT)
    pixels.requires_grad_(True)
    score = reward.head(F.normalize(reward.embed(pixels), dim=-1))
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    torch.testing.assert_close(gradient, recorded["gradient"], rtol=0, atol=LIMIT)
