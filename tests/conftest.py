from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone, FakeReward
from tiny import save_pipeline


def pytest_addoption(parser):
    parser.addoption(
        "--golden", type=Path, default=None, metavar="DIR", help="folder of the recorded reference runs"
    )


@pytest.fixture(scope="session")
def golden(request):
    """Folder of the recorded reference runs, or ``None``."""
    return request.config.getoption("--golden")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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
