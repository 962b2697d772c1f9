"""Which metrics wait for room on a device, by the sizes of files."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from align.runner import memory
from align.runner.memory import ROOM, waiting


@dataclass(frozen=True)
class Sized:
    """Stands for what is needed, and for its only file."""

    name: str
    gigabytes: float

    def files(self):
        return [self]

    def stat(self):
        return SimpleNamespace(st_size=int(self.gigabytes * 1e9))


MODEL, SMALL = Sized("model", 7), Sized("pickscore", 4)
SEVEN, EIGHT = Sized("hpsv3", 16), Sized("vqascore_qwen3", 17)


def files(*judges, guiding=(), device="cuda"):
    config = SimpleNamespace(
        run=SimpleNamespace(device=device),
        metrics=SimpleNamespace(rewards=tuple(one.name for one in judges)),
    )
    return SimpleNamespace(config=config, guiding=guiding, measuring=list(judges))


@pytest.fixture
def card(monkeypatch):
    """A CUDA device of so many GB."""

    def of(gigabytes):
        monkeypatch.setattr(memory, "torch_device", lambda name: SimpleNamespace(type=name))
        monkeypatch.setattr(memory, "gb_of", lambda device: gigabytes)

    return of


def test_only_large_judges_wait_and_only_where_not_all_fits(card):
    card(7 + 4 + 16 + ROOM)
    assert not waiting(files(SMALL, SEVEN), [MODEL])
    card(7 + 4 + 16 + ROOM - 1)
    assert waiting(files(SMALL, SEVEN), [MODEL]) == {"hpsv3"}
    assert not waiting(files(SMALL), [MODEL])
    assert not waiting(files(SMALL, SEVEN, device="cpu"), [MODEL])


def test_a_guide_is_there_anyhow_and_a_file_counts_once(card):
    card(7 + 16 + ROOM)
    assert not waiting(files(SEVEN, guiding=["hpsv3"]), [MODEL, SEVEN])
    assert waiting(files(SEVEN, EIGHT, guiding=["hpsv3"]), [MODEL, SEVEN]) == {"vqascore_qwen3"}


def test_pictures_that_are_there_need_room_for_judges_alone(card):
    card(24)
    assert not waiting(files(SEVEN), ())  # there is nothing to wait for
    assert waiting(files(SEVEN, EIGHT), ()) == {"hpsv3", "vqascore_qwen3"}
