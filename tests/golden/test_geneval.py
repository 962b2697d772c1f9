"""GenEval as recorded: verdicts of its program and of Flow-GRPO's server, its colours and its detector."""

from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from align.reading import read_json
from align.rewards.geneval.colours import load_colours
from align.rewards.geneval.convert import config_of, from_mmdet
from align.rewards.geneval.detector import load_detector, padded, resized
from align.rewards.geneval.verdict import Found, Rules, kept, overall, strict_score, verdict
from golden.judges import given, judges  # noqa: F401

TEXTS = "texts.json"
SIZES = (
    *("num_queries", "num_labels", "hidden_dim", "feature_size", "mask_feature_size", "num_attention_heads"),
    *("encoder_layers", "encoder_feedforward_dim", "decoder_layers", "dim_feedforward"),
)


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


def test_colours_are_the_recorded_ones(given):  # noqa: F811
    texts = read_json(given / TEXTS)
    templates = [one.replace("{c}", "{colour}") for one in texts["geneval_colour_templates"]]
    named = load_colours(given / "geneval/clip", texts["geneval_colours"], templates)
    for row in read_json(given / "geneval/colours.json")["rows"]:
        image = Image.open(given / f"pictures/{row['picture']}.png").convert("RGB")
        packed = np.load(given / "geneval" / row["mask"])
        masks = torch.from_numpy(np.unpackbits(packed["masks"], axis=-1)[..., : packed["width"]].astype(bool))
        logits = named.logits(row["class"], image, row["boxes"], masks)
        # Both are 100 times a cosine in float32, and 2e-5 from the same model's in float64, the recorded too.
        assert logits.numpy() == pytest.approx(np.array(row["logits"]), abs=4e-5)
        assert named(row["class"], image, row["boxes"], masks) == row["colours"]


@pytest.fixture
def detector(given):  # noqa: F811
    return load_detector(given / "geneval/mmdet_checkpoint.safetensors", scale=(333, 200))


def test_sizes_are_those_of_the_recorded_configuration(given):  # noqa: F811
    recorded = Mask2FormerConfig.from_json_file(given / "geneval/mask2former/config.json")
    ours = config_of(load_file(given / "geneval/mmdet_checkpoint.safetensors"))
    for name in SIZES:
        assert getattr(ours, name) == getattr(recorded, name), name
    for name in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "out_features"):
        assert getattr(ours.backbone_config, name) == getattr(recorded.backbone_config, name), name


def _pictures(folder):
    """Recorded rows whose resized picture is recorded too."""
    for row in read_json(folder / "geneval/mmdet.json")["rows"]:
        path = folder / f"geneval/resized_{row['picture']}.png"
        if path.is_file():
            yield row, np.asarray(Image.open(path).convert("RGB"))


def test_the_detector_has_mmdets_logits_and_objects(given, detector):  # noqa: F811
    for row, pixels in _pictures(given):
        assert list(padded(pixels).shape[-2:]) == row["pad_shape"][:2]
        classes, masks = detector.raw(pixels)
        assert classes[: len(row["class_logits"])].numpy() == pytest.approx(
            np.array(row["class_logits"]), abs=1e-4
        )
        grown = F.interpolate(masks[None], row["pad_shape"][:2], mode="bilinear", align_corners=False)
        assert [grown.mean().item(), grown.std().item()] == pytest.approx(
            row["mask_logits_mean_std"], abs=1e-4
        )
        found = detector.seen(pixels, tuple(row["ori_shape"][:2]))
        assert len(found.scores) == row["count"]
        assert int((found.scores > 0.3).sum()) == row["kept_over_0.3"]
        for place, one in enumerate(row["detections"]):
            assert found.scores[place].item() == pytest.approx(one["score"], abs=1e-4)
            assert found.labels[place] == one["class"]
            assert found.boxes[place].tolist() == pytest.approx(one["box"], abs=1e-4)
            assert int(found.masks[place].sum()) == one["area"]


def test_a_picture_is_resized_as_opencv_does(given):  # noqa: F811
    for row, pixels in _pictures(given):
        image = np.asarray(Image.open(given / f"pictures/{row['picture']}.png").convert("RGB"))
        ours = resized(image, (333, 200))
        assert ours.shape == pixels.shape
        assert np.abs(ours.astype(int) - pixels).max() <= 1


def test_every_name_of_the_published_checkpoint_has_a_place(given):  # noqa: F811
    keys = read_json(given / "geneval/mmdet_keys.json")
    with torch.device("meta"):
        theirs = {name: torch.empty(shape) for name, shape in keys.items()}
        own, ours = Mask2FormerForUniversalSegmentation(config_of(theirs)).state_dict(), from_mmdet(theirs)
    left = {name for name in own if name not in ours}
    assert not ours.keys() - own.keys()
    assert all(".swin.layernorm." in name or name.startswith("criterion.") for name in left)
    assert {name: value.shape for name, value in ours.items()} == {name: own[name].shape for name in ours}
