"""Every option of ``semantics``, typed; see ``schema``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between, Text


@dataclass(frozen=True)
class SemanticsConfig:
    """Which words of a prompt are objects and which describe them, for methods with ``objective.semantic``."""

    name: Annotated[str, Text("name")]
    source: Literal["auto", "shapes", "none", "file", "llm", "rules"] = "auto"
    """``auto``: the grammar's own parse (``shapes``) on ``backbone=shapes``, else our rules of English."""
    path: str | None = None
    """Graphs in DyMO's published JSON format: a .json or .jsonl file, or a folder of them."""
    missing: Literal["error", "empty", "rules"] = "error"
    """For a prompt without a graph (file), or whose graph could not be had (llm)."""
    matching: Literal["ours", "released"] = "ours"
    """How words are found in the prompt; ``released`` does as DyMO's code, its oddities too."""
    global_words: bool = False
    """Pair the graph's style words ("watercolor") with every object."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1."""
    model: str | None = None
    """The endpoint's name of the model."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key, if it wants one; null sends none."""
    local: str | None = None
    """Instead of an endpoint: a chat model of transformers, a folder or owner/name in the hub's cache."""
    retries: Annotated[int, Between(0, 20)] = 2
    """How often to ask again after a failure or an answer that is no graph."""
    timeout: Annotated[float, Between(0.1, 3600)] = 60.0
    """Seconds to wait for an answer."""
