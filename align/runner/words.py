"""The table of words of a run's prompt search.  Imports no torch."""

from __future__ import annotations

import math
from functools import lru_cache

from align.checkpoints.reference import EMBEDDED
from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.schema import Config
from align.strategies.words import Words, WordsError, load_words


def words_of(config: Config) -> Words | None:
    """What the backbone reads of the table: no negative words where it has no negative half; None where nothing is searched.

    Raises ConfigError: the table cannot be used, or has fewer candidates than are to be tried.
    """
    search = config.method.prompt_search
    if not search.budget:
        return None
    ours = "shapes" if config.backbone.weights in EMBEDDED else "pictures"
    try:
        words = _loaded(search.words or ours)
    except WordsError as error:
        raise ConfigError(f"method.prompt_search.words: {error}") from error
    if config.one_half or not config.reads_negative:
        words = Words(words.suffix, (), words.separator)
    candidates = math.prod(words.choices)
    if search.budget > candidates:
        less = "" if words.negative else " without negative words"
        raise ConfigError(
            f"method.prompt_search.budget={search.budget} is more than the {candidates} candidates that the words of "
            f"{shown(search.words or ours)} make{less}: give at most that, or a larger table in method.prompt_search.words"
        )
    return words


@lru_cache(maxsize=16)
def _loaded(reference: str) -> Words:
    return load_words(reference)
