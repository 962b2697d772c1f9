import signal
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone, FakeReward
from tiny import save_pipeline

from align.startup import hurry, settle

hurry()  # while test files are imported


def pytest_addoption(parser):
    parser.addoption(
        "--golden", type=Path, default=None, metavar="DIR", help="folder of the recorded reference runs"
    )


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What was imported and collected stays: every search for garbage among all of it would be in vain."""
    settle()


@pytest.fixture(scope="session")
def golden(request):
    """Folder of the recorded reference runs, or ``None``."""
    return request.config.getoption("--golden")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _no_other_files_rewards():
    """Plug-ins and saved surrogates that a file's tests register end with it: messages list what is registered."""
    from align.rewards.registry import REWARDS

    before = dict(REWARDS)
    yield
    REWARDS.clear()
    REWARDS.update(before)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard():
    """By processes that tests start too: a shell lets what it starts with ``&`` ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def box(tmp_path_factory):
    """``HF_HOME`` of a machine on which every backbone and every reward was fetched."""
    from hub_box import write_box

    home = tmp_path_factory.mktemp("box")
    write_box(home)
    return home


@pytest.fixture(scope="module")
def at_home(box):
    """This process on that machine, offline and with nothing loaded."""
    from hub_box import forget_models

    forget_models()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HOME", str(box))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(box / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.delenv("ALIGN_CHECKPOINTS", raising=False)
        yield box
    forget_models()


@pytest.fixture
def away(at_home):
    """Take a file away for the time of a test; another may be put in its place."""
    moved = []

    def take(path):
        path.rename(path.with_name(f"{path.name}.away"))
        moved.append(path)
        return path

    yield take
    for path in moved:
        path.with_name(f"{path.name}.away").replace(path)


@pytest.fixture
def backbone():
    return FakeBackbone()


@pytest.fixture
def reward():
    return FakeReward()


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """A tiny random pipeline in diffusers' layout."""
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(folder)
    return folder
