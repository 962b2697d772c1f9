"""DyMO's word matching and pairing as they were released (``semantics.matching=released``).

The first occurrence of an object word, attributes looked up as parts of words, an attribute that is missing
empties the list of those before it, a repeated object replaces the earlier one, and places of words are
forgotten when word pieces are looked up.  Pairs beyond what the model reads are returned as well: they have no
distance but count in the mean (``pair_weights`` of ``semantics/attention_loss.py``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from align.semantics.graph import GraphError
from align.semantics.knowledge import Knowledge
from align.semantics.sources import PromptGraphs
from align.semantics.tokens import ReadPrompt, TokenPairs

WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*|[^\w\s]|_")
"""Splits as the released code's tokenizer does, but for numbers such as ``9:16``."""

END_OF_WORD = "</w>"

Words = list[tuple[str, list[str]]]


def matched_words(knowledge: Knowledge, prompt: str) -> Words:
    """Object words with the attribute words that are found for them.

    Raises:
        GraphError: an object is no word of the prompt; the released code crashes there.
    """
    tokens = [found[0] for found in WORD.finditer(prompt.lower())]
    used: set[tuple[str, int]] = set()
    found: dict[int, list[str]] = {}
    for noun, attributes in knowledge.objects:
        if noun.lower() not in tokens:
            raise GraphError(
                f"semantics.matching=released: the object {noun!r} is no word of the prompt {prompt!r:.80}; "
                "mend the graph, or give semantics.matching=ours"
            )
        place = tokens.index(noun.lower())
        used.add((tokens[place], place))
        words: list[str] = []
        for attribute in map(str.lower, attributes):
            hits = (k for k, token in enumerate(tokens) if attribute in token and (attribute, k) not in used)
            hit = next(hits, None)
            if hit is None:
                words = []
            else:
                words.append(tokens[hit])
                used.add((tokens[hit], hit))
        found[place] = words
    return [(tokens[place], words) for place, words in found.items()]


def piece_groups(noun: str, attributes: Sequence[str], pieces: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the word pieces of an object and of all its attributes, among the prompt's with start and end token."""
    plain = [piece.removesuffix(END_OF_WORD) for piece in pieces]
    done: set[int] = set()
    groups: list[list[int]] = []
    for members in ([noun], attributes):
        group: list[int] = []
        for word in members:
            group += _placed(word, plain, done, done | set(group))
        groups.append(group)
        done |= set(group)
    return groups[0], groups[1]


def _placed(word: str, pieces: Sequence[str], done: set[int], used: set[int]) -> list[int]:
    """Pieces of one word, from the left; ``used`` bars single pieces, ``done`` assembled ones."""
    for k in range(1, len(pieces) - 1):
        if pieces[k] == word and k not in used:
            return [k]
        if pieces[k] and pieces[k] != word and word.startswith(pieces[k]):
            indices = _assembled(word, pieces, k)
            if indices and done.isdisjoint(indices):
                return indices
    return []


def _assembled(word: str, pieces: Sequence[str], first: int) -> list[int]:
    text, last = pieces[first], first
    while text != word:
        last += 1
        if last >= len(pieces) - 1 or pieces[last] == word:
            return []
        text += pieces[last]
        if not word.startswith(text):
            return []
    return list(range(first, last + 1))


def released_pairs(knowledge: Knowledge, prompt: str, pieces: Sequence[str]) -> TokenPairs:
    """Token pairs of a prompt, of which ``pieces`` are all word pieces, with start and end token, not truncated.

    Raises:
        GraphError: an object is no word of the prompt.
    """
    groups = [piece_groups(noun, words, pieces) for noun, words in matched_words(knowledge, prompt)]
    positive = [(one, two) for nouns, attributes in groups for one in nouns for two in attributes]
    negative = [
        (one, two)
        for n, (first, _) in enumerate(groups)
        for second, _ in groups[n + 1 :]
        for one in first
        for two in second
    ]
    return TokenPairs(tuple(positive), tuple(negative))


class ReleasedGraphs(PromptGraphs):
    """Graphs whose words are found in the prompt as the released code finds them; not for sources without words."""

    def pairs(self, prompt: str, read: ReadPrompt) -> TokenPairs:
        knowledge = self.knowledge(prompt)
        if knowledge is None:
            return super().pairs(prompt, read)
        return released_pairs(knowledge, prompt, read.pieces)

    def check(self, prompt: str) -> None:
        knowledge = self.knowledge(prompt)
        if knowledge is not None:
            matched_words(knowledge, prompt)

    def words(self, prompt: str) -> Knowledge:
        knowledge = self.knowledge(prompt)
        if knowledge is None:
            return super().words(prompt)
        found = matched_words(knowledge, prompt)
        return Knowledge(tuple((noun, tuple(words)) for noun, words in found), knowledge.style)
