"""From options to pairs, identities and messages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import graphs as runner
from align.runner.default_folder import in_folders
from align.runner.graphs import check_graphs, graph_identity, graphs_of, reads_graphs
from align.runner.plan import identity
from align.semantics.graph import GraphError, RefusedError
from align.semantics.knowledge import Knowledge, words_of
from align.semantics.rules.chunker import graph as rules
from align.semantics.sources import PromptGraphs, nothing

PROMPT = "a red cat and a blue dog"
LIBRARY = [
    {"prompt": PROMPT, "knowledge": [{"cat": ["red"]}, {"dog": ["blue"]}], "global": [{"style": ["red"]}]},
    {"prompt": "two cats", "knowledge": [{"cat": []}], "global": []},
]
READ = SimpleNamespace(
    offsets=((0, 0), (0, 1), (2, 5), (6, 9), (10, 13), (14, 15), (16, 20), (21, 24), (0, 0)),
    limit=8,
    parts=(),
    pieces=("<|startoftext|>", *(f"{word}</w>" for word in PROMPT.split()), "<|endoftext|>"),
)


@pytest.fixture(autouse=True)
def _fresh():
    runner._graphs.cache_clear()


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "graphs.json"
    path.write_text(json.dumps(LIBRARY))
    return path


def compose(*overrides):
    return jobs_of(parse(["method=dymo", *overrides]))[0].config


def test_a_file_gives_pairs(library):
    graphs = graphs_of(compose("semantics=file", f"semantics.path={library}"))
    assert graphs.pairs(PROMPT, READ).positive == ((3, 2), (7, 6))
    assert graphs.pairs(PROMPT, READ).negative == ((3, 7),)


def test_released_matching_is_another_way_to_the_same_pairs(library):
    graphs = graphs_of(compose("semantics=file", f"semantics.path={library}", "semantics.matching=released"))
    assert graphs.pairs(PROMPT, READ).positive == ((3, 2), (7, 6))
    assert graphs.words(PROMPT).objects == (("cat", ("red",)), ("dog", ("blue",)))
    with pytest.raises(GraphError, match="'cat' is no word of the prompt"):
        graphs.check("two cats")


def test_global_words_go_with_every_object(library):
    graphs = graphs_of(compose("semantics=file", f"semantics.path={library}", "semantics.global_words=true"))
    assert graphs.pairs(PROMPT, READ).positive == ((3, 2), (7, 6), (7, 2))


@pytest.mark.parametrize(
    ("missing", "read", "objects"), [("empty", nothing, ()), ("rules", rules, (("cat", ("small",)),))]
)
def test_prompts_without_a_graph(missing, read, objects):
    graphs = PromptGraphs(read, lambda prompt: None, missing)
    assert graphs.words("a small cat").objects == objects
    assert list(graphs.without) == ["a small cat"]


def test_a_prompt_is_asked_for_once_even_if_that_fails():
    asked = []

    def fails(prompt):
        asked.append(prompt)
        raise GraphError("it is down")

    graphs = PromptGraphs(nothing, fails, "empty")
    assert not graphs.pairs(PROMPT, READ)
    assert not graphs.pairs(PROMPT, READ)
    assert (asked, graphs.without) == ([PROMPT], {PROMPT: "it is down"})
    with pytest.raises(GraphError, match=r"it is down; .*semantics\.missing=empty"):
        PromptGraphs(nothing, fails).check(PROMPT)


def test_a_refusal_is_no_missing_graph():
    def refuses(prompt):
        raise RefusedError("401")

    with pytest.raises(RefusedError):
        PromptGraphs(nothing, refuses, "empty").check(PROMPT)


def test_auto_is_the_grammar_on_shapes_and_rules_elsewhere(tmp_path):
    shapes, other = compose(), compose(f"backbone.weights={tmp_path}")
    assert graphs_of(shapes).words("a wooden house") == Knowledge()
    assert graphs_of(shapes).words("a red circle").objects == (("circle", ("red",)),)
    assert graphs_of(other).words("a wooden house").objects == (("house", ("wooden",)),)
    assert words_of(graphs_of(compose("semantics=none")).graph(PROMPT), PROMPT) == Knowledge()


def identities(*overrides, prompts=(PROMPT,)):
    config = compose(*overrides)
    check_graphs(config, prompts)
    return identity(config, "w", {"shapes_pick": "r"}, graph_identity(config, prompts))


def test_identity_names_the_source_only_where_graphs_are_read(library):
    plain = identities()
    assert "semantics" not in plain
    assert identities("semantics=shapes") == plain
    for more in (["method=none"], ["method.objective.semantic=0"], ["method=best_of_n"]):
        assert not reads_graphs(compose(*more))
        assert identities(*more) == identities(*more, "semantics=file", "semantics.path=nowhere")
    file = ["semantics=file", f"semantics.path={library}"]
    different = [
        [],
        ["semantics=none"],
        ["semantics=rules"],
        ["semantics.global_words=true"],
        file,
        [*file, "semantics.matching=released"],
        [*file, "semantics.missing=rules"],
        [*file, "semantics.global_words=true"],
    ]
    assert len({json.dumps(identities(*one), sort_keys=True) for one in different}) == len(different)


def test_identity_holds_the_files_content_not_its_place(library, tmp_path):
    one = identities("semantics=file", f"semantics.path={library}")
    other = tmp_path / "folder" / "other.jsonl"
    other.parent.mkdir()
    other.write_text("\n".join(map(json.dumps, LIBRARY[::-1])))
    assert identities("semantics=file", f"semantics.path={other.parent}") == one
    assert str(tmp_path) not in json.dumps(one)
    other.write_text(json.dumps({**LIBRARY[0], "knowledge": []}))
    runner._graphs.cache_clear()
    assert identities("semantics=file", f"semantics.path={other}") != one


def test_identity_of_asked_graphs(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    answers = {}

    def asked(endpoint, chat):
        answer = answers.get(chat[-1]["content"])
        if answer is None:
            raise GraphError("down")
        return answer

    monkeypatch.setattr("align.semantics.endpoint.Endpoint.__call__", asked)
    more = ["semantics=llm", "semantics.endpoint=http://a/v1", "semantics.model=m", "semantics.retries=0"]
    answers[PROMPT] = json.dumps(LIBRARY[0])
    one = identities(*more)
    assert one["semantics"]["model"] == "m"
    assert "http" not in json.dumps(one)
    assert "asking m for 1 graphs" in capsys.readouterr().err
    assert identities(*more, "semantics.endpoint=http://b/v1", "semantics.retries=0") == one
    assert capsys.readouterr().err == ""
    # What failed and was made without a graph is not the same picture as what did not fail.
    lost = identities(*more, "semantics.missing=empty", prompts=(PROMPT, "x"))
    assert lost["semantics"]["without"] == ["x"]
    assert "1 of 2 prompts have no graph" in capsys.readouterr().err
    local = identities(
        "semantics=llm", f"semantics.local={tmp_path}/chat", "semantics.missing=empty", prompts=()
    )
    assert local["semantics"]["model"] == "chat"


WRONG = {
    "no file named": (["semantics=file"], ["semantics.path=FILE"]),
    "no such file": (["semantics=file", "semantics.path=none.json"], ["semantics.path", "no such file"]),
    "malformed": (["semantics=file", "semantics.path=bad.json"], ["bad.json is not JSON"]),
    "prompt without a graph": (
        ["semantics=file", "semantics.path=good.json"],
        ["no graph", "semantics.missing"],
    ),
    "no model": (["semantics=llm"], ["semantics.endpoint=URL", "semantics.local"]),
    "two models": (["semantics=llm", "semantics.endpoint=http://x", "semantics.local=x"], ["one model"]),
    "no URL": (["semantics=llm", "semantics.endpoint=x", "semantics.model=m"], ["is no URL"]),
    "a password": (
        ["semantics=llm", "semantics.endpoint=https://a:b@x", "semantics.model=m"],
        ["the bare URL"],
    ),
    "a key for a name": (
        [
            "semantics=llm",
            "semantics.endpoint=https://x",
            "semantics.model=m",
            "semantics.key_variable=sk-abc",
        ],
        ["give the name, never the key"],
    ),
    "no name": (["semantics=llm", "semantics.endpoint=http://x"], ["semantics.model=NAME"]),
    "nothing written": (["semantics.matching=released"], ["semantics.matching=ours"]),
    "two ways": (
        ["semantics=file", "semantics.path=x", "semantics.matching=released", "semantics.missing=rules"],
        ["semantics.missing=error"],
    ),
    "unread words": (
        ["semantics=file", "semantics.path=x", "semantics.matching=released", "semantics.global_words=true"],
        ["semantics.global_words"],
    ),
    "choice": (["semantics=rule"], ["did you mean rules?"]),
    "no local model": (
        ["semantics=llm", "semantics.local=nowhere"],
        ["semantics.local", "nowhere", "hf download"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_commands_say_so_in_one_line(what, tmp_path, monkeypatch, capsys):
    arguments, words = WRONG[what]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "good.json").write_text(json.dumps(LIBRARY))
    assert main(["method=dymo", *arguments]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("align: asking")]
    assert len(lines) == 1, err
    assert out == ""
    for word in words:
        assert word in lines[0]
    assert not (tmp_path / "outputs").exists()


def test_how_a_model_is_asked_is_no_part_of_the_default_folder():
    def folder(*overrides):
        (job,) = in_folders(jobs_of(parse(["method=dymo", *overrides])))
        return job.config.run.folder

    model = ["semantics=llm", "semantics.model=m", "semantics.endpoint=http://a/v1"]
    one = folder(*model)
    assert folder(*model[:2], "semantics.endpoint=http://b/v1", "semantics.retries=9") == one
    assert folder("semantics=llm", "semantics.model=n", model[2]) != one


def test_the_command_shows_a_graph(capsys):
    assert main(["graph", "a red cat and a dog, watercolor", "semantics=rules"]) == 0
    first, *pairs = capsys.readouterr().out.splitlines()
    value = json.loads(first)
    assert value["knowledge"] == [{"cat": ["red"]}, {"dog": []}]
    assert value["global"] == [{"style": ["watercolor"]}]
    assert pairs == ["+ cat red", "- cat dog"]


def test_the_command_explains_itself_and_its_errors(capsys, library):
    assert main(["graph", "--help"]) == 0
    assert "semantics=" in capsys.readouterr().out
    assert main(["graph", "a cat", "semantics=file", f"semantics.path={library}"]) == 2
    assert "there is no graph of the prompt 'a cat'" in capsys.readouterr().err


def test_runs_with_written_graphs_and_other_graphs_make_other_pictures(
    pipeline_folder, library, tmp_path, capsys
):
    from align.store.csvfile import read_csv

    def run(folder, *more):
        return main(
            [
                "method=dymo",
                "method.objective.preference=0",
                "method.guidance.strength=1",
                f"backbone.weights={pipeline_folder}",
                "backbone.height=32",
                "backbone.width=32",
                "sampler.steps=2",
                "metrics=none",
                "prompts=text",
                f"prompts.text=[{PROMPT}]",
                "run.gallery=false",
                "run.device=cpu",
                "run.batch_size=1",
                f"run.folder={tmp_path / folder}",
                *more,
            ]
        )

    file = ["semantics=file", f"semantics.path={library}"]
    assert run("ours", *file) == 0
    assert run("released", *file, "semantics.matching=released") == 0
    assert run("none", "semantics=none") == 0
    pictures = {}
    for name in ("ours", "released", "none"):
        table = read_csv(tmp_path / name / "results.csv")
        assert list(table["status"]) == ["ok"]
        pictures[name] = np.asarray(Image.open(tmp_path / name / table["image"][0])).astype(int)
    # The same pairs, some of them the other way round, which only the last bits of their similarities tell.
    assert abs(pictures["ours"] - pictures["released"]).max() <= 1
    assert abs(pictures["ours"] - pictures["none"]).max() > 1
    recorded = json.loads((tmp_path / "ours" / "run.json").read_text())
    assert recorded["identity"]["semantics"]["source"] == "file"
    # A folder of other graphs is not gone on with.
    library.write_text(json.dumps([{**LIBRARY[0], "knowledge": []}]))
    runner._graphs.cache_clear()
    capsys.readouterr()
    assert run("ours", *file) == 2
    assert "semantics" in capsys.readouterr().err


def test_the_backbone_tells_its_word_pieces(pipeline_folder):

    from tiny import load_tiny

    backbone = load_tiny(pipeline_folder, height=32, width=32)
    read = backbone.encode("a red circle " * 40, "")
    assert read.truncated
    assert len(read.pieces) > len(read.offsets)
    assert read.pieces[0] == backbone.text.encoders[0].tokenizer.bos_token
    assert read.pieces[-1] == backbone.text.encoders[0].tokenizer.eos_token
