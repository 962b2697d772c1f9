"""Where recorded judges are: what comes with the tests, and a folder that was given."""

from pathlib import Path

import pytest

SMALL = Path(__file__).parent / "data/judges"


@pytest.fixture(params=["small", "given"])
def judges(request, golden):
    """Folder of recorded judges: the small cases that are here, and with ``--golden`` those of the folder."""
    if request.param == "small":
        return SMALL
    if golden is None:
        pytest.skip("no --golden")
    return golden / "judges"


@pytest.fixture
def given(golden):
    """Folder of recorded judges with their tiny models, of ``--golden`` alone."""
    if golden is None:
        pytest.skip("no --golden")
    return golden / "judges"
