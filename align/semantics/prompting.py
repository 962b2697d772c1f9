"""What a language model is asked for, and how its answer is read."""

from __future__ import annotations

import hashlib
import json

from align.semantics.graph import GraphError
from align.semantics.knowledge import Knowledge, read_knowledge

INSTRUCTION = """\
You read prompts of a text-to-image model. List the objects that should be visible and, for each, the words of \
the prompt that describe it. Answer with one JSON object and nothing else:
{"prompt": the prompt, "knowledge": [{object: [attributes]}, ...], "global": [{"style": [words]}]}
Rules:
- Objects and attributes are single words that stand in the prompt, spelled as there; copy, never invent.
- One entry for each object, in order; if a word names two objects, list it twice.
- Attributes are colours, materials, sizes, numbers, kinds, and what the object is doing.
- Words about the whole picture (medium, artist, quality) go into "style"; it may be empty.\
"""

EXAMPLES: tuple[tuple[str, Knowledge], ...] = (
    (
        "oil painting of two white swans near a small wooden boat",
        Knowledge((("swans", ("two", "white")), ("boat", ("small", "wooden"))), ("oil", "painting")),
    ),
    (
        "a red mug and a blue mug on a table",
        Knowledge((("mug", ("red",)), ("mug", ("blue",)), ("table", ()))),
    ),
)


def messages(prompt: str) -> list[dict[str, str]]:
    """The chat that asks for the graph of a prompt."""
    chat = [{"role": "system", "content": INSTRUCTION}]
    for example, graph in EXAMPLES:
        chat.append({"role": "user", "content": example})
        chat.append({"role": "assistant", "content": json.dumps(graph.to_json(example))})
    return [*chat, {"role": "user", "content": prompt}]


def reproach(reason: str) -> dict[str, str]:
    """The message after an answer that was no graph."""
    return {"role": "user", "content": f"That cannot be used: {reason}. Answer with the JSON object alone."}


def template_hash() -> str:
    """sha256 of everything in the chat but the prompt."""
    return hashlib.sha256(json.dumps(messages(""), sort_keys=True).encode("ascii")).hexdigest()


def read_answer(text: str) -> Knowledge:
    """The graph in a model's answer; prose and code fences around it are passed over. Raises GraphError: there is none."""
    decoder = json.JSONDecoder()
    reason = "it holds no JSON object"
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value.get("knowledge"), dict):
            value["knowledge"] = [value["knowledge"]]  # the slip that models make often: no list
        try:
            return read_knowledge(value)
        except GraphError as error:
            reason = str(error)
        start = text.find("{", end)
    raise GraphError(f"the answer is no graph ({reason}): {' '.join(text.split())!r:.80}")
