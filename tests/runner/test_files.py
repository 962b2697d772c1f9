"""What a command needs of files is looked for once, whoever asks: doctor, the identity, the checks, the load."""

import pickle
from collections import Counter

import pytest

from align.__main__ import main
from align.backbones import registry
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.rewards.sources import Checkpoint
from align.runner import build, files
from align.runner.files import Files, files_of
from align.sampling.batching import Calls
from align.store.store import Store

LOOKING = [
    (registry, "pipeline_piece"),
    (registry, "module_piece"),
    (registry, "file_piece"),
    (files, "module_piece"),
]
SEARCH = ["sampler=ddim_ancestral", "method.value.estimate=small_decoder"]


@pytest.fixture
def looked(monkeypatch):
    """How often each reference was looked for."""
    count = Counter()

    def spied(real):
        def spy(reference, *rest, **options):
            whose = (
                rest[:1] if isinstance(reference, Checkpoint) else ()
            )  # two rewards may read one checkpoint
            count[str(reference), *whose] += 1
            return real(reference, *rest, **options)

        return spy

    for module, name in LOOKING:
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    monkeypatch.setattr(Checkpoint, "find", spied(Checkpoint.find))
    return count


@pytest.fixture
def no_store(monkeypatch):
    """A run ends where its store would be opened."""

    def opened(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "__init__", opened)


def compose(*overrides):
    return jobs_of(parse(list(overrides)))[0].config


@pytest.mark.parametrize(
    "command",
    [
        ["method=dymo"],
        ["method=svdd", *SEARCH],
        ["backbone.vae=shapes:vae", "method=dymo"],
        ["-m", "method=dymo,none,best_of_n", "seed=0,1"],
    ],
    ids=lambda command: command[-1],
)
def test_until_the_store_opens_each_reference_is_looked_for_once(
    command, looked, no_store, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    main([*command, "prompts.limit=1"])
    assert len(looked) >= 5
    assert set(looked.values()) == {1}, looked


def test_doctor_looks_once_for_all_its_configurations(looked, capsys):
    assert main(["doctor", "-m", "method=svdd,none", *SEARCH[:1]]) == 0
    assert set(looked.values()) == {1}, looked


def test_what_was_looked_for_is_what_is_loaded(looked):
    config = compose("method=svdd", *SEARCH, "reward=jpeg_compressibility", "run.device=cpu")
    found = Files(config)
    found.all()
    build.build_sampler(config, Calls(1), found)
    assert looked["shapes",] == 1
    assert looked[found.value_piece.reference,] == 1


def test_runs_of_one_command_share_what_they_find(looked):
    one, other = files_of([compose("method=none"), compose("method=dymo")])
    assert one.pieces is other.pieces
    assert one.backbone == other.backbone


def test_a_later_question_sees_the_same_files_and_a_new_object_those_that_are_there_now(tmp_path):
    config = compose(f"backbone.weights={tmp_path}")
    before = Files(config)
    assert before.backbone[0].mend.startswith("give backbone.weights=FOLDER")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.bin").touch()
    assert "pickles" not in before.backbone[0].mend
    assert "pickles" in Files(config).backbone[0].mend


def test_another_process_looks_for_itself():
    config = compose("method=none")
    found = Files(config)
    found.all()
    copy = pickle.loads(pickle.dumps(found))
    assert copy.config == config
    assert not copy._found
    assert copy.all() == found.all()
