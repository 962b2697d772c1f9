import pytest

from align.checkpoints.reference import (
    EMBEDDED,
    HubReference,
    fetch_command,
    folder_of,
    hub_reference,
    snapshot,
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("owner/name", HubReference("owner/name")),
        ("owner/na.me-1_x@fp16", HubReference("owner/na.me-1_x", "fp16")),
        ("owner/name:unet", HubReference("owner/name", None, "unet")),
        ("owner/name@refs/pr/1:a/b", HubReference("owner/name", "refs/pr/1", "a/b")),
    ],
)
def test_a_repository_with_its_revision_and_folder(text, reference):
    assert hub_reference(text) == reference


@pytest.mark.parametrize("text", ["shapes", "/models/sd15", "./sd15", "~/sd15", "a/b/c", "sd15", "../a/b"])
def test_everything_else_is_local(text):
    assert hub_reference(text) is None


def test_a_folder_that_exists_goes_first(tmp_path, monkeypatch):
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_reference("owner/name") is None
    assert str(folder_of("owner/name")) == "owner/name"


def test_embedded_weights_are_where_the_package_is():
    assert (EMBEDDED["shapes"] / "unet/config.json").is_file()
    assert folder_of("shapes") == EMBEDDED["shapes"]


def test_a_branch_is_looked_up_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("abc123\n")
    assert snapshot("owner/name") == cached / "snapshots/abc123"
    assert folder_of("owner/name:unet") == cached / "snapshots/abc123/unet"
    assert snapshot("owner/name", "def456") == cached / "snapshots/def456"


def test_a_data_set_has_a_place_and_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hub_reference("o/n@v1", "dataset") == HubReference("o/n", "v1", "", "dataset")
    assert folder_of("o/n@v1", "dataset") == tmp_path / "datasets--o--n/snapshots/v1"


@pytest.mark.parametrize(
    ("reference", "files", "words"),
    [
        (HubReference("o/n", "v1"), ("a.json", "b/c"), "a.json b/c --revision v1"),
        (HubReference("o/n", None, "", "dataset"), ("a b",), "'a b' --repo-type dataset"),
        (HubReference("o/n"), ("a-*.txt", "b"), "--include 'a-*.txt' --include b"),
    ],
)
def test_the_command_that_fetches(reference, files, words):
    assert fetch_command(reference, files) == f"hf download o/n {words}"
