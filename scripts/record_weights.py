"""Write the hashes of the embedded world's weights beside them, after training: other files are refused from then on.

python scripts/record_weights.py
"""

from align.checkpoints.hashes import read_hash
from align.checkpoints.shipped import FOLDER, SUMS


def record() -> str:
    """The text of the list, as ``sha256sum --check`` reads it."""
    paths = sorted(FOLDER.rglob("*.safetensors"))
    return "".join(f"{read_hash(path)}  {path.relative_to(FOLDER).as_posix()}\n" for path in paths)


if __name__ == "__main__":
    (FOLDER / SUMS).write_text(record(), encoding="utf-8")
