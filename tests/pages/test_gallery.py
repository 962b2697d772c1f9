import base64
import hashlib
import io
import json
import os
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser

import numpy
import pytest
from PIL import Image
from store.helpers import Item, make_png
from store.test_csvfile import HOSTILE

from align.analysis.arms import load_arms
from align.analysis.comparison import compare
from align.pages.contact_sheet import write_contact_sheet
from align.pages.gallery import drawn_as, write_gallery
from align.store.csvfile import encode_text, read_csv
from align.store.errors import ReportError
from align.store.inside import pictures_in
from align.store.manifest import Manifest
from align.store.store import Store


class Page(HTMLParser):
    """Elements and texts of a page, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.prompts, self.scripts, self._inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "h2":
            self.prompts.append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = "" if tag in ("h2", "script") else self._inside

    def handle_data(self, data):
        if self._inside == "h2":
            self.prompts[-1] += data
        if self._inside == "script":
            self.scripts[-1] += data


def run(folder, method, prompts, size=64):
    items = [
        Item(hashlib.sha256(json.dumps([method, prompt]).encode()).hexdigest(), prompt, 0)
        for prompt in prompts
    ]
    with Store(folder, Manifest({"method": method}), items) as store:
        for place, item in enumerate(items):
            picture = make_png(item) if size == 64 else Image.new("RGB", (size, size // 2), "red")
            row = {"prompt": item.prompt, "method": method, "clip": place * 0.1, "check_all": place % 2 == 0}
            store.commit(item, picture, row)
    return folder


def test_hostile_prompts_stay_text(tmp_path):
    prompts = [prompt for prompt in HOSTILE if prompt]
    folders = [run(tmp_path / "a", "none", prompts), run(tmp_path / "b", "<b>x</b>", prompts)]
    text = write_gallery(compare(folders), tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.prompts) == len(prompts)
    plain = "</script><script>alert(1)</script>"
    assert page.prompts[prompts.index(plain)] == plain
    assert len(page.scripts) == 2
    assert "<b>x</b>" not in text
    assert "\x00" not in text
    assert "\x1b" not in text
    rows = json.loads(page.scripts[0])
    assert len(rows) == len(prompts)
    assert rows[prompts.index(plain)]["prompt"] == plain
    assert rows[1] == {"prompt": rows[1]["prompt"], "differs": False, "baselineFails": True, "deltas": [
        {"check_all": 0.0, "clip": 0.0}
    ]}  # fmt: skip


def test_the_page_needs_nothing_else(tmp_path):
    folder = run(tmp_path / "a", "none", ["a", "b"])
    text = write_gallery(compare([folder]), tmp_path / "gallery.html").read_text(encoding="utf-8")
    page = Page(text)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
    assert sorted(pictures) == sorted(path.read_bytes() for path in (folder / "images").iterdir())
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "base")]
    assert not re.findall(r"https?://|url\(|@import", text)
    assert all("src" not in attributes for tag, attributes in page.tags if tag == "script")


def test_limit_and_missing_pictures(tmp_path):
    folder = run(tmp_path / "a", "none", [f"p{number}" for number in range(5)])
    next((folder / "images").iterdir()).unlink()
    text = write_gallery(compare([folder]), tmp_path / "gallery.html", limit=3).read_text(encoding="utf-8")
    assert len(Page(text).prompts) == 3
    assert "(the first 3 of 5)" in text
    text = write_gallery(compare([folder]), tmp_path / "gallery.html").read_text(encoding="utf-8")
    assert text.count("picture missing") == 1


def test_pictures_of_a_foreign_table_stay_inside_its_folder(tmp_path):
    """Whatever a results.csv of somebody else names, the page shows files of that folder alone."""
    outside = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "red").save(outside)
    folder = run(tmp_path / "foreign", "none", ["a", "b"])
    images = folder / "images"
    kept, moved = sorted(images.iterdir())
    (images / "link.png").symlink_to(outside)
    (images / "own.png").symlink_to(kept.name)
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(images / "fifo.png")
    named = [
        "../secret.png",
        str(outside),
        "images/link.png",
        "up/secret.png",
        "images/../../secret.png",
        "/dev/zero",
    ]
    named += [
        "images/fifo.png",
        "images",
        "C:\\secret.png",
        "file://secret.png",
        "https://evil.example/a.png",
        "images\\..\\a",
    ]
    table = folder / "results.csv"
    for name in named:
        edited = table.read_text("utf-8").replace(f"images/{moved.name}", encode_text(name))
        other = tmp_path / "edited"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(folder, other, symlinks=True, ignore=lambda *_: {"fifo.png"})
        os.mkfifo(other / "images" / "fifo.png")
        (other / "results.csv").write_text(edited, "utf-8")
        page = Page(write_gallery(compare([other]), tmp_path / "g.html").read_text("utf-8"))
        shown = [
            base64.b64decode(a["src"].partition(",")[2])
            for tag, a in page.tags
            if tag == "img" and "src" in a
        ]
        assert shown == [kept.read_bytes()], name
        arms, _ = load_arms([other])
        assert sum(map(bool, arms[0].rows["path"])) == 1 or "://" in name
        write_contact_sheet(compare([other]), tmp_path / "sheet.png")
    assert pictures_in(folder, ["images/own.png", "images/none.png", ""]) == [
        str(images / "own.png"),
        str(images / "none.png"),
        "",
    ]


def test_large_pictures_are_made_smaller(tmp_path):
    folder = run(tmp_path / "a", "none", ["a"], size=2048)
    text = write_gallery(compare([folder]), tmp_path / "gallery.html").read_text(encoding="utf-8")
    (source,) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (512, 256)


def test_contact_sheet(tmp_path):
    folders = [run(tmp_path / "a", "none", HOSTILE[:8]), run(tmp_path / "b", "das", HOSTILE[:6])]
    first = write_contact_sheet(compare(folders), tmp_path / "one.png").read_bytes()
    second = write_contact_sheet(compare(folders), tmp_path / "two.png").read_bytes()
    assert first == second
    with Image.open(io.BytesIO(first)) as sheet:
        assert {(31, 146, 84), (207, 58, 49)} <= {colour for _, colour in sheet.getcolors(1 << 20)}
    with pytest.raises(ReportError):
        write_contact_sheet(compare([tmp_path / "missing"]), tmp_path / "three.png")


def test_pictures_of_any_kind_are_shown_or_are_gaps_with_a_name(tmp_path):
    def saved(image, kind="PNG", **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    grey = Image.fromarray(numpy.full((8, 8), 40_000, dtype=numpy.uint16))
    whole = saved(Image.new("RGB", (8, 8), "red"))
    size = struct.pack(">2I", 20_000, 20_000) + whole[24:29]
    shown = {
        "grey of 16 bits": saved(grey),
        "four inks": saved(Image.new("CMYK", (8, 8)), "JPEG"),
        "palette": saved(Image.new("P", (8, 8))),
        "TIFF": saved(Image.new("RGB", (8, 8)), "TIFF"),
    }
    gaps = {
        "bomb": whole[:16] + size + zlib.crc32(b"IHDR" + size).to_bytes(4, "big") + whole[33:],
        "nothing": b"",
        "torn": whole[:50],
        "text": b"no picture",
    }
    folder = run(tmp_path / "a", "none", [*shown, *gaps])
    rows = read_csv(folder / "results.csv")
    paths = dict(zip(rows["prompt"], rows["image"], strict=True))
    for name, data in (shown | gaps).items():
        (folder / paths[name]).write_bytes(data)
    page = write_gallery(compare([folder]), tmp_path / "gallery.html").read_text(encoding="utf-8")
    assert len([1 for tag, _ in Page(page).tags if tag == "img"]) == len(shown)
    for name in gaps:
        assert f"<span>{paths[name].partition('/')[2]}: " in page
    assert "data:image/tiff" not in page
    with Image.open(write_contact_sheet(compare([folder]), tmp_path / "sheet.png")) as sheet:
        assert sheet.height > 8 * 100


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "a cat"}, ""),
        ({"prompt": "a cat", "drawn_prompt": "a cat", "drawn_negative": ""}, ""),
        (
            {"prompt": "a cat", "drawn_prompt": "a cat, in oil", "drawn_negative": "odd"},
            "\u2026, in oil; not: odd",
        ),
        (
            {"prompt": "a cat", "drawn_prompt": "cat in oil", "drawn_negative": "odd", "negative": "odd"},
            "cat in oil",
        ),
    ],
)
def test_a_cell_tells_the_words_that_were_drawn_where_they_are_others(row, text):
    assert drawn_as(row) == text
