"""What goes to a server that judges pictures and what comes back: our protocol, and two of others' in the same terms.

Nothing that comes back is believed: a list of another length is no answer at all, and what is no number is a failed row, never 0.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from align.rewards.errors import CannotJudge
from align.store.pictures import png_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
"""Of our protocol."""


@dataclass(frozen=True)
class Item:
    """A picture and its prompt; ``id`` is the sha256 of the PNG's bytes and the prompt."""

    id: str
    prompt: str
    png: bytes = field(repr=False)
    metadata: Mapping[str, Any] | None = None


def item_of(image: Image, prompt: str, metadata: Mapping[str, Any] | None = None) -> Item:
    """An item of an RGB picture, as PNG so that what is judged is what is saved."""
    png = png_bytes(image)
    key = hashlib.sha256(png + prompt.encode("utf-8", "surrogatepass")).hexdigest()
    return Item(key, prompt, png, metadata)


@dataclass(frozen=True)
class Row:
    """What came back for one item: a finite score, or why there is none."""

    score: float | None
    error: str = ""
    further: Mapping[str, Any] = field(default_factory=dict)
    """What else was said of it, for the record."""


@dataclass(frozen=True)
class Answer:
    """The rows of a request, and the judge by the name that it gives itself."""

    rows: list[Row]
    model: str = ""


@dataclass(frozen=True)
class Protocol:
    """``body`` of a request for a reward's name; ``read`` an answer to that many items; ``path`` from the address to where it goes.

    ``read`` raises CannotJudge.
    """

    body: Callable[[str, Sequence[Item]], dict[str, Any]]
    read: Callable[[Any, str, int], Answer]
    path: str = ""


def one_row(score: Any, error: Any = None, further: Mapping[str, Any] | None = None) -> Row:
    """A row of what a server says of an item; raises CannotJudge for what is neither a number nor null."""
    if error is not None and not isinstance(error, str):
        raise CannotJudge(f"says {str(error)!r:.60} where a text or null belongs")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise CannotJudge(f"gives {str(score)!r:.60} as a score: a number or null belongs there")
    if score is None or error:
        return Row(None, error or "there is no score and no reason", further or {})
    try:
        value = float(score)
    except OverflowError:
        value = math.inf
    return Row(value, "", further or {}) if math.isfinite(value) else Row(None, f"the score is {value}")


def listed(answer: Any, name: str, number: int) -> list[Any]:
    """A list of an answer, as long as what was asked. Raises CannotJudge."""
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise CannotJudge(f"answers without a list {name!r}")
    if len(found) != number:
        raise CannotJudge(f"answers {len(found)} {name} for {number} pictures: nothing of it is taken")
    return found


def _ours(reward: str, items: Sequence[Item]) -> dict[str, Any]:
    rows = [
        {
            "id": one.id,
            "prompt": one.prompt,
            "image": base64.b64encode(one.png).decode("ascii"),
            "metadata": None if one.metadata is None else dict(one.metadata),
        }
        for one in items
    ]
    return {"version": VERSION, "reward": reward, "items": rows}


def _read_ours(answer: Any, reward: str, number: int) -> Answer:
    scores = listed(answer, "scores", number)
    if answer.get("version", VERSION) != VERSION:
        raise CannotJudge(f"speaks version {str(answer['version'])!r:.20} of the protocol, not {VERSION}")
    errors = [None] * number if answer.get("errors") is None else listed(answer, "errors", number)
    model = answer.get("model", "")
    if not isinstance(model, str):
        raise CannotJudge("names no model: a text belongs there")
    said = {
        key: value for key, value in answer.items() if key not in ("version", "model", "scores", "errors")
    }
    # What is as long as the batch is of its rows.
    of_rows = {key: isinstance(value, list) and len(value) == number for key, value in said.items()}
    rows = [
        one_row(
            scores[row],
            errors[row],
            {key: value[row] if of_rows[key] else value for key, value in said.items()},
        )
        for row in range(number)
    ]
    return Answer(rows, model)


def _unirl(reward: str, items: Sequence[Item]) -> dict[str, Any]:
    """UniRL's service of rewards, POST /score."""
    return {
        "requests": [
            {
                "history": [{"text": one.prompt, "image_b64": base64.b64encode(one.png).decode("ascii")}],
                "required_rewards": [reward],
                "metadata": dict(one.metadata or {}),
            }
            for one in items
        ]
    }


def _read_unirl(answer: Any, reward: str, number: int) -> Answer:
    results = listed(answer, "results", number)
    errors = [None] * number if answer.get("errors") is None else listed(answer, "errors", number)
    rows = []
    for found, error in zip(results, errors, strict=True):
        parts = found.get(reward) if isinstance(found, Mapping) else None
        why = error.get(reward) if isinstance(error, Mapping) else error
        if parts is None:
            rows.append(one_row(None, why or f"there is no {reward} of it"))
            continue
        if not isinstance(parts, Mapping):
            raise CannotJudge(f"gives no parts of {reward}")
        main = next((name for name in (reward, "score", "reward") if name in parts), None)
        if main is None and len(parts) != 1:
            raise CannotJudge(
                f"gives {', '.join(map(str, parts)) or 'nothing'} for {reward}, and none of them is the score"
            )
        rows.append(one_row(parts[main if main is not None else next(iter(parts))], why, parts))
    return Answer(rows)


def _flow_factory(reward: str, items: Sequence[Item]) -> dict[str, Any]:
    """Flow-Factory's server of one reward, POST /compute."""
    images = [base64.b64encode(one.png).decode("ascii") for one in items]
    return {"prompt": [one.prompt for one in items], "image": images}


def _read_flow_factory(answer: Any, reward: str, number: int) -> Answer:
    return Answer([one_row(score) for score in listed(answer, "rewards", number)])


PROTOCOLS = {
    "align": Protocol(_ours, _read_ours),
    "unirl": Protocol(_unirl, _read_unirl, "/score"),
    "flow_factory": Protocol(_flow_factory, _read_flow_factory, "/compute"),
}
