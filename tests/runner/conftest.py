import pytest

from align.runner import build

from .helpers import FakeSampler


@pytest.fixture
def fake(monkeypatch):
    """Install a fake sampler; returns the samplers built."""

    def install(**options):
        built = []

        def make(config, calls, files=None):
            built.append(FakeSampler(calls.most, **options))
            return built[-1]

        monkeypatch.setattr(build, "build_sampler", make)
        return built

    return install
