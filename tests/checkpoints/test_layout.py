"""Which files a pipeline needs, by layout, numbers and what is there already."""

import pytest

from align.backbones.registry import Recipe, pieces
from align.checkpoints.layout import lora_piece
from align.checkpoints.reference import HubReference

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def snapshot(cache, repo):
    folder = cache / f"models--{repo.replace('/', '--')}"
    put(folder, "refs/main")
    (folder / "refs/main").write_text("c0ffee")
    return folder / "snapshots/c0ffee"


def files(*weights, **more):
    return pieces(Recipe(weights, **more))[0].files


def test_stable_diffusion_of_the_hub_in_full_and_in_half():
    assert files(SD15) == (
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    )
    half = files(SD15, dtype="bfloat16")
    assert [name for name in half if name.endswith(".safetensors")] == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    mixed = files(SD15, dtype="bfloat16", decoder_dtype="float32", text_dtype="float32")
    assert "text_encoder/model.safetensors" in mixed
    assert "vae/diffusion_pytorch_model.safetensors" in mixed
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in mixed


def test_xl_has_two_encoders_and_says_what_the_empty_prompt_is():
    found = files("owner/xl", layout="sdxl", dtype="float16")
    assert {"model_index.json", "text_encoder_2/model.safetensors", "tokenizer_2/vocab.json"} <= set(found)
    assert "text_encoder_2/config.json" in found


def test_half_files_of_an_unknown_repository_are_taken_only_if_they_are_there(cache):
    model = "unet/diffusion_pytorch_model"
    assert f"{model}.safetensors" in files("owner/name", dtype="float16")
    put(snapshot(cache, "owner/name"), f"{model}.fp16.safetensors")
    (piece,) = pieces(Recipe(("owner/name",), dtype="float16"))
    assert f"{model}.fp16.safetensors" in piece.files
    assert (piece.variant("unet"), piece.variant("vae")) == ("fp16", None)
    assert f"{model}.safetensors" in files("owner/name")


def test_full_files_that_are_there_do_for_half_numbers(cache):
    put(snapshot(cache, SD15), "unet/diffusion_pytorch_model.safetensors")
    assert "unet/diffusion_pytorch_model.safetensors" in files(SD15, dtype="float16")


def test_both_layouts_of_a_tokenizer(tmp_path):
    old = ("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json")
    new = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")

    def of(folder):
        return {name for name in files(str(folder)) if name.startswith("tokenizer")}

    assert of(tmp_path / "nothing") == set(new)
    put(tmp_path / "old", *old)
    assert of(tmp_path / "old") == set(old)
    put(tmp_path / "old", "tokenizer/special_tokens_map.json")
    assert of(tmp_path / "old") == {*old, "tokenizer/special_tokens_map.json"}
    put(tmp_path / "old", *new)
    assert of(tmp_path / "old") == set(new)


def test_modules_from_elsewhere_are_not_asked_of_the_pipeline():
    recipe = Recipe(
        (SD15,), unet="o/dpo:unet", vae="o/vae", lora="o/lora@v1:a/b.safetensors", dtype="bfloat16"
    )
    pipeline, unet, vae, lora = pieces(recipe)
    assert not [name for name in pipeline.files if name.startswith(("unet", "vae"))]
    assert (unet.role, unet.hub) == ("unet", HubReference("o/dpo", None, "unet"))
    assert unet.files == vae.files == ("config.json", "diffusion_pytorch_model.safetensors")
    assert vae.hub == HubReference("o/vae")
    assert (lora.hub, lora.files) == (HubReference("o/lora", "v1", "a"), ("b.safetensors",))
    assert lora_piece("o/lora:b.safetensors").hub == HubReference("o/lora")


def test_the_first_complete_alternative_counts_else_the_first(cache, tmp_path):
    weights = ("a/first", "b/second", "folder")
    assert pieces(Recipe(weights))[0].reference == "a/first"
    put(tmp_path / "folder", *files("folder"))
    assert pieces(Recipe(weights))[0].reference == "folder"
    put(snapshot(cache, "b/second"), *files("b/second"))
    assert pieces(Recipe(weights))[0].reference == "b/second"


def test_a_folder_goes_before_the_hub(tmp_path):
    put(tmp_path / "owner/name", *files("./owner/name"))
    (piece,) = pieces(Recipe(("owner/name",)))
    assert piece.hub is None
    assert piece.complete()
