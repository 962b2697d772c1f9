import json

import pytest

from align.semantics.files import load_library
from align.semantics.graph import GraphError

RED = {"prompt": "A red cat", "knowledge": [{"cat": ["red"]}], "global": [{"style": []}]}
BLUE = {"prompt": "a blue dog", "knowledge": [{"dog": ["blue"]}], "global": []}


def lay(folder, name, *values, lines=False):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, values)) if lines else json.dumps(*values))
    return path


def test_every_layout_holds_the_same_graphs(tmp_path):
    lay(tmp_path, "folder/a.json", RED)
    lay(tmp_path, "folder/more/b.json", BLUE)
    (tmp_path / "folder" / "notes.txt").write_text("no graph")
    libraries = [
        load_library(tmp_path / "folder"),
        load_library(lay(tmp_path, "list.json", [BLUE, RED])),
        load_library(lay(tmp_path, "lines.jsonl", RED, BLUE, RED, lines=True)),
    ]
    assert len({library.fingerprint() for library in libraries}) == 1
    for library in libraries:
        assert library("A red cat").objects == (("cat", ("red",)),)
    single = load_library(tmp_path / "folder" / "a.json")
    assert single("a blue dog") is None
    assert single.fingerprint() != libraries[0].fingerprint()


def test_a_prompt_is_found_exactly_first_then_whatever_its_case(tmp_path):
    other = {**RED, "prompt": "a RED cat", "knowledge": []}
    library = load_library(lay(tmp_path, "list.json", [RED, other]))
    assert library("a RED cat").objects == ()
    assert library("a red cat ").objects == (("cat", ("red",)),)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.json", None, "no such file or folder"),
        ("bad.json", "{", "bad.json is not JSON"),
        ("bad.json", "3", 'bad.json has no text "prompt"'),
        (
            "bad.json",
            '[{"prompt": "a", "knowledge": []}, {"knowledge": []}]',
            "bad.json, entry 2 has no text",
        ),
        ("bad.json", '{"prompt": "a", "knowledge": ["cat"]}', "bad.json: an entry of"),
        ("bad.jsonl", '{"prompt": "a", "knowledge": []}\n\n{', "bad.jsonl, line 3 is not JSON"),
        ("bad.json", b"\xff", "not UTF-8"),
        (
            "bad.jsonl",
            '{"prompt": "a", "knowledge": []}\n{"prompt": "a", "knowledge": [{"b": []}]}',
            "second",
        ),
    ],
)
def test_errors_name_the_place(name, text, words, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GraphError, match=words):
        load_library(path)


def test_a_folder_without_graphs(tmp_path):
    with pytest.raises(GraphError, match=r"without \.json"):
        load_library(tmp_path)
