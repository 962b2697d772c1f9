"""Prompts: files of every kind, data sets of the hub, the filter of unsafe ones, and which of them a run takes."""

import json
import os
import re
import sys
from dataclasses import replace

import pytest
from hub_box import PARTI, STYLES, repository, write_datasets

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.config.schema import PromptsConfig
from align.runner import build
from align.runner.files import Files
from align.runner.prompt_files import PromptRow, read_prompts
from align.runner.prompts import load_prompts, prompts_hash, set_hash
from align.runner.row_files import read_rows
from align.runner.syntax import syntax_line
from align.runner.unsafe import is_unsafe, words, words_hash
from align.store.csvfile import read_csv

from .helpers import FakeSampler, arguments


def rows(path, **options):
    return read_prompts(path, PromptsConfig("file", "file", path=str(path), **options))


def texts(path, column="prompt"):
    return [row.text for row in rows(path, column=column)]


def test_prompt_files(tmp_path):
    text = tmp_path / "a.txt"
    text.write_bytes("\ufeff- one \r\n\r\ntwo\u2028still two\n".encode())
    assert texts(text) == ["- one ", "two\u2028still two"]
    text.write_text("[red] {cat}, a prompt\nprompt, seed\n")  # no header but in the first line
    assert texts(text) == ["[red] {cat}, a prompt", "prompt, seed"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"prompt": "a\\nb"}\n\n""\n"\\ud800"\n')
    assert texts(lines) == ["a\nb", "", "\ud800"]
    listed = tmp_path / "a.json"
    listed.write_text('["a", {"prompt": "b"}]')
    assert texts(listed) == ["a", "b"]


TABLES = {
    "a.csv": ('id,text\r\n1,"a cat, a dog"\r\n2,"two\nlines"\r\n', ["a cat, a dog", "two\nlines"]),
    "a.tsv": ('text\tid\na "red" cat\t1\n', ['a "red" cat']),
    "a.jsonl": ('{"text": "a cat", "prompt": "not this"}\n', ["a cat"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_prompts_in_a_named_column(tmp_path, name):
    content, prompts = TABLES[name]
    (tmp_path / name).write_bytes(content.encode())
    assert texts(tmp_path / name, "text") == prompts


def test_parquet_is_a_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"caption": ["a cat", "a\ndog"], "label": [0.5, 1.0]}), path)
    assert texts(path, "caption") == ["a cat", "a\ndog"]
    with pytest.raises(
        ConfigError, match=r"no column 'prompt': give prompts.column=NAME, one of caption, label"
    ):
        texts(path)
    with pytest.raises(ConfigError, match="row 1 has no prompt"):
        texts(path, "label")
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(ConfigError, match="cannot be read") as error:
        texts(path)
    assert "\n" not in str(error.value)


def test_without_pyarrow_parquet_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        texts(tmp_path / "a.parquet")


