"""The published rewards over tiny files that lie where the real ones would."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from align.__main__ import main
from align.checkpoints.needed import missing_text
from align.errors import MissingWeights, WrongWeights
from align.rewards import sources
from align.rewards.judges import JUDGES
from align.rewards.published import AESTHETIC_HEAD, PUBLISHED
from align.rewards.registry import describe, find, load

from . import box

LONG = "a red circle, " + "highly detailed, " * 60
PROMPTS = ["a red circle", LONG, "", "“Café” &amp; naïve 东京 🐱"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    box.fill_hub(home)
    return home


@pytest.fixture
def hub(filled, monkeypatch):
    box.use(filled, monkeypatch)
    return filled


@pytest.fixture
def empty(tmp_path, monkeypatch):
    box.use(tmp_path, monkeypatch)
    return tmp_path


def fingerprint(name):
    return tuple(one.fingerprint() for one in find(name))


def images():
    generator = torch.Generator().manual_seed(1)
    arrays = torch.randint(0, 256, (4, 50, 40, 4), generator=generator, dtype=torch.uint8).numpy()
    return [Image.fromarray(array) for array in arrays]  # RGBA: with transparency


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in (*JUDGES, "aesthetic25")])
def test_every_one_loads_and_scores(name, hub):
    reward = load(name)
    values = reward.score_images(images(), PROMPTS)
    assert values.shape == (4,)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert values.unique().numel() == 4
    alone = [reward.score_images([one], [text]) for one, text in zip(images(), PROMPTS, strict=True)]
    torch.testing.assert_close(values, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert reward.differentiable == PUBLISHED[name].differentiable
    assert reward.takes_timestep == PUBLISHED[name].takes_timestep
    pictures = torch.rand(2, 3, 48, 48, requires_grad=True)
    found = reward.score(pictures, PROMPTS[:2], torch.tensor([5, 700]))
    (gradient,) = torch.autograd.grad(found.sum(), pictures)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_the_two_resizes_of_hps_differ(hub):
    now, then = (load(name).score_images(images(), PROMPTS) for name in ("hpsv2", "hpsv2_2023"))
    assert (now != then).all()


def test_a_copy_in_shards_is_the_same_model(hub, tmp_path, monkeypatch):
    whole, prints = load("pickscore"), fingerprint("pickscore")
    folder = box.repository(hub, box.PICKSCORE)
    own = tmp_path / box.PICKSCORE
    shutil.copytree(folder, own)
    tensors = load_file(own / "model.safetensors")
    (own / "model.safetensors").unlink()
    shards = {name: f"model-0000{k % 2 + 1}-of-00002.safetensors" for k, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: value for name, value in tensors.items() if shards[name] == shard}, own / shard)
    index = {"metadata": {}, "weight_map": shards}
    (own / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setenv(sources.OWN, str(tmp_path))
    reward = load("pickscore")
    pictures = torch.rand(2, 3, 48, 48)
    assert torch.equal(reward.score(pictures, PROMPTS[:2]), whole.score(pictures, PROMPTS[:2]))
    assert set(shards.values()) < reward.fingerprint.keys()
    assert fingerprint("pickscore") != prints
    (own / min(shards.values())).unlink()
    assert min(shards.values()) in missing_text(find("pickscore"))
    with pytest.raises(MissingWeights, match=min(shards.values())):
        load("pickscore")


def test_scales_are_the_checkpoints(hub):
    path = box.repository(hub, box.PICKSCORE) / "model.safetensors"
    scale = load_file(path)["logit_scale"].exp()
    assert load("pickscore").scale == pytest.approx(float(scale))
    assert load("clipscore").scale == 1
    assert load("hpsv2").scale == 1
    assert load("spm_sd15").scale == pytest.approx(float(scale))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_missing_and_what_mends_it(name, empty):
    assert any(one.missing() for one in find(name))
    with pytest.raises(MissingWeights) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    text = missing_text(find(name))
    for checkpoint, needed in zip(PUBLISHED[name].weights, find(name), strict=True):
        assert needed.mend in text
        assert needed.mend.startswith(("hf download ", "python -m align doctor --fetch", "get "))
        shown = [part for part in checkpoint.names if not (checkpoint.shards and part.startswith("model"))]
        assert all(part in text for part in shown)


def test_a_run_lists_all_commands_before_any_work(empty, monkeypatch, capsys):
    monkeypatch.chdir(empty)
    assert main(["metrics=paper", "method=dymo", "reward=spm_sd15"]) == 3
    err = capsys.readouterr().err
    for words in (
        "hf download yuvalkirstain/PickScore_v1 config.json model.safetensors tokenizer.json",
        "hf download xswu/HPSv2 HPS_v2_compressed.pt",
        "hf download THUDM/ImageReward ImageReward.pt",
        "hf download google-bert/bert-base-uncased vocab.txt",
        "hf download openai/clip-vit-large-patch14 config.json model.safetensors",
        "hf download SPO-Diffusion-Models/Step-Aware_Preference_Models sd-v1-5_step-aware_preference_model.bin",
        "python -m align doctor --fetch 'metrics.rewards=[aesthetic]'",
    ):
        assert f"\n  {words}\n" in f"{err}\n"
    assert not list(empty.iterdir())


def test_nothing_is_missing_in_a_full_cache(hub):
    for name in PUBLISHED:
        if name not in (*JUDGES, "aesthetic25"):
            assert not missing_text(find(name))


def test_the_fingerprint_tells_models_revisions_versions_and_files_apart(hub):
    record = describe("hpsv21", find("hpsv21"))
    assert record["version"] == "2.1"
    assert record["preprocess"] == "hps"
    assert record["dtype"] == "float32"
    assert record["revision of xswu/HPSv2"] == box.COMMIT
    assert describe("hpsv2_2023", find("hpsv2_2023"))["preprocess"] == "hps2023"
    head = describe("aesthetic", find("aesthetic"))
    assert head[f"revision of {AESTHETIC_HEAD.reference}"] == "local"
    assert len({fingerprint(name) for name in ("hpsv2", "hpsv21", "pickscore", "aesthetic")}) == 4
    loaded = load("hpsv21").fingerprint
    assert len(loaded["HPS_v2.1_compressed.pt"]) == 64
    assert record.items() <= loaded.items()


def test_a_pickle_is_converted_once_and_half_precision_is_kept(hub):
    load("hpsv2")
    path = box.repository(hub, box.HPS) / "HPS_v2_compressed.pt"
    copy = hub / "align" / "converted" / f"{load('hpsv2').fingerprint[path.name]}.safetensors"
    tensors = load_file(copy)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    original = torch.load(path, weights_only=True)["state_dict"]
    assert tensors.keys() == original.keys()
    assert all(torch.equal(value, original[key]) for key, value in tensors.items())
    written = copy.stat().st_mtime_ns
    load("hpsv2")
    assert copy.stat().st_mtime_ns == written
    assert [one.name for one in copy.parent.glob(".*")] == []


def test_a_safetensors_version_goes_first(empty):
    box.fill_hub(empty)
    expected = load("imagereward").score_images(images(), PROMPTS)
    folder = box.repository(empty, box.IMAGEREWARD)
    save_file(torch.load(folder / "ImageReward.pt", weights_only=True), folder / "ImageReward.safetensors")
    (folder / "ImageReward.pt").unlink()
    assert not missing_text(find("imagereward"))
    reward = load("imagereward")
    assert "ImageReward.safetensors" in reward.fingerprint
    assert torch.equal(reward.score_images(images(), PROMPTS), expected)


def test_own_copies_go_before_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv(sources.OWN, str(tmp_path))
    expected = load("hpsv2").score_images(images(), PROMPTS)
    (tmp_path / "xswu").mkdir()
    (tmp_path / box.HPS).symlink_to(box.repository(hub, box.HPS))
    (needed,) = find("hpsv2")
    assert needed.folder == tmp_path / box.HPS
    reward = load("hpsv2")
    assert reward.fingerprint["revision of xswu/HPSv2"] == "local"
    assert torch.equal(reward.score_images(images(), PROMPTS), expected)
    (tmp_path / AESTHETIC_HEAD.reference).mkdir(parents=True)
    assert AESTHETIC_HEAD.find("x").folder == tmp_path / AESTHETIC_HEAD.reference


def test_the_heads_place_and_address(hub):
    assert AESTHETIC_HEAD.target == hub / "align" / box.HEAD
    assert AESTHETIC_HEAD.target.is_file()
    assert AESTHETIC_HEAD.url.startswith("https://github.com/christophschuhmann/")
    assert len(AESTHETIC_HEAD.sha256) == 64


def test_a_checkpoint_of_something_else_is_one_line(empty):
    box.fill_hub(empty)
    torch.save({"state_dict": {"a": torch.zeros(2)}}, box.repository(empty, box.HPS) / "HPS_v2_compressed.pt")
    with pytest.raises(WrongWeights, match="tensors missing") as caught:
        load("hpsv2")
    assert "\n" not in str(caught.value)


def test_the_step_aware_model_needs_nothing_of_pickscores_weights(empty):
    box.fill_hub(empty)
    (box.repository(empty, box.PICKSCORE) / "model.safetensors").unlink()
    assert load("spm_sdxl").score_images(images(), PROMPTS).isfinite().all()


def test_the_aesthetic_reward_reads_no_prompt_and_is_affine(hub):
    reward = load("aesthetic")
    assert torch.equal(reward.score_images(images(), PROMPTS), reward.score_images(images(), [""] * 4))
    a, b = torch.randn(2, 5, 16)
    middle = (reward.head(a) + reward.head(b)) / 2
    torch.testing.assert_close(reward.head((a + b) / 2), middle, rtol=1e-4, atol=1e-4)


def test_a_run_records_them(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["method=none", "sampler.steps=1", "prompts.limit=1", "run.gallery=false", "run.folder=out"]
    assert main([*options, "metrics=paper", "run.device=cpu"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())["record"]["fingerprints"]
    assert record["reward hpsv2: version"] == "2.0"
    assert record["reward imagereward: revision of THUDM/ImageReward"] == box.COMMIT
    header, row = (tmp_path / "out" / "results.csv").read_text().splitlines()[:2]
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert all(values[name] for name in ("pickscore", "hpsv2", "imagereward", "aesthetic"))
