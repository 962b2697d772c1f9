import pytest

from align.rewards.registry import EMBEDDED
from align.rewards.sources import OWN, Checkpoint


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(OWN, raising=False)
    return tmp_path


def test_a_repository_of_the_hub(home):
    checkpoint = Checkpoint("owner/name@v2:sub/folder", ("a.json", "b.pt"))
    files = checkpoint.find("x")
    assert files.folder == home / "hub/models--owner--name/snapshots/v2/sub/folder"
    assert files.mend == "hf download owner/name sub/folder/a.json sub/folder/b.pt --revision v2"
    assert files.revision == "v2"
    refs = home / "hub/models--owner--name/refs"
    refs.mkdir(parents=True)
    (refs / "v2").write_text("abc")
    assert checkpoint.find("x").revision == "abc"


def test_a_safetensors_version_of_a_pickle_goes_first(home):
    checkpoint = Checkpoint("owner/name", ("a.json", "b.v1.pt", "c.bin"))
    files = checkpoint.find("x")
    assert files.parts == checkpoint.names
    files.folder.mkdir(parents=True)
    (files.folder / "b.v1.safetensors").touch()
    assert checkpoint.find("x").parts == ("a.json", "b.v1.safetensors", "c.bin")


def test_weights_may_be_in_shards_or_in_half_precision(home):
    checkpoint = Checkpoint(str(home), ("config.json", "model.safetensors", "tokenizer.json"))
    (home / "model.fp16.safetensors").touch()
    assert checkpoint.find("x").parts == ("config.json", "model.fp16.safetensors", "tokenizer.json")
    index = "model.safetensors.index.json"
    (home / index).write_text('{"metadata": {}, "weight_map": {"b": "b.safetensors", "a": "a.safetensors"}}')
    for name in ("a", "b"):
        (home / f"{name}.safetensors").touch()
    assert checkpoint.find("x").parts == (
        "config.json",
        index,
        "a.safetensors",
        "b.safetensors",
        "tokenizer.json",
    )


def test_own_copies_need_only_be_there(home, monkeypatch):
    monkeypatch.setenv(OWN, str(home / "own"))
    checkpoint = Checkpoint("owner/name:sub", ("a.json",))
    assert checkpoint.find("x").folder == home / "hub/models--owner--name/snapshots/main/sub"
    (home / "own/owner/name/sub").mkdir(parents=True)
    assert checkpoint.find("x").folder == home / "own/owner/name/sub"
    assert checkpoint.find("x").revision is None


def test_a_download_lies_in_the_projects_cache(home):
    checkpoint = Checkpoint(
        "owner/name", ("a.pth",), url="https://example.org/a.pth", sha256="0" * 64, reward="b"
    )
    files = checkpoint.find("x")
    assert checkpoint.target == home / "align/owner/name/a.pth"
    assert files.folder == checkpoint.target.parent
    assert files.mend == "python -m align doctor --fetch 'metrics.rewards=[b]'"
    assert files.revision is None


def test_embedded_weights_and_local_folders(home):
    assert Checkpoint("shapes", ("unet",)).find("x").paths == [EMBEDDED / "unet"]
    assert Checkpoint("shapes", ("unet",)).find("x").mend == "python scripts/train_shapes.py rewards"
    local = Checkpoint(str(home), ("a.json",)).find("x")
    assert local.folder == home
    assert local.mend == f"put a.json into {home}"
