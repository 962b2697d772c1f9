"""Markdown, LaTeX and HTML of a report: any text stays text."""

import re

from store.test_csvfile import HOSTILE

from align.pages.document import Document, Figure, Section, html, latex, latex_text, markdown
from align.pages.numbers import Cell

from .test_gallery import Page


def document(text):
    """A document that has a text in every place."""
    return Document(text, [text], [Section(text, {text: {text: text, "b": "1"}})], [text], [], [text])


def test_hostile_texts_stay_text_in_html(tmp_path):
    plain = html(document("a title"), tmp_path)
    tags = [tag for tag, _ in Page(plain).tags]
    for text in HOSTILE:
        page = Page(html(document(text), tmp_path))
        assert [tag for tag, _ in page.tags if tag != "wbr"] == tags
        assert page.scripts == []
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_needs_nothing_else(tmp_path):
    (tmp_path / "gain.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    made = Document(
        "t", [], [Section("s", {"r": {"c": "1"}})], figures=[Figure("gain.svg", "Gain", "What it is.")]
    )
    text = html(made, tmp_path)
    (source,) = [attributes["src"] for tag, attributes in Page(text).tags if tag == "img"]
    assert source.startswith("data:image/svg+xml;base64,")
    assert not re.findall(r"https?://|@import|<link|<script", text)
    assert "![](gain.svg)" in markdown(made)


def test_a_text_is_one_cell_of_a_markdown_table():
    for text in HOSTILE:
        lines = markdown(document(text)).splitlines()
        (row,) = [line for line in lines if line.startswith("| ") and line.endswith(" | 1 |")]
        assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", row))) == 4
        assert "<" not in row


def test_latex_sets_every_special_as_it_is():
    assert latex_text("50% of a_b & {c} $d$ #1 ~ ^ \\x") == (
        r"50\% of a\_b \& \{c\} \$d\$ \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}x"
    )
    assert latex_text("[1, 2]") == "{[}1, 2]"
    assert "\n" not in latex_text("a\nb")


def test_latex_tables_have_a_cell_for_every_column():
    made = Document("t", ["one\nline"], [Section("s", {"a": {"r": "1"}, "b": {"q": Cell("2*", "[1, 3]")}})])
    text = latex(made)
    assert r"\begin{tabular}{lrr}" in text
    assert "r & 1 & -- \\\\\nq & -- & 2* [1, 3] \\\\" in text
    comments = [line for line in text.splitlines() if line.startswith("%")]
    assert len(comments) == 3


def test_a_difference_stands_there_also_where_it_reads_as_the_value(tmp_path):
    gains = {"a": {"x": Cell("−0.250", "", -1), "y": Cell("not run")}}
    section = Section("s", {"a": {"x": Cell("−0.250"), "y": Cell("not run")}}, gains, "difference")
    text = html(Document("t", [], [section]), tmp_path)
    assert text.count('class="gain"') == 1
    assert '<span class="down">−0.250' in text


def test_values_stand_down_and_arms_across_unless_there_are_many(tmp_path):
    def made(arms):
        rows = {name: {f"arm {k}": Cell(str(k), "[1, 2]") for k in range(arms)} for name in ("a", "b")}
        gains = {"a": {"arm 1": Cell("+7", "[+6, +8]", 1)}}
        return Document("t", [], [Section("s", rows, gains, "difference")])

    few, many = html(made(2), tmp_path), html(made(9), tmp_path)
    assert few.count("<tr>") == 3
    assert many.count("<tr>") == 10
    for text in (few, many):
        assert re.search(r'>1 <small>\[1,\u00a02\]</small>\s*<span class="gain"><span class="up">\+7', text)
    assert "| a | 0 \\[1, 2] | 1 \\[1, 2] |" in markdown(made(2))
    assert "| arm 1 | +7 \\[+6, +8] |" in markdown(made(9))
    assert r"arm 1 & 1 [1, 2] & 1 [1, 2] \\" in latex(made(2))  # methods are rows in papers
