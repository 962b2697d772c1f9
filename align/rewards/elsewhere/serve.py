"""The other end: requests of our protocol answered by any reward.  A row that cannot be judged costs no other row its score."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.pictures import PictureError, read_picture
from align.rewards.elsewhere.wire import VERSION
from align.rewards.errors import RewardError

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.rewards.base import Reward

MOST_ITEMS = 4096


class BadRequest(Exception):
    """What was sent is no request; the message is one line."""


class Judge:
    """A reward that answers requests, one at a time; ``model`` is what it is called, which names its weights."""

    def __init__(self, reward: Reward, model: str) -> None:
        self.reward, self.model = reward, model
        self._lock = threading.Lock()

    def health(self) -> dict[str, Any]:
        return {"model": self.model, "version": str(VERSION)}

    def answer(self, request: Any) -> dict[str, Any]:
        """What is said to a request, or to one that asks how things are. Raises BadRequest."""
        if not isinstance(request, Mapping) or request.get("version") != VERSION:
            raise BadRequest(f'a request is an object with "version": {VERSION}')
        if request.get("health") is True:
            return self.health()
        if request.get("reward") not in (self.reward.name, "default"):
            raise BadRequest(
                f"there is no reward {str(request.get('reward'))!r:.60} here, but {self.reward.name}"
            )
        items = request.get("items")
        if not isinstance(items, list) or len(items) > MOST_ITEMS:
            raise BadRequest(f'"items" is a list of at most {MOST_ITEMS}')
        scores: list[float | None] = [None] * len(items)
        errors: list[str | None] = [None] * len(items)
        good: list[tuple[int, Image, str]] = []
        known: dict[str, Mapping[str, Any]] = {}
        for place, item in enumerate(items):
            try:
                picture, prompt, metadata = _seen(item)
            except (PictureError, ValueError) as error:
                errors[place] = str(error)
                continue
            good.append((place, picture, prompt))
            known |= {} if metadata is None else {prompt: metadata}
        with self._lock:
            self.reward.know(known)
            for place, found in self._judged(good):
                if isinstance(found, str):
                    errors[place] = found
                else:
                    scores[place] = found
        return {"version": VERSION, "model": self.model, "scores": scores, "errors": errors}

    def _judged(self, rows: Sequence[tuple[int, Image, str]]) -> list[tuple[int, float | str]]:
        """The score of each row, or what it fails with; where together they fail, each is tried alone."""
        if not rows:
            return []
        try:
            values = self.reward.score_images([one[1] for one in rows], [one[2] for one in rows]).tolist()
            return [
                (row[0], value if math.isfinite(value) else f"the score is {value}")
                for row, value in zip(rows, values, strict=True)
            ]
        except Exception as error:
            if len(rows) > 1:
                return [found for row in rows for found in self._judged([row])]
            text = str(error) if isinstance(error, RewardError) else f"{type(error).__name__}: {error}"
            return [(rows[0][0], " ".join(text.split())[:300])]


def _seen(item: Any) -> tuple[Image, str, Mapping[str, Any] | None]:
    """Picture, prompt and metadata of an item. Raises ValueError, PictureError."""
    prompt = item.get("prompt") if isinstance(item, Mapping) else None
    image = item.get("image") if isinstance(item, Mapping) else None
    if not isinstance(prompt, str) or not isinstance(image, str):
        raise ValueError('an item has a text "prompt" and a picture "image"')
    try:
        data = base64.b64decode(image, validate=True)
    except binascii.Error:
        raise ValueError("the picture is no base64") from None
    key = hashlib.sha256(data + prompt.encode("utf-8", "surrogatepass")).hexdigest()
    if item.get("id", key) != key:
        raise ValueError("the id is not that of the picture and the prompt")
    metadata = item.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValueError("metadata is an object or null")
    return read_picture(data), prompt, metadata
