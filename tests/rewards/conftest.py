import pytest


@pytest.fixture(scope="session")
def reference(golden):
    """Folder of the recorded rewards; needs ``--golden DIR``, a folder with ``rewards``."""
    if golden is None:
        pytest.skip("needs --golden DIR")
    return golden / "rewards"


@pytest.fixture
def measured(record_property):
    """Checks a largest absolute difference, and tells it with ``pytest -s`` or in a JUnit report."""

    def check(what, found, expected, limit):
        difference = float((found.double() - expected.double()).abs().max())
        record_property(what, difference)
        print(f"{what}: {difference:.3g} (limit {limit:g})")
        assert difference <= limit

    return check
