import errno
import os
import stat

import pytest

from align import writing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    writing.write_text(path, "old and long")
    writing.write_text(path, "né\n")
    assert path.read_bytes() == "né\n".encode()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_while_writing_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    writing.write_bytes(path, b"old")

    def write():
        with writing.replacing(path) as file:
            file.write(b"new, and not all of it")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    writing.write_bytes(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        writing.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_the_old_file_is_there_until_the_block_ends(tmp_path):
    path = tmp_path / "a.bin"
    writing.write_bytes(path, b"old")
    with writing.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_nothing_is_written_through_a_symbolic_link(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.txt"
    target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    writing.write_text(link, "new")
    assert not link.is_symlink()
    assert link.read_text() == "new"
    assert target.read_text() == "old"
    (tmp_path / "folder").symlink_to(
        tmp_path / "real"
    )  # one that the path goes through was named by the user
    writing.write_text(tmp_path / "folder" / "a.txt", "newer")
    assert target.read_text() == "newer"


def test_permissions(tmp_path):
    path = tmp_path / "a.txt"
    old = os.umask(0o027)
    try:
        writing.write_text(path, "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    writing.write_text(path, "y")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_long_names_and_missing_folder(tmp_path):
    path = tmp_path / ("x" * 240)
    writing.write_text(path, "x")
    assert path.read_text() == "x"
    with pytest.raises(FileNotFoundError):
        writing.write_text(tmp_path / "missing" / "a", "x")


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / f".a.csv.1-0{writing.SUFFIX}").write_text("half")
    (tmp_path / f"mine{writing.SUFFIX}").write_text("mine")
    (tmp_path / "a.csv").write_text("whole")
    assert writing.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["a.csv", f"mine{writing.SUFFIX}"]
    assert writing.remove_leftovers(tmp_path / "missing") == 0


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        writing.write_text(tmp_path / "pipe", "new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["pipe"]
