"""The name ``align`` on the package index is somebody else's, so nothing here installs, or asks for, a package of that name."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from align import version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_no_page_and_no_message_installs_a_package_of_that_name():
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    for folder, kinds in (("align", "*.py"), ("conf", "*.yaml"), ("docs", "*.md")):
        pages += (ROOT / folder).rglob(kinds)
    for page in pages:
        assert not re.search(r"pip install.*\balign(\[|['\"\s]|$)", page.read_text("utf-8"), re.MULTILINE), (
            page
        )


def test_the_distribution_has_a_name_of_its_own_and_the_command_keeps_its():
    assert PROJECT["name"] == version.DISTRIBUTION != "align"
    assert PROJECT["scripts"] == {"align": "align.__main__:program"}


def test_the_version_is_told_without_metadata_and_never_that_of_a_stranger(monkeypatch):
    def stranger(name):
        if name == "align":
            return "9.9"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "installed", stranger)
    assert version.version() == PROJECT["version"]
    monkeypatch.setattr(version, "CHECKOUT", ROOT / "nothing")
    assert version.version() is None
