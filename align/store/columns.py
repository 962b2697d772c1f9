"""The columns of ``results.csv``: one row a picture, in this order.

    identity | negative | tag_*, sorted | metrics, any name, sorted | checker verdicts | costs | info | drawn_* | info_*, any name,
    sorted

Every documented column is always there, empty where it has no value, so that files of different runs can be
stacked; ``negative`` and tags are there where the run's prompts have some, ``drawn_*`` where a method drew other words. A column that is not documented is a
metric; one whose name starts with ``check_`` is a verdict and stands with the verdicts, one whose name starts with
``info_`` is information and stands last. ``tag_<column>`` holds what the prompt's row said in another column (a
benchmark's category, say), as text, and is no part of the item's identity. Truth values are written 1 and 0. A
number that is not finite is an empty cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HEAD: dict[str, str] = {
    "key": "sha256 of the item's identity: resolved configuration, prompt, seed, sample (64 hex digits)",
    "prompt": "the caption, escaped for spreadsheets (see csvfile.encode_text)",
    "seed": "seed of the noise",
    "sample": "number of the picture among those of one prompt and seed",
    "method": "name of the method",
    "backbone": "name of the model that draws",
    "reward": "name of what guides or ranks; empty where nothing does",
    "optimised": "rewards that the method follows or selects by, or that the model was trained for, joined by ';': as metrics they are no evidence for it",
    "image": "the picture, relative to the run folder; empty where there is none",
    "status": "'ok', 'ok: ...' with what a metric has no value for and why, or 'failed: ...' with the reason",
}
NEGATIVE: dict[str, str] = {"negative": "the prompt's own negative prompt; empty where it has the run's"}
CHECKS: dict[str, str] = {
    "check_all": "the checker finds everything the caption asks for",
    "check_objects": "every shape is there",
    "check_colours": "every shape has its colour",
    "check_counts": "every count is right",
    "check_relations": "every relation holds",
    "check_background": "the background is right",
}
COSTS: dict[str, str] = {
    "network_forward": "network evaluations, counted per picture",
    "network_backward": "backward passes through the network",
    "decoder_forward": "decodings",
    "decoder_backward": "backward passes through the decoder",
    "reward_forward": "reward evaluations",
    "reward_backward": "backward passes through rewards",
    "value_forward": "calls of a learned value network",
    "seconds": "wall-clock time, the batch's time divided by its pictures",
    "peak_memory_mb": "peak memory of the device, in units of 1e6 bytes",
}
INFO: dict[str, str] = {
    "rounds": "rounds of time travel taken",
    "nonfinite_gradients": "steps left unguided because a gradient was not finite",
    "prompt_truncated": "the prompt was longer than the text encoder reads, than each if there are several",
    "prompt_cut_by": "text encoders that read only the beginning of a prompt that another read whole",
    "config": "digest of the resolved configuration that made the row (12 hex digits)",
    "session": "number of the session that made the picture: `sessions` of run.json holds its versions",
}
DRAWN: dict[str, str] = {
    "drawn_prompt": "the words that the picture was drawn with, where the method chose them; `prompt` has the user's",
    "drawn_negative": "likewise the negative prompt",
}
TEXT = frozenset(
    {
        "key", "prompt", "method", "backbone", "reward", "optimised", "image", "status", "config", "session",
        "prompt_cut_by",
        *NEGATIVE, *DRAWN,
    }
)  # fmt: skip
TAG = "tag_"
"""What begins the name of a column that holds a tag of prompts."""
PARTS = "info_"
"""What begins the name of a column that holds, joined by ';', the numbers of which the metric behind it is the mean."""


def is_check(name: str) -> bool:
    """True for a checker verdict."""
    return name.startswith("check_")


def is_text(name: str) -> bool:
    """True for a column whose cells are texts, whatever they look like."""
    return name in TEXT or name.startswith(TAG)


def is_metric(name: str) -> bool:
    """True for a column that holds a metric, going by its name alone."""
    documented = any(name in columns for columns in (HEAD, NEGATIVE, COSTS, INFO, DRAWN))
    return not (documented or is_check(name) or name.startswith(TAG) or name.startswith("info_"))


def tags_in(row: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a row, by the names that the prompt's own row has for them."""
    return {name.removeprefix(TAG): value for name, value in row.items() if name.startswith(TAG) and value}


def ordered(names: Iterable[str]) -> list[str]:
    """All documented columns and ``names``, each once, in the order of the file."""
    extra = set(names)
    return [
        *HEAD,
        *(name for name in NEGATIVE if name in extra),
        *sorted(name for name in extra if name.startswith(TAG)),
        *sorted(name for name in extra if is_metric(name)),
        *CHECKS,
        *sorted(name for name in extra if is_check(name) and name not in CHECKS),
        *COSTS,
        *INFO,
        *(name for name in DRAWN if name in extra),
        *sorted(name for name in extra if name.startswith("info_")),
    ]
