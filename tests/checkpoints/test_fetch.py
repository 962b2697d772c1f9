"""Fetching from a hub and a web server of our own on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from align.checkpoints.fetch import FetchError, _fitting, fetch_hub, fetch_url
from align.checkpoints.needed import hub_needed
from align.checkpoints.reference import HubReference, snapshot
from align.runner.exits import MISSING_WEIGHTS
from align.runner.survey import fetch_missing

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = b"weights" * 1000
FILES = {"unet/config.json": b"{}", "unet/model.safetensors": LARGE}
INDEX = {
    "metadata": {},
    "weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"},
}
SHARDED = {
    "whole.safetensors": LARGE,
    "net/m.safetensors.index.json": json.dumps(INDEX).encode(),
    **{f"net/m-0000{k}-of-0000{n}.safetensors": LARGE for k, n in ((1, 2), (2, 2), (1, 3))},
}
"""A network in two shards, left-overs of another form, and all of it in one file."""
TABLES = {"data/test-1ab.csv": b"prompt\na cat\n", "data/train-2cd.csv": b"prompt\n"}


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Models ``o/open``, ``o/shards`` and ``o/gated``, data set ``o/open``; the hash of large files is what ``server.stated`` says.

    Whom ``o/gated`` has not let in may look at what it has, as on the hub.
    """

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append(f"{self.command} {path}")
        if path == "api/models/o/gated/auth-check" or path.startswith("o/gated/"):
            return self.answer(self.server.refusal, b"", {"X-Error-Code": "GatedRepo"})
        for kind, place, repo, files in (
            ("models", "", "open", FILES),
            ("models", "", "shards", SHARDED),
            ("models", "", "gated", FILES),
            ("datasets", "datasets/", "open", TABLES),
        ):
            if path.startswith(f"api/{kind}/o/{repo}"):
                return self.answer(200, json.dumps(self.facts(files)).encode())
            name = path.partition("/resolve/")[2].partition("/")[2]
            if path.startswith(f"{place}o/{repo}/resolve/") and name in files:
                tag = self.server.stated if name.endswith(".safetensors") else sha(files[name])[:40]
                return self.answer(200, files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        if path == "head.pth":
            return self.answer(200, LARGE)
        return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def facts(self, files):
        siblings = []
        for name, data in files.items():
            one = {"rfilename": name, "size": len(data), "blobId": "b"}
            if name.endswith(".safetensors"):
                one["lfs"] = {"sha256": self.server.stated, "size": len(data), "pointerSize": 100}
            siblings.append(one)
        return {"id": "o/open", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def answer(self, code, data, headers=None):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.stated, server.asked, server.refusal = sha(LARGE), [], 403
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    pattern = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", pattern)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()


OPEN = HubReference("o/open")


def test_files_of_the_hub_come_into_its_cache_once(server):
    found = fetch_hub(OPEN, list(FILES))
    assert [path.read_bytes() for path in found] == list(FILES.values())
    assert found[0] == snapshot("o/open") / "unet/config.json"
    assert snapshot("o/open").name == COMMIT
    server.asked.clear()
    fetch_hub(OPEN, list(FILES))
    assert not [line for line in server.asked if line.startswith("GET o/open")]


def test_of_a_data_set_comes_what_a_pattern_fits(server):
    reference = HubReference("o/open", kind="dataset")
    (found,) = fetch_hub(reference, ["data/test-*.csv"])
    assert found == snapshot("o/open", kind="dataset") / "data/test-1ab.csv"
    assert found.read_bytes() == TABLES["data/test-1ab.csv"]
    with pytest.raises(FetchError, match=r"o/open does not hold data/val-\*\.csv"):
        fetch_hub(reference, ["data/val-*.csv"])


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ({"m.safetensors", "m.safetensors.index.json"}, ["m.safetensors"]),
        ({"m.fp16.safetensors", "m.bin"}, ["m.fp16.safetensors"]),
        ({"m.safetensors.index.json", "m.safetensors.index.fp16.json"}, ["m.safetensors.index.json"]),
        ({"m.bin"}, []),
    ],
    ids=["one file", "half", "shards", "pickle"],
)
def test_weights_come_in_the_form_that_the_repository_has(held, wanted):
    assert _fitting("m.safetensors", held) == wanted


