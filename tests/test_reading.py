"""Files that a user names: no pipe is waited for, no device read, and nothing larger than the memory."""

import os
import socket

import pytest

from align.reading import open_file, parse_json, parse_object, read_bytes, read_json, read_text


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_bytes(path) == b"\xef\xbb\xbfa\r\nb"
    assert read_text(path, "utf-8-sig") == "a\r\nb"


def test_what_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, what in (
            ("pipe", "a pipe"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
            (".", "a folder"),
        ):
            with pytest.raises(OSError, match=f"it is {what}, not a file"):
                open_file(name)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # no blocks on the disk
    with pytest.raises(OSError, match="it is larger than 262,144 kB"):
        read_bytes(path)


def test_a_file_that_grows_is_not_read_for_ever():
    with pytest.raises(OSError, match="it is larger than 0 kB"):
        read_bytes("/proc/self/status", largest=10)  # its size is told as 0


def test_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "it is not a JSON object"), ("3", "it is not a JSON object"), ("{", "it is not JSON")],
)
def test_what_is_no_object_is_named(text, said):
    assert parse_object('{"a": 1}', "it") == {"a": 1}
    with pytest.raises(ValueError, match=said):
        parse_object(text, "it")
