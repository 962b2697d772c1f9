"""Which files a pipeline needs, by layout, numbers and what is there already."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from align.backbones.recipe import Recipe
from align.backbones.registry import pieces
from align.checkpoints.layout import check_shards, file_piece, weight_files
from align.checkpoints.reference import HubReference, hub_reference
from align.errors import WrongWeights

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


def test_half_files_of_an_unknown_repository_are_asked_for_only_if_they_are_there(cache):
    model = "unet/diffusion_pytorch_model"
    assert f"{model}.safetensors" in files("owner/name", dtype="float16")
    put(snapshot(cache, "owner/name"), f"{model}.fp16.safetensors")
    (piece,) = pieces(Recipe(("owner/name",), dtype="float16"))
    assert f"{model}.fp16.safetensors" in piece.files
    # Where nothing else is there they are also read as full numbers.
    assert f"{model}.fp16.safetensors" in files("owner/name")
    put(snapshot(cache, "owner/name"), f"{model}.safetensors")
    assert f"{model}.safetensors" in files("owner/name")


def test_full_numbers_of_a_repository_that_is_known_to_have_them_come_from_full_files(cache):
    put(snapshot(cache, SD15), "unet/diffusion_pytorch_model.fp16.safetensors")
    assert "unet/diffusion_pytorch_model.safetensors" in files(SD15)


NAME = "model.safetensors"


def index(folder, shards, name="model.safetensors.index.json", **more):
    put(folder, name)
    content = {"metadata": {}, "weight_map": {f"tensor{k}": shard for k, shard in enumerate(shards)}, **more}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_shards_are_their_index_and_all_that_it_names(tmp_path):
    assert weight_files(tmp_path, NAME) == (NAME,)
    index(tmp_path, ["b.safetensors", "a.safetensors", "b.safetensors"])
    sharded = ("model.safetensors.index.json", "a.safetensors", "b.safetensors")
    assert weight_files(tmp_path, NAME) == sharded
    put(tmp_path, "a.safetensors", "model.fp16.safetensors")
    assert weight_files(tmp_path, NAME) == ("model.fp16.safetensors",)  # the only form that is whole
    put(tmp_path, "b.safetensors")
    assert weight_files(tmp_path, NAME) == sharded
    put(tmp_path, NAME)
    assert weight_files(tmp_path, NAME) == (NAME,)


@pytest.mark.parametrize("mark", ["fp16", "bf16"])
def test_half_precision_may_be_in_shards(mark, tmp_path):
    index(tmp_path, [f"model.{mark}-1.safetensors"], f"model.safetensors.index.{mark}.json")
    assert weight_files(tmp_path, NAME, half=True)[1:] == (f"model.{mark}-1.safetensors",)


def test_of_a_hubs_shards_the_missing_ones_are_asked_for(cache):
    folder = snapshot(cache, "owner/name") / "unet"
    index(folder, ["a.safetensors", "b.safetensors"], "diffusion_pytorch_model.safetensors.index.json")
    put(folder, "a.safetensors")
    (piece,) = pieces(Recipe(("owner/name",)))
    gone = [name for name in piece.files if name.startswith("unet") and not (piece.folder / name).is_file()]
    assert gone == ["unet/b.safetensors", "unet/config.json"]


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "a.bin", 3])
def test_an_index_names_only_safetensors_beside_it(shard, tmp_path):
    index(tmp_path, [shard])
    with pytest.raises(WrongWeights, match=r"model\.safetensors\.index\.json names .* refused"):
        weight_files(tmp_path, NAME)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 100_000, "{}", '{"metadata": {}, "weight_map": {}}', '{"weight_map": {"a": "b"}}'],
)
def test_what_is_no_index_is_told(text, tmp_path):
    index(tmp_path, []).write_text(text)
    with pytest.raises(WrongWeights, match="no index of shards"):
        weight_files(tmp_path, NAME)


def test_shards_hold_what_their_index_says(tmp_path):
    path = index(tmp_path, ["a.safetensors", "b.safetensors"])
    numbers = np.zeros(1, dtype="float32")
    save_file({"tensor0": numbers}, tmp_path / "a.safetensors")
    save_file({"tensor1": numbers}, tmp_path / "b.safetensors")
    check_shards(path)
    save_file({"tensor0": numbers, "tensor1": numbers}, tmp_path / "a.safetensors")
    with pytest.raises(WrongWeights, match=r"a\.safetensors holds beside what .*: tensor1"):
        check_shards(path)
    save_file({"other": numbers}, tmp_path / "a.safetensors")
    with pytest.raises(WrongWeights, match=r"a\.safetensors holds beside what .*: other, tensor0"):
        check_shards(path)
    (tmp_path / "a.safetensors").write_bytes(b"cut")
    with pytest.raises(WrongWeights, match=r"a\.safetensors is damaged"):
        check_shards(path)


def test_of_a_single_file_the_pipeline_says_the_sizes(tmp_path):
    pipeline, single = pieces(Recipe((SD15,), single_file="o/n@v1:sub/one.safetensors"))
    assert (single.hub, single.files) == (HubReference("o/n", "v1", "sub"), ("one.safetensors",))
    assert not [name for name in pipeline.files if name.endswith(".safetensors")]
    assert {"unet/config.json", "vae/config.json", "text_encoder/config.json"} < set(pipeline.files)
    pipeline, vae = pieces(Recipe((SD15,), vae="vae.safetensors"))
    assert [name for name in pipeline.files if name.startswith("vae")] == ["vae/config.json"]
    assert (vae.hub, vae.files) == (None, ("vae.safetensors",))


def test_a_file_that_is_not_there_is_no_repository():
    assert hub_reference("loras/mine.safetensors") is None
    assert hub_reference("owner/name:mine.safetensors") is not None


def test_pefts_lora_is_two_files():
    assert file_piece("o/n:adapter_model.safetensors", "lora").files[1] == "adapter_config.json"
    assert file_piece("o/n:adapter_model.safetensors", "unet").files == ("adapter_model.safetensors",)


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
    assert file_piece("o/lora:b.safetensors", "lora").hub == HubReference("o/lora")


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
