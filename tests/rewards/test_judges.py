"""The judges over tiny files that lie where the published ones would: what golden numbers do not say."""

import json
import zipfile

import pytest
import torch
from PIL import Image

from align.checkpoints.needed import missing_text
from align.errors import MissingWeights, WrongWeights
from align.rewards import hpsv3
from align.rewards.judges import GENEVAL2_DATA, HPSV3_PACKAGE, JUDGES
from align.rewards.published import PUBLISHED
from align.rewards.qwen_vl import Sizing
from align.rewards.registry import describe, find, load
from align.rewards.vqascore import penalised

from . import box, judge_box
from .test_published import images

NAMES = [*JUDGES, "aesthetic25"]
PROMPTS = ["a red cat", "two cats, “très bien” 🐱", "", "x" * 300]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    judge_box.fill_judges(home, PROMPTS)
    return home


@pytest.fixture
def hub(filled, monkeypatch):
    judge_box.use(filled, monkeypatch)
    return filled


@pytest.mark.parametrize("name", NAMES)
def test_every_one_scores_each_row_by_itself(name, hub):
    reward = load(name)
    values = reward.score_images(images(), PROMPTS)
    assert values.shape == (4,)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    alone = [reward.score_images([one], [text]) for one, text in zip(images(), PROMPTS, strict=True)]
    torch.testing.assert_close(values, torch.cat(alone), rtol=1e-5, atol=1e-6)
    if reward.batch == 1:  # a pass is a row
        assert torch.equal(values, torch.cat(alone))
    assert values.unique().numel() == (4 if reward.differentiable else values.unique().numel())
    record = describe(name, find(name))
    assert record.items() <= reward.fingerprint.items()
    assert record["dtype"] == PUBLISHED[name].dtype


@pytest.mark.parametrize("name", [name for name in NAMES if PUBLISHED[name].differentiable])
def test_the_gradient_reaches_every_picture(name, hub):
    reward = load(name, dtype=torch.float32)
    pictures = torch.rand(2, 3, 48, 40, requires_grad=True)
    found = reward.score(pictures, PROMPTS[:2], torch.tensor([5, 700]))
    (gradient,) = torch.autograd.grad(found.sum(), pictures)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    with torch.no_grad():  # which keeps nothing between layers
        torch.testing.assert_close(reward.score(pictures, PROMPTS[:2]), found)


@pytest.mark.parametrize("name", NAMES)
def test_a_check_of_names_and_shapes_reads_no_numbers(name, hub):
    if PUBLISHED[name].dtype == "bfloat16":
        model = load(name, "meta").vl.model
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_large_judges_work_in_their_published_numbers(hub):
    model = load("vqascore_qwen3").vl.model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    judge = load("hpsv3")
    assert {parameter.dtype for parameter in judge.head.parameters()} == {torch.float32}


def test_the_logarithm_and_the_penalty_are_names(hub):
    whole, log, without = (
        load(name, dtype=torch.float32).score_images(images(), PROMPTS)
        for name in ("vqascore_qwen25", "vqascore_qwen25_log", "vqascore_qwen25_no_penalty")
    )
    torch.testing.assert_close(log.exp(), whole)
    assert (whole != without).all()


def test_the_penalty_is_on_tokens_of_the_prompt_once():
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalised(logits, torch.tensor([0, 1, 1]), 2.0).tolist() == [1.0, -4.0, 1.0]


@pytest.mark.parametrize("name", ["hpsv3", "vqascore_qwen25"])
def test_a_prompt_with_a_token_of_the_models_own_is_refused(name, hub):
    with pytest.raises(ValueError, match=r"holds <\|im_end\|>"):
        load(name).score_images(images()[:1], ["a cat<|im_end|>"])


def test_braces_in_a_prompt_are_letters(hub):
    for name in ("hpsv3", "vqascore_qwen3"):
        assert load(name).score_images(images()[:1], ["{a} {0} {"]).isfinite().all()


@pytest.mark.parametrize(
    ("size", "shown"), [((512, 512), (448, 448)), ((260, 150), (616, 364)), ((10, 10), (448, 448))]
)
def test_hpsv3_shows_every_picture_as_so_many_pixels(size, shown):
    assert Sizing(28, 200704, 200704)(*size) == shown


def test_a_line_is_no_picture():
    with pytest.raises(ValueError, match="more than 200 times"):
        Sizing(28, 1, 10**6)(1, 201)


def test_what_geneval2_does_not_ask_about_fails(hub):
    with pytest.raises(ValueError, match="none of GenEval 2's"):
        load("geneval2_am").score_images(images()[:1], ["a lighthouse"])


def test_what_nothing_may_fetch_is_asked_for(tmp_path, monkeypatch):
    box.use(tmp_path, monkeypatch)
    text = missing_text(find("geneval2_am"))
    assert (
        f"get geneval2_data.jsonl from https://github.com/{GENEVAL2_DATA.reference} and put it into" in text
    )
    with pytest.raises(MissingWeights, match="geneval2_data"):
        load("geneval2_am")
    text = missing_text(find("hpsv3"))
    assert "doctor --fetch 'metrics.rewards=[hpsv3]'" in text
    assert "hf download Qwen/Qwen3-VL-8B-Instruct" in missing_text(find("vqascore_qwen3"))
    assert "'model*'" in missing_text(find("vqascore_qwen3"))  # it is there in shards


def test_another_text_than_hpsv3s_is_refused(hub, monkeypatch, tmp_path):
    monkeypatch.undo()
    box.use(hub, monkeypatch)
    with pytest.raises(WrongWeights, match="another text"):
        load("hpsv3")
    (tmp_path / "other.whl").write_bytes(b"no archive")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    (tmp_path / "data_collator_qwen.py").write_text("INSTRUCTION = 1 +")
    for name in ("other.whl", "empty.whl", "data_collator_qwen.py"):
        with pytest.raises(WrongWeights, match=r"hpsv3 1\.0\.0"):
            hpsv3.read_instruction(tmp_path / name)


def test_the_package_is_fetched_by_its_hash():
    assert HPSV3_PACKAGE.url.endswith(HPSV3_PACKAGE.names[0])
    assert len(HPSV3_PACKAGE.sha256) == 64


def test_a_folder_of_another_model_is_one_line(hub, tmp_path, monkeypatch):
    folder = tmp_path / "Qwen/Qwen3-VL-8B-Instruct"
    folder.mkdir(parents=True)
    source = box.repository(hub, "Qwen/Qwen3-VL-8B-Instruct")
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    monkeypatch.setenv("ALIGN_CHECKPOINTS", str(tmp_path))
    with pytest.raises(WrongWeights, match="no Qwen-VL") as caught:
        load("vqascore_qwen3")
    assert "\n" not in str(caught.value)


def test_transparency_lies_over_white(hub):
    reward = load("vqascore_qwen3")
    clear, white = Image.new("RGBA", (64, 64), (255, 0, 0, 0)), Image.new("RGB", (64, 64), (255, 255, 255))
    values = reward.score_images([clear, white], [PROMPTS[0]] * 2)
    assert values[0] == values[1]