SPELLINGS = {
    "a.CSV": "text,id\na cat,1\na dog,2\n",
    "a.Tab": "text\tid\na cat\t1\na dog\t2\n",
    "semicolons.csv": "text;id\na cat;1\na dog;2\n",
    "tabs.csv": "text\tid\na cat\t1\na dog\t2\n",
    "said.csv": "sep=;\ntext;id\na cat;1\na dog;2\n",
    "old mac.csv": "text,id\ra cat,1\ra dog,2\r",
    "spreadsheet.csv": "\ufeff text ,,\r\na cat,,\r\n,,\r\na dog,,\r\n",
    "a.NDJSON": '{"text": "a cat"}\r\n{"text": "a dog"}\r\n',
    "old mac.jsonl": '{"text": "a cat"}\r{"text": "a dog"}',
    "a.JSON": '\ufeff["a cat", {"text": "a dog"}]',
    "old mac.TXT": "a cat\r\ra dog",
    "no ending": "a cat\r\na dog\r\n",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings_of_endings_separators_and_line_ends_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(SPELLINGS[name].encode())
    assert texts(tmp_path / name, "text") == ["a cat", "a dog"]


def test_a_table_with_tabs_may_be_written_without_quoting(tmp_path):
    (tmp_path / "a.tsv").write_text('prompt\tnote\n"Hi", says a cat\t"x\na dog\t\n')
    assert list(read_rows(tmp_path / "a.tsv", "mine")) == [
        ("mine, line 2", {"prompt": '"Hi", says a cat', "note": '"x'}),
        ("mine, line 3", {"prompt": "a dog", "note": ""}),
    ]


def test_what_is_no_text_in_utf8_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_bytes("prompt\na cat\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="csv is UTF-16: save it as UTF-8"):
        texts(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes("prompt\ra cat\rcaf\u00e9\r".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a.csv, line 3 is not UTF-8 \(byte 16\)"):
        texts(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ConfigError, match="it is a pipe, not a file"):
        texts(tmp_path / "pipe.txt")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id,text\n1,a cat\n", "no column 'prompt': give prompts.column=NAME, one of id, text"),
        ("a.csv", "", "is empty"),
        ("a.csv", ",,\n,,\n", "is empty"),
        ("a.csv", "prompt,seed\n", "has a header and no rows"),
        ("a.tsv", "id\tprompt\n1\ta cat\n2\n", "line 3 has 1 of the header's 2 cells"),
        (
            "a.csv",
            "prompt,seed\na cat,1\na cat, a dog,2\n",
            'line 3 has 3 cells .* header 2: quote .*"a cat, a dog"',
        ),
        ("a.csv", 'prompt,seed\n"two\nlines",1\na cat, a dog,2\n', "line 4 has 3 cells"),
        ("a.csv", 'prompt\na cat\n"a dog\na fox\n', "line 3 is no row of a table"),
        ("a.csv", 'id,prompt\n1, "a cat"\n', "line 2 has a space before a quote"),
        ("a.csv", "prompt,id\n ,2\n", "line 2 has an empty prompt"),
        ("a.csv", "prompt,prompt\na,b\n", "has the column 'prompt' twice"),
        ("a.csv", "prompt;a|b\n1;2|3\n", "line 1 has semicolons and bars"),
        ("a.csv", "sep=x\npromptx1\n", "line 1: 'x' is no separator"),
        ("a.txt", '{"prompt": "a cat", "seed": 3}\n', "line 1 is JSON.*name the file .json or .jsonl"),
        ("a.list", '[\n"a cat"]\n', "line 1 is JSON"),
        ("a", "id;prompt\n1;a cat\n", "line 1 is the header of a table.*name the file .csv"),
        ("a.txt", "a cat\na\0 dog\n", "line 2: there is a NUL character"),
        ("a.txt", "a cat\n\ufeffa dog\n", "line 2: there is a byte order mark"),
        ("a.xlsx", "PK", "ends in .xlsx, which is not read: save it as one of .csv"),
        ("a.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1 is not JSON .*key 'prompt' twice"),
        ("a.jsonl", '{"prompt": "a", "seed": NaN}', "line 1 is not JSON .NaN is no number"),
        ("a.json", '{"prompt": "a"}', "holds no list"),
        ("a.json", '["a", 1]', "entry 2 has no prompt"),
        ("a.jsonl", '"a"\n{"text": "b"}\n', r"line 2 has no prompt.*prompts\.column=KEY"),
        ("a.jsonl", '"a"\n"b\n', "line 2 is not JSON"),
    ],
)
def test_a_bad_file_is_one_line_that_says_where(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError, match=words) as error:
        texts(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"prompts.path={path}")


@pytest.mark.parametrize("prompt", ["a corpse flower", "A CORPSE!", "two ｃｏｒｐｓｅ flowers", "self-harm"])
def test_unsafe_words_count_whatever_their_case_and_typeface(prompt):
    assert is_unsafe(prompt)


@pytest.mark.parametrize("prompt", ["", "a scorpse", "a view of Sussex", "Essex grapes", "corpse_1"])
def test_parts_of_words_do_not_count(prompt):
    assert not is_unsafe(prompt)


def test_the_word_list_is_well_formed():
    assert len(words()) > 60
    assert len(set(words())) == len(words())
    assert all(word == word.casefold().strip() for word in words())


FIVE = PromptsConfig("five", text=("one", "a corpse flower", "three", "four", "five"))


def test_dropping_comes_before_everything_else():
    dropping = replace(FIVE, unsafe="drop")
    assert load_prompts(dropping).prompts == ("one", "three", "four", "five")
    assert load_prompts(replace(dropping, offset=1, limit=2)).prompts == ("three", "four")
    shuffled = load_prompts(replace(dropping, shuffle_seed=1)).prompts
    assert sorted(shuffled) == ["five", "four", "one", "three"]
    assert load_prompts(replace(dropping, shuffle_seed=1, limit=2)).prompts == shuffled[:2]
    assert load_prompts(replace(dropping, shuffle_seed=2)).prompts != shuffled


def test_what_was_dropped_is_recorded_and_the_set_is_still_the_whole_one():
    kept, dropped = load_prompts(FIVE), load_prompts(replace(FIVE, unsafe="drop", limit=2))
    assert kept.record()["unsafe"] is None
    assert dropped.record()["unsafe"] == {"dropped": 1, "words_sha256": words_hash()}
    assert dropped.record()["taken"] == 2
    assert [dropped.record()[key] for key in ("sha256", "size")] == [kept.sha256, 5]


def test_if_all_is_dropped_the_message_says_so():
    with pytest.raises(ConfigError, match="has 1 prompts, 1 of them dropped as unsafe"):
        load_prompts(replace(FIVE, text=("a corpse flower",), unsafe="drop"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds the data sets and nothing else."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_datasets(tmp_path / "hub")
    return tmp_path / "hub"


def loaded(*overrides):
    files = Files(jobs_of(parse(overrides))[0].config)
    return load_prompts(files.config.prompts, files.prompts)


def test_data_sets_are_read_in_the_order_of_their_files(hub):
    four = [prompt for style, prompts in STYLES.items() if style != "drawbench" for prompt in prompts]
    assert list(loaded("prompts=hpdv2", "prompts.unsafe=keep").prompts) == four
    assert list(loaded("prompts=hpdv2").prompts) == [prompt for prompt in four if "corpse" not in prompt]
    assert list(loaded("prompts=hpdv2", "prompts.files=[benchmark/photo.json]").prompts) == STYLES["photo"]
    assert list(loaded("prompts=drawbench").prompts) == STYLES["drawbench"]
    assert loaded("prompts=partiprompts").prompts == ("a teapot", 'a sign that says "Open, at last"')


def test_pick_a_pic_is_filtered(hub):
    pytest.importorskip("pyarrow")
    found = loaded("prompts=pickapic_test")
    assert found.prompts == ("a lighthouse at dusk",)
    assert (len(found.whole), found.dropped) == (2, 1)


def test_a_folder_stands_in_for_the_hub(tmp_path):
    (tmp_path / "PartiPrompts.tsv").write_text(PARTI)
    assert len(loaded("prompts=partiprompts", f"prompts.dataset={tmp_path}").prompts) == 2


def test_a_pattern_stands_for_one_file(hub):
    with pytest.raises(ConfigError, match=r"fits benchmark/anime\.json, .*: name those that are meant"):
        loaded("prompts=hpdv2", "prompts.files=[benchmark/*.json]")
    assert len(loaded("prompts=hpdv2", "prompts.files=[benchmark/ph*.json]").whole) == 2


def test_a_data_set_that_is_not_here_is_asked_for_with_the_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    sweep = ["prompts.dataset=zhwang/HPDv2,zhwang/HPDv2@c0ffee", "backbone=sd15", f"run.root={tmp_path}"]
    assert main(["-m", "prompts=drawbench", *sweep]) == 3
    error = capsys.readouterr().err
    command = "hf download zhwang/HPDv2 benchmark/drawbench.json --repo-type dataset"
    assert f"\n  {command}\n  " in error
    assert f"\n  {command} --revision c0ffee\n" in error
    assert "backbone sd15" in error
    assert not list(tmp_path.iterdir())
    assert main(["prompts=pickapic_test", f"run.root={tmp_path}"]) == 3
    wanted = "pickapic_v1_no_images --include 'data/test_unique-*.parquet' --repo-type dataset"
    assert wanted in capsys.readouterr().err


def test_a_run_tells_the_data_sets_commit_and_what_was_left_out(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "build_sampler", lambda config, calls, files=None: FakeSampler(calls.most))
    assert main(arguments(tmp_path, "prompts=hpdv2")) == 0
    assert re.search(
        r"^unsafe +1 of 6 prompts left out by a word list", capsys.readouterr().out, re.MULTILINE
    )
    record = json.loads((tmp_path / "run/run.json").read_text())["record"]
    commit = repository(hub, "zhwang/HPDv2", "dataset").name
    assert record["sources"] == {"prompts hpdv2": f"zhwang/HPDv2@{commit}"}
    assert len(record["fingerprints"]["prompts hpdv2"]) == 64
    assert record["prompts"]["unsafe"]["dropped"] == 1
    assert "a corpse flower" not in " ".join(read_csv(tmp_path / "run/results.csv")["prompt"])
    assert read_csv(tmp_path / "run/results.csv").shape[0] == 5


ROWS = (
    '{"prompt": "a cat", "negative_prompt": "blurry", "seed": 7, "tag": "one", "n": 1.5, "include": [{"class": "cat"}]}\n'
    '{"prompt": "a dog", "negative_prompt": "", "seed": "8", "tag": null, "n": true}\n'
    '"a fox"\n'
)


def test_a_row_may_have_its_own_negative_prompt_seed_and_tags(tmp_path):
    (tmp_path / "a.jsonl").write_text(ROWS)
    cat, dog, fox = rows(tmp_path / "a.jsonl")
    assert (cat.text, cat.negative, cat.seed) == ("a cat", "blurry", 7)
    assert cat.tags == {"tag": "one", "n": "1.5", "include": '[{"class":"cat"}]'}
    assert (dog.negative, dog.seed, dog.tags) == (None, 8, {"n": "true"})
    assert (fox.negative, fox.seed, fox.tags) == (None, None, {})
    kept = rows(tmp_path / "a.jsonl", negative_column=None, seed_column=None, tag_columns=("seed",))
    assert [(row.negative, row.seed, row.tags) for row in kept] == [
        (None, None, {"seed": "7"}),
        (None, None, {"seed": "8"}),
        (None, None, {}),
    ]


def test_columns_of_negatives_and_seeds_have_usual_names_or_those_that_are_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,Negative Prompt,SEED,avoid\na cat,blurry,7.0,blue\na dog,,,\n")
    assert [(row.negative, row.seed) for row in rows(path)] == [("blurry", 7), (None, None)]
    assert rows(path, negative_column="avoid")[0].negative == "blue"
    assert rows(path, negative_column="avoid")[0].tags == {"Negative Prompt": "blurry"}
    with pytest.raises(
        ConfigError, match=r"no column 'avoids': give prompts.negative_column=NAME.*mean avoid"
    ):
        rows(path, negative_column="avoids")
    with pytest.raises(ConfigError, match=r"no column 'avoids': give prompts.tag_columns"):
        rows(path, tag_columns=("avoids",))
    path.write_text("prompt,negative,negative_prompt\na cat,blurry,blue\n")
    with pytest.raises(ConfigError, match=r"'negative' and 'negative_prompt': give prompts\.negative_col"):
        rows(path)


@pytest.mark.parametrize("seed", ["-1", "1.5", "random", "1e3", "9223372036854775808", "9" * 5000, "0x7"])
def test_a_seed_that_is_none_is_refused_with_its_line(tmp_path, seed):
    (tmp_path / "a.csv").write_text(f"prompt,seed\na cat,1\na dog,{seed}\n")
    with pytest.raises(ConfigError, match=r"a\.csv, line 3: seed=.* is no seed: give a whole number"):
        rows(tmp_path / "a.csv")
    assert rows(tmp_path / "a.csv", seed_column=None)[1].tags == {"seed": seed}


def test_a_negative_prompt_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "negative": ["b", "c"]}')
    with pytest.raises(ConfigError, match=r"line 1: negative=.* is no text"):
        rows(tmp_path / "a.jsonl")


def test_tags_of_parquet_are_texts_and_pictures_are_none(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    table = {"prompt": ["a", "b"], "seed": [None, 3], "level": [0.5, None], "image": [b"x", b"y"]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(
        ConfigError, match=r"row 1, column 'image': it holds bytes; give prompts\.tag_columns="
    ):
        rows(path)
    assert [(row.seed, row.tags) for row in rows(path, tag_columns=("level",))] == [
        (None, {"level": "0.5"}),
        (3, {}),
    ]


def test_negatives_and_seeds_are_part_of_a_sets_hash_and_tags_are_not():
    plain = [PromptRow("a"), PromptRow("b", tags={"k": "v"})]
    assert set_hash(plain) == prompts_hash(["a", "b"])
    others = [[PromptRow("a", negative="x"), plain[1]], [PromptRow("a", seed=0), plain[1]]]
    assert len({set_hash(one) for one in [plain, *others]}) == 3


def test_bundled_sets_keep_their_categories(hub):
    tags = [row.tags for row in loaded("prompts=partiprompts").rows]
    assert tags[1] == {"Category": "Artifacts", "Challenge": "Writing & Symbols", "Note": "quotes"}
    assert [row.tags["file"] for row in loaded("prompts=hpdv2", "prompts.unsafe=keep").rows] == [
        style for style, prompts in STYLES.items() if style != "drawbench" for _ in prompts
    ]
    colours = loaded("prompts=geneval", "prompts.offset=259", "prompts.limit=94").rows
    assert {row.tags["tag"] for row in colours} == {"colors"}
    assert all(" and " not in row.text for row in colours)
    with pytest.raises(ConfigError, match=r"prompts.tags.tag tags 553 prompts and prompts.text has 1"):
        loaded("prompts=geneval", "prompts.text=[a]", "prompts.sha256=null")


def test_a_file_runs_with_its_own_negatives_seeds_and_tags(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "build_sampler", lambda config, calls, files=None: FakeSampler(calls.most))
    (tmp_path / "mine.jsonl").write_text(ROWS)
    mine = ["prompts=file", f"prompts.path={tmp_path / 'mine.jsonl'}"]
    assert main(arguments(tmp_path, *mine, "seed=5", "samples=2")) == 0
    assert "2 drawn by their own seed, 1 with their own negative prompt; kept as tags: tag, n, include" in (
        capsys.readouterr().out
    )
    table = read_csv(tmp_path / "run/results.csv")
    assert table["seed"].tolist() == [7, 7, 8, 8, 5, 5]
    assert table["sample"].tolist() == [0, 1, 0, 1, 0, 1]
    assert table["negative"].tolist() == ["blurry", "blurry", "", "", "", ""]
    assert table["tag_n"].tolist() == ["1.5", "1.5", "true", "true", "", ""]
    assert table["tag_tag"].tolist() == ["one", "one", "", "", "", ""]
    again = arguments(tmp_path, *mine, "seed=5", "samples=2", "prompts.tag_columns=[]")
    assert main(again) == 0
    assert "nothing is left to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["backbone=lcm", "sampler=lcm"], "line 1: its negative prompt blurry is not read by backbone=lcm"),
        (["-m", "seed=1,2"], "seed=1,2: .*line 1 has a seed of its own, 7"),
    ],
)
def test_what_a_run_would_not_read_of_a_row_is_refused(tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.setattr("align.runner.prepare.missing_text", lambda needed: None)
    (tmp_path / "mine.jsonl").write_text(ROWS)
    command = ["prompts=file", f"prompts.path={tmp_path / 'mine.jsonl'}", f"run.root={tmp_path}/out", *more]
    assert main(["metrics=none", *command]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "syntax",
    [
        "(red:1.4)", "((red))", "[red|blue]", "[red:blue:0.5]", "<lora:x:1>", "BREAK", "AND", "{red|blue}",
        "${colour}", "__colour__", "red++", "red::2", "--ar 16:9", "\\(red\\)", "\u2028",
    ],
)  # fmt: skip
def test_syntax_of_other_programs_is_told(syntax):
    text = f"a {syntax} cat"
    assert syntax_line([text, "a cat"]).startswith("1 prompts or negatives hold ")
    assert syntax_line([text, text]).startswith("2 ")


def test_plain_english_is_no_syntax():
    plain = "A cat (red, small) - two-tone; 3:4, 5 + 5, [sic] {x} <b> and e-mail --- 'x' $5 a_b_c 16:9 C++"
    assert syntax_line([plain.replace(" C++", ""), "", "a photo of a bench"]) is None


def test_syntax_is_told_once_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "build_sampler", lambda config, calls, files=None: FakeSampler(calls.most))
    text = 'prompts.text=["a (red:1.4) cat", "a \\${b} dog", "a fox"]'
    assert main(arguments(tmp_path, "prompts=text", text, "negative='(bad:2)'")) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("syntax"))
    assert line == (
        'syntax   3 prompts or negatives hold "(red:1.4)", "${b}", "(bad:2)": read as plain text, '
        "nothing is weighted, replaced, loaded or split"
    )
    assert "a ${b} dog" in set(read_csv(tmp_path / "run/results.csv")["prompt"])


@pytest.mark.parametrize("option", ['prompts.text=["a ${seed} c"]', "negative='${oc.env:HOME}'"])
def test_an_interpolation_in_a_typed_prompt_is_refused(option, capsys):
    assert main(["prompts=text", "prompts.text=[a]", option]) == 2
    error = capsys.readouterr().err
    assert "would be replaced by an option's value: write \\${" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["prompts=text", 'prompts.text=["a cat"]', "prompts.path=mine.csv"],
            "prompts.path .* give prompts=file",
        ),
        (
            ["prompts=file", "prompts.path=mine.csv", 'prompts.text=["a cat"]'],
            "prompts.text .* give prompts=text",
        ),
    ],
)
def test_options_of_another_kind_of_set_are_refused(options, words, capsys):
    assert main(options) == 2
    assert re.search(words, capsys.readouterr().err)
