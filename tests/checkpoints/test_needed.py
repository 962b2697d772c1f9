"""Lists of needed files: what is missing, the command that brings it, fingerprints, where it came from."""

import hashlib

import pytest

from align.checkpoints.fetch import UrlFile
from align.checkpoints.hashes import file_hash
from align.checkpoints.needed import Needed, hub_needed, joint_fingerprint, missing_text
from align.checkpoints.reference import HubReference

PARTS = ("a.json", "b.safetensors")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A repository in the cache as the client writes it: files are links to blobs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name"
    snapshot = folder / "snapshots/c0ffee/sub"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("c0ffee")
    (folder / "blobs").mkdir()
    for name, data in zip(PARTS, (b"{}", b"weights"), strict=True):
        tag = hashlib.sha256(data).hexdigest() if name.endswith("safetensors") else "ab" * 20
        (folder / "blobs" / tag).write_bytes(data)
        (snapshot / name).symlink_to(f"../../../blobs/{tag}")
    return snapshot


HUB = HubReference("owner/name", None, "sub")


def test_the_command_names_what_is_missing_and_nothing_else(cached):
    assert hub_needed("x", HUB, PARTS).mend == "hf download owner/name sub/a.json sub/b.safetensors"
    (cached / "a.json").unlink()
    needed = hub_needed("x", HUB, PARTS)
    assert needed.missing() == ["a.json"]
    assert needed.mend == "hf download owner/name sub/a.json"
    assert "  x: a.json in " in missing_text([needed])
    (cached / "b.safetensors").unlink()
    text = missing_text([hub_needed("x", HUB, PARTS)])
    assert f"  x: nothing of owner/name in {cached}\n" in text
    assert "python -m align doctor --fetch" in text


def test_a_command_does_not_stand_beside_one_that_fetches_more(cached):
    for name in PARTS:
        (cached / name).unlink()
    text = missing_text([hub_needed("x", HUB, PARTS[:1]), hub_needed("y", HUB, PARTS)])
    assert text.count("hf download") == 1
    assert "hf download owner/name sub/a.json sub/b.safetensors\n" in text


def test_a_broken_link_is_missing(cached):
    (cached / "b.safetensors").resolve().unlink()
    assert hub_needed("x", HUB, PARTS).missing() == ["b.safetensors"]


def test_the_commit_in_the_cache_is_the_source(cached):
    assert hub_needed("x", HUB, PARTS).source == "owner/name@c0ffee"
    assert Needed("x", cached, PARTS, "").source is None


def test_a_blobs_name_is_its_hash(cached):
    path = cached / "b.safetensors"
    assert file_hash(path) == hashlib.sha256(b"weights").hexdigest()
    path.resolve().write_bytes(b"not read again")
    assert file_hash(path) == hashlib.sha256(b"weights").hexdigest()
    # Small files are named by git's hash, which is not a sha256.
    assert file_hash(cached / "a.json") == hashlib.sha256(b"{}").hexdigest()


def test_a_copy_elsewhere_has_the_same_fingerprint(cached, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in PARTS:
        (copy / name).write_bytes((cached / name).read_bytes())
    assert Needed("x", copy, PARTS, "").fingerprint() == hub_needed("x", HUB, PARTS).fingerprint()


def test_one_hash_for_several_parts_tells_who_plays_which(cached, tmp_path):
    one = hub_needed("backbone b", HUB, PARTS)
    other = hub_needed("backbone b unet", HUB, PARTS[:1])
    assert joint_fingerprint([one]) == one.fingerprint()
    as_vae = hub_needed("backbone b vae", HUB, PARTS[:1])
    found = {joint_fingerprint(parts) for parts in ([one], [one, other], [one, as_vae], [one, other, as_vae])}
    assert len(found) == 4


def test_a_file_by_address_says_how_it_comes(tmp_path):
    target = tmp_path / "head.pth"
    needed = Needed("y", tmp_path, ("head.pth",), "the command", urls=(UrlFile("u", "0" * 64, target),))
    assert "doctor --fetch" in missing_text([needed])
    target.write_bytes(b"x")
    assert missing_text([needed]) == ""
