"""``reward=vlm``: a vision-language model behind an OpenAI-compatible URL is asked a question about each picture.

The picture comes first and the form of the answer last: a prompt can hold instructions to the judge, so it stands in quotes
between them, as data.  Hosted models drift: what each row was answered is kept.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import random
from typing import Any, Literal

from align.reading import parse_json
from align.rewards.elsewhere.answers import alternatives, hard_yes_no, number, yes_no
from align.rewards.elsewhere.wire import Answer, Item, Row
from align.rewards.errors import CannotJudge
from align.semantics.endpoint import Endpoint
from align.web import Reply, Sleep, WebError, patiently

GROUP = "judges.vlm"
FORMS = {
    "yes_no": "Please answer Yes or No.",
    "number": "End your answer with a line 'Score: <number>' with a number from {low:g} to {high:g}.",
}
"""What the question ends with, by how the answer is read."""
_TRADES: tuple[tuple[str, str | None], ...] = (
    ("repetition_penalty", None),
    ("max_tokens", "max_completion_tokens"),
    ("seed", None),
    ("logprobs", None),
)
"""Fields that some servers do not know, in the order in which they are given up, and what else may be said instead."""


def question_of(template: str, prompt: str, mode: str, low: float, high: float) -> str:
    """The question about one picture; ``{prompt}`` of the template is the prompt, whatever that holds."""
    shown = " ".join(prompt.split()).replace('"', "'")
    return f"{template.replace('{prompt}', shown)} {FORMS[mode].format(low=low, high=high)}"


@dataclass
class ChatJudge:
    """A chat endpoint that is asked about pictures; the options are those of ``judges.vlm``."""

    endpoint: Endpoint
    question: str
    mode: Literal["yes_no", "number"] = "yes_no"
    normalise: bool = False
    low: float = 1.0
    high: float = 5.0
    tokens: int | None = None
    retries: int = 5
    sleep: Sleep = time.sleep
    jitter: Callable[[], float] = random
    given_up: set[str] = field(default_factory=set)
    """Fields that the server refused; not sent again."""

    def __call__(self, items: Sequence[Item]) -> Answer:
        """Ask about items one by one. Raises CannotJudge."""
        rows, models = [], []
        for item in items:
            answer = self._asked(item)
            rows.append(self._row(answer))
            model = answer.get("model")
            models.append(model if isinstance(model, str) else "")
        if len(set(models)) > 1:
            raise CannotJudge(f"{self.endpoint.named} answers as {' and '.join(sorted(set(models)))!r:.80}")
        return Answer(rows, models[0] if models else "")

    def _asked(self, item: Item) -> dict[str, Any]:
        if fault := self.endpoint.fault:
            raise CannotJudge(fault)
        reply = self._patiently(body := self._body(item))
        while reply.status in (400, 422) and self._give_up(reply, body):
            reply = self._patiently(body := self._body(item))
        if reply.status != 200:
            raise CannotJudge(self._refused(reply))
        try:
            found = parse_json(reply.body)
        except ValueError:
            raise CannotJudge(f"{self.endpoint.named} answers what is no JSON") from None
        if not isinstance(found, dict):
            raise CannotJudge(f"{self.endpoint.named} answers without a message")
        return found

    def _patiently(self, body: dict[str, Any]) -> Reply:
        try:
            return patiently(lambda: self.endpoint.reply(body), self.retries, self.sleep, self.jitter)
        except WebError as error:
            raise CannotJudge(f"{self.endpoint.named} {error}") from None

    def _body(self, item: Item) -> dict[str, Any]:
        picture = f"data:image/png;base64,{base64.b64encode(item.png).decode('ascii')}"
        asked = question_of(self.question, item.prompt, self.mode, self.low, self.high)
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": asked}]
        tokens = self.tokens or (1 if self.mode == "yes_no" else 512)
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "seed": 0}
        # A server may else take the penalty of the checkpoint's own configuration.
        body |= {"max_tokens": tokens, "repetition_penalty": 1.0}
        if self.mode == "yes_no":
            body |= {"logprobs": True, "top_logprobs": 20}
        for name, instead in _TRADES:
            if name in self.given_up and name in body:
                value = body.pop(name)
                if instead is not None:
                    body[instead] = value
        if "logprobs" not in body:
            body.pop("top_logprobs", None)
        return body

    def _give_up(self, reply: Reply, body: dict[str, Any]) -> bool:
        """Send one field less from now on, that which the refusal names or the next; whether there is one."""
        said = reply.body.decode("utf-8", "replace")
        left = [name for name, _ in _TRADES if name in body]
        named = [name for name in left if name in said]
        if not left:
            return False
        self.given_up.add((named or left)[0])
        return True

    def _row(self, answer: dict[str, Any]) -> Row:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
        except (LookupError, TypeError):
            raise CannotJudge(f"{self.endpoint.named} answers without a message") from None
        text = text if isinstance(text, str) else ""
        if self.endpoint.key and self.endpoint.key in json.dumps(answer):
            raise CannotJudge(f"{self.endpoint.named} repeats the key in its answer: nothing of it is kept")
        told = alternatives(choice)
        if self.mode == "number":
            row = number(text, self.low, self.high)
        elif told is None:
            row = hard_yes_no(text)
        else:
            row = yes_no(told, normalise=self.normalise)
        raw: dict[str, Any] = {"answer": text} | ({"tokens": told} if told and self.mode == "yes_no" else {})
        return Row(row.score, row.error, {**row.further, **raw})

    def _refused(self, reply: Reply) -> str:
        text = f"{self.endpoint.named} answers {reply.meaning}"
        if reply.status in (401, 403):
            return f"{text}: check the key in {GROUP}.key_variable"
        if reply.status in (404, 405):
            return f"{text}: check {GROUP}.endpoint and {GROUP}.model"
        key, said = self.endpoint.key, " ".join(reply.body.decode("utf-8", "replace").split())
        return f"{text}: {(said.replace(key, '***') if key else said)[:500]}"
