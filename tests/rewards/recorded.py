"""Reading recorded values."""

from safetensors.torch import load_file


def split(path):
    """State and recorded values of a file."""
    raw = load_file(path)
    state = {key[6:]: value for key, value in raw.items() if key.startswith("state.")}
    return state, {key[3:]: value for key, value in raw.items() if key.startswith("io.")}
