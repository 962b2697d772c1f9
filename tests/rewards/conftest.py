import pytest


@pytest.fixture(scope="session")
def reference(golden):
    """Folder of the recorded rewards; needs ``--golden DIR``, a folder with ``rewards``."""
    if golden is None:
        pytest.skip("needs --golden DIR")
    return golden / "rewards"
