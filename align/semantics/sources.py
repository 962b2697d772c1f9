"""Where the graphs of a run come from, and what happens to a prompt that has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from align.semantics.graph import Graph, GraphError, GraphSource, RefusedError, with_style
from align.semantics.knowledge import Knowledge, words_of
from align.semantics.matching import match
from align.semantics.tokens import ReadPrompt, TokenPairs, token_pairs

Missing = Literal["error", "empty", "rules"]
"""For a prompt without a graph: refuse, do without, or read it by rules."""

WrittenSource = Callable[[str], Knowledge | None]
"""From a prompt to its graph in words; ``None`` if there is none. Raises GraphError if it cannot be had."""


@dataclass
class PromptGraphs:
    """Graphs of prompts, each made once: ``read`` is that of a prompt which has none in words."""

    read: GraphSource
    written: WrittenSource | None = None
    missing: Missing = "error"
    """What to do where ``written`` has none; ``read`` is used unless it is ``error``."""
    global_words: bool = False
    """Pair style words with every object."""
    without: dict[str, str] = field(default_factory=dict)
    """Prompts that ``written`` had no graph of, with the reason."""
    _known: dict[str, Knowledge | None] = field(default_factory=dict)
    _graphs: dict[str, Graph] = field(default_factory=dict)

    def knowledge(self, prompt: str) -> Knowledge | None:
        """The graph in words, if this source has one. Raises GraphError where there is none and none is no answer."""
        if self.written is None:
            return None
        if prompt not in self._known:
            reason = f"there is no graph of the prompt {prompt!r:.80}"
            found = None
            try:
                found = self.written(prompt)
            except RefusedError:
                raise  # not this prompt's fault: no policy shall hide it
            except GraphError as error:
                reason = str(error)
            if found is None:
                if self.missing == "error":
                    raise GraphError(f"{reason}; mend it, or give semantics.missing=empty or rules")
                self.without[prompt] = reason
            self._known[prompt] = found
        return self._known[prompt]

    def graph(self, prompt: str) -> Graph:
        """The graph as places in the prompt. Raises GraphError."""
        if prompt not in self._graphs:
            knowledge = self.knowledge(prompt)
            graph = self.read(prompt) if knowledge is None else match(knowledge, prompt)
            self._graphs[prompt] = with_style(graph) if self.global_words else graph
        return self._graphs[prompt]

    def pairs(self, prompt: str, read: ReadPrompt) -> TokenPairs:
        """Token pairs of a prompt: the run's ``PairSource``. Raises GraphError."""
        return token_pairs(self.graph(prompt), read.offsets, read.limit, read.parts)

    def check(self, prompt: str) -> None:
        """Find what can be wrong with a prompt's graph before anything is loaded. Raises GraphError."""
        self.knowledge(prompt)

    def words(self, prompt: str) -> Knowledge:
        """The graph as it is found in the prompt, in words. Raises GraphError."""
        return words_of(self.graph(prompt), prompt)


def nothing(prompt: str) -> Graph:
    """No graph, whatever the prompt."""
    return Graph()


def no_pairs(prompt: str, read: ReadPrompt) -> TokenPairs:
    """No pairs, whatever the prompt: for methods that read no graph."""
    return TokenPairs()
