"""Pickles are read as tables of tensors, or not at all."""

import os
import pickle

import pytest
import torch

from align.errors import MissingWeights, WrongWeights
from align.rewards import pickles
from align.rewards.pickles import read_weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "converted"


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(form, tmp_path, cache):
    path, mark = tmp_path / "model.pt", tmp_path / "it_ran"
    content = {"state_dict": {"a": torch.zeros(2), "b": Malicious(mark)}}
    if form == "bare":
        path.write_bytes(pickle.dumps(content["state_dict"]["b"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WrongWeights, match=r"refused: it asks for posix\.mkdir and might run code") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not mark.exists()
    assert not cache.exists()
    # The same file does run when it is trusted.
    (pickle.loads(path.read_bytes()) if form == "bare" else torch.load(path, weights_only=False))
    assert mark.is_dir()


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_tensors_come_out_as_they_went_in(form, wrapped, tmp_path, cache):
    whole = torch.randn(6, 4)
    tensors = {"half": torch.randn(3).half(), "part": whole[1:3], "turned": whole.T, "same": whole}
    path = tmp_path / "model.bin"
    content = {"state_dict": tensors} if wrapped else tensors
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    for _ in range(2):  # the second time from the copy
        found = read_weights(path)
        assert found.keys() == tensors.keys()
        for key, value in tensors.items():
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no pickle at all", "damaged"),
        (b"", "damaged"),
        ([torch.zeros(1)], "no table of tensors"),
        ({}, "no table of tensors"),
        ({"epoch": 3}, "'epoch' in it is no tensor"),
    ],
)
def test_other_content_is_one_line(content, words, tmp_path):
    path = tmp_path / "model.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WrongWeights, match=words) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WrongWeights, match="refused"):
        read_weights(path)


def test_a_changed_file_is_converted_anew(tmp_path, cache):
    path = tmp_path / "model.pt"
    for value in (1.0, 2.0):
        torch.save({"a": torch.full((3,), value)}, path)
        assert read_weights(path)["a"][0] == value
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, cache, caplog):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3)}, path)
    cache.parent.write_text("in the way")
    assert torch.equal(read_weights(path)["a"], torch.ones(3))
    assert "cannot be kept" in caplog.text


def test_an_interrupted_write_leaves_nothing(tmp_path, cache, monkeypatch):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3)}, path)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pickles, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        read_weights(path)
    assert list(cache.iterdir()) == []


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(MissingWeights):
        read_weights(tmp_path / "model.pt")