def test_of_shards_come_the_index_and_what_it_names(server):
    found = fetch_hub(HubReference("o/shards"), ["net/m.safetensors"])
    assert [path.name for path in found] == [
        "m.safetensors.index.json",
        *sorted(INDEX["weight_map"].values()),
    ]
    asked = {line.rpartition("/")[2] for line in server.asked if "o/shards/resolve" in line}
    assert asked == {path.name for path in found}


def test_an_index_that_names_what_is_not_there_is_told(server, monkeypatch):
    monkeypatch.delitem(SHARDED, "net/m-00002-of-00002.safetensors")
    with pytest.raises(
        FetchError, match=r"m\.safetensors\.index\.json names net/m-00002-of-00002\.safetensors"
    ):
        fetch_hub(HubReference("o/shards"), ["net/m.safetensors"])


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_gate_is_told_before_anything_is_fetched(server, refusal, capsys):
    server.refusal = refusal
    needed = [
        hub_needed(repo, HubReference(repo), ("unet/model.safetensors",)) for repo in ("o/open", "o/gated")
    ]
    assert fetch_missing(lambda: needed) == MISSING_WEIGHTS
    told = capsys.readouterr()
    assert told.err == (
        "align: o/gated is gated: accept its terms at https://huggingface.co/o/gated, then give your token in HF_TOKEN, "
        "or run `hf auth login`\n"
    )
    assert told.out == ""
    assert not [line for line in server.asked if "resolve" in line]


def test_a_repository_of_pickles_is_told(server, monkeypatch):
    monkeypatch.setitem(FILES, "vae/model.bin", b"pickle")
    with pytest.raises(
        FetchError, match=r"does not hold vae/model\.safetensors; it has vae/model\.bin, pickles"
    ):
        fetch_hub(OPEN, ["vae/model.safetensors"])


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    server.stated = "0" * 64
    with pytest.raises(FetchError, match="nothing was kept"):
        fetch_hub(OPEN, ["unet/model.safetensors"])
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(LARGE)]
    assert left == []


@pytest.mark.parametrize(
    ("repo", "names", "words"),
    [
        ("o/gated", ["unet/config.json"], "o/gated is gated: accept its terms"),
        ("o/none", ["a"], "o/none is not on the hub"),
        ("o/open", ["unet/none.json"], "o/open does not hold unet/none.json"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(server, repo, names, words):
    with pytest.raises(FetchError, match=words) as error:
        fetch_hub(HubReference(repo), names)
    assert "\n" not in str(error.value)


def test_no_net_is_one_clear_line(server, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="o/open cannot be fetched") as error:
        fetch_hub(OPEN, ["a"])
    assert "\n" not in str(error.value)
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch_url("http://127.0.0.1:9/a", "0" * 64, tmp_path / "a")


def test_offline_is_respected(server, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for call in (
        lambda: fetch_hub(OPEN, ["unet/config.json"]),
        lambda: fetch_url(f"{server.url}/head.pth", sha(LARGE), tmp_path / "a"),
    ):
        with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set"):
            call()
    assert server.asked == []


def test_a_file_by_address_is_whole_or_not_there(server, tmp_path):
    target = tmp_path / "deep/head.pth"
    url = f"{server.url}/head.pth"
    with pytest.raises(FetchError, match=f"has the hash {sha(LARGE)}, not {'0' * 64}"):
        fetch_url(url, "0" * 64, target)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch_url(f"{server.url}/nothing", sha(LARGE), target)
    assert list(target.parent.iterdir()) == []
    assert fetch_url(url, sha(LARGE), target).read_bytes() == LARGE
    assert [path.name for path in target.parent.iterdir()] == ["head.pth"]
    server.asked.clear()
    fetch_url(url, sha(LARGE), target)
    assert server.asked == []
    beginning = sha(LARGE)[:8]  # of a hash of which no more is published
    assert fetch_url(url, beginning, tmp_path / "b").read_bytes() == LARGE
    with pytest.raises(FetchError, match="nothing was kept"):
        fetch_url(url, "0" * 8, tmp_path / "c")
