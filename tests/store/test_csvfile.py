import csv
import math
import re

import pandas
import pytest

from align.store.columns import HEAD, is_metric, ordered
from align.store.csvfile import (
    csv_lines,
    decode_text,
    encode_cell,
    encode_text,
    frame_csv,
    read_csv,
)

HOSTILE = [
    "",
    " ",
    "a red circle",
    "a\x00b",
    "\x00",
    "two\nlines",
    "\n",
    "carriage\rreturn",
    "\r\n",
    "\tleading tab",
    "\rleading return",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-rf /",
    "--help",
    "@SUM(1)",
    "＝1+1",
    " =1+1",
    "\u3000@SUM(1)",
    "\u200b=1",
    '"=1+1"',
    " '\" =1",
    "a red cube; =1+1",
    'x;"-1',
    "x\\x3b=1",
    "'",
    "''",
    "'=1",
    "'quoted'",
    '"double"',
    'a,"b",c;d',
    "\\",
    "\\n is not a line end",
    "\\\\x00",
    "\\ud800 as text",
    "\ud800",
    "x\udfff\ud83d",
    "\ud83d\ude00",  # two lone surrogates that look like a pair
    "emoji 😀🏳️‍🌈",
    "\u202eright to left\u202c שלום",
    "\u2028line\u2029paragraph",
    "\ufeffbyte order mark",
    "\x1b[31mred\x1b[0m",
    "\x7f\x80\x9f\xa0",
    "../../etc/passwd",
    "CON",
    "a | b > c $(reboot) `id` %n {0}",
    "NaN",
    "null",
    "1.5",
    "x" * 10_000,
    "\n" * 10_000,
    "</script><script>alert(1)</script>",
]


def test_there_are_enough_hostile_texts():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 40


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_cell(text):
    cell = encode_text(text)
    assert decode_text(cell) == text
    for part in cell.split(";"):  # some countries' spreadsheets split there
        assert not re.match(r"""[\s"\u200b]*[=+@\t\r＝＋－＠-]""", part)
    assert cell.isprintable() or not any(ord(character) < 32 for character in cell)
    cell.encode("utf-8")


def test_round_trip_of_a_file(tmp_path):
    path = tmp_path / "results.csv"
    numbers = [0.1, -1e-300, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 12345678901234567.0]
    rows = [
        {"prompt": text, "seed": index, "clip": numbers[index % 7], "status": f"failed: {text}"}
        for index, text in enumerate(HOSTILE)
    ]
    path.write_bytes(b"".join(csv_lines(ordered(["clip"]), rows)))
    assert path.read_bytes().count(b"\n") == len(HOSTILE) + 1
    assert b"\x00" not in path.read_bytes()
    table = read_csv(path)
    assert list(table.columns) == ordered(["clip"])
    assert list(table["prompt"]) == HOSTILE
    assert list(table["status"]) == [row["status"] for row in rows]
    assert table["seed"].dtype == "int64"
    assert [value.hex() for value in table["clip"]] == [row["clip"].hex() for row in rows]
    assert table["check_all"].isna().all()
    with open(path, newline="", encoding="utf-8") as file:
        assert sum(1 for _ in csv.reader(file)) == len(HOSTILE) + 1


def test_names_of_columns_are_texts_too(tmp_path):
    path = tmp_path / "results.csv"
    names = ["=cmd|' /C calc'!A0", "tag_@SUM(1)", " -x", "a\nb", "'", "plain"]
    path.write_bytes(b"".join(csv_lines(names, [{name: 1 for name in names}])))
    header, *rows = csv.reader(path.read_text("utf-8").splitlines())
    assert header == ["'=cmd|' /C calc'!A0", "tag_@SUM(1)", "' -x", "a\\nb", "''", "plain"]
    assert rows == [["1"] * len(names)]
    assert list(read_csv(path).columns) == names


def test_a_table_of_a_report_is_as_safe_and_keeps_its_numbers(tmp_path):
    path = tmp_path / "pairs.csv"
    table = pandas.DataFrame(
        {
            "arm": ["=1+1", " @x", "dymo"],
            "=value": ["-1", "clip", None],
            "low": [-0.1, float("nan"), 2.0],
            "n": [-1, 2, 3],
        }
    )
    path.write_text(frame_csv(table), "utf-8")
    assert path.read_text("utf-8") == ("arm,'=value,low,n\n'=1+1,'-1,-0.1,-1\n' @x,clip,,2\ndymo,,2.0,3\n")
    assert list(read_csv(path)["arm"]) == ["=1+1", " @x", "dymo"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("clip,clip\n1,2\n")
    with pytest.raises(ValueError, match="two columns are called 'clip'"):
        read_csv(path)


def test_numbers_and_missing_values(tmp_path):
    path = tmp_path / "results.csv"
    rows = [
        {"whole": 3, "part": 1.0, "verdict": True, "note": "x"},
        {"whole": -4, "part": None, "verdict": False, "note": "2"},
    ]
    path.write_bytes(b"".join(csv_lines(["whole", "part", "verdict", "note"], rows)))
    table = read_csv(path)
    assert table["whole"].tolist() == [3, -4]
    assert table["part"][0] == 1.0
    assert math.isnan(table["part"][1])
    assert table["verdict"].tolist() == [1, 0]
    assert table["note"].tolist() == ["x", "2"]
    assert encode_cell(["a", "b"]) == "a;b"


def test_a_table_that_is_none(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1\n")
    with pytest.raises(ValueError, match="line 2 has 1 cells"):
        read_csv(path)
    path.write_text("")
    with pytest.raises(ValueError, match="empty"):
        read_csv(path)


def test_words_that_were_drawn_are_texts_whatever_they_look_like(tmp_path):
    path = tmp_path / "results.csv"
    names = ordered(["drawn_prompt", "drawn_negative", "info_value"])
    assert names[-3:] == ["drawn_prompt", "drawn_negative", "info_value"]
    rows = [{"drawn_prompt": text, "drawn_negative": "2"} for text in ("1", "=a, in oil", "")]
    path.write_bytes(b"".join(csv_lines(names, rows)))
    table = read_csv(path)
    assert list(table["drawn_prompt"]) == ["1", "=a, in oil", ""]
    assert list(table["drawn_negative"]) == ["2"] * 3
    assert not any(is_metric(name) for name in names[-3:])
    assert "drawn_prompt" not in ordered([])


def test_order_of_columns():
    names = ordered({"zeta", "clip", "check_extra", "info_note", "seconds", "prompt"})
    assert names[: len(HEAD)] == list(HEAD)
    assert names[len(HEAD) :][:3] == ["clip", "zeta", "check_all"]
    assert names[-1] == "info_note"
    assert names.index("check_extra") == names.index("network_forward") - 1
    assert len(names) == len(set(names))
