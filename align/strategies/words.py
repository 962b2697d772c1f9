"""Tables of words that a search may add to a prompt, read from files of the user's.  Imports no torch.

A table is a mapping in YAML or JSON: ``suffix`` and ``negative`` are lists of positions, each a list of words of which a
candidate has one or none, ``separator`` is what stands between them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from align.reading import read_text

SHIPPED = Path(__file__).parent / "words"
Positions = tuple[tuple[str, ...], ...]
MOST_POSITIONS, MOST_WORDS, LONGEST = 64, 4096, 200
"""Of a table, of a position, letters of a word."""
LARGEST = 1 << 20


class WordsError(ValueError):
    """A table that cannot be used, in one line that begins with its place."""


@dataclass(frozen=True)
class Words:
    """Positions for the end of a prompt and for its negative prompt; of each, the empty choice comes first."""

    suffix: Positions
    negative: Positions
    separator: str = ", "

    @property
    def choices(self) -> list[int]:
        """How many choices each position has, those of the suffix first."""
        return [len(position) for position in (*self.suffix, *self.negative)]

    def spoken(self, prompt: str, negative: str, genome: Sequence[int]) -> tuple[str, str]:
        """Prompt and negative prompt with a genome's words behind them; empty choices leave nothing, no separator either."""
        split = len(self.suffix)
        more = _chosen(self.suffix, genome[:split]), _chosen(self.negative, genome[split:])
        joined = (
            self.separator.join([*([text] if text else []), *words])
            for text, words in zip((prompt, negative), more, strict=True)
        )
        return next(joined), next(joined)

    def fingerprint(self) -> str:
        """sha256 of what is in it; how the file says it has no part."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode("ascii")).hexdigest()


def _chosen(positions: Positions, genome: Sequence[int]) -> Iterable[str]:
    return [words[gene] for words, gene in zip(positions, genome, strict=True) if gene]


def shipped() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_words(reference: str) -> Words:
    """A shipped table by name, or one of a file. Raises WordsError."""
    path = SHIPPED / f"{reference}.yaml" if reference in shipped() else Path(reference).expanduser()
    try:
        content = yaml.safe_load(read_text(path, "utf-8-sig", LARGEST))
    except FileNotFoundError:
        raise WordsError(
            f"{path}: there is no such file; give one, or a table of ours: {', '.join(shipped())}"
        ) from None
    except UnicodeDecodeError as error:
        raise WordsError(f"{path} is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise WordsError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise WordsError(f"{path}{where} is neither YAML nor JSON ({line:.80})") from None
    return _table(content, str(path))


def _table(content: Any, place: str) -> Words:
    known = ("suffix", "negative", "separator")
    if not isinstance(content, dict):
        raise WordsError(f"{place} holds no mapping: give suffix and negative, lists of positions")
    if unknown := next((key for key in content if key not in known), None):
        raise WordsError(f"{place}: {unknown!r:.40} is not read: give {', '.join(known)}")
    separator = content.get("separator", ", ")
    if not isinstance(separator, str) or not separator or not separator.isprintable() or len(separator) > 20:
        raise WordsError(f"{place}: separator={separator!r:.40} is no short text: give one such as ', '")
    suffix, negative = (_positions(content.get(key), f"{place}: {key}") for key in known[:2])
    if not suffix and not negative:
        raise WordsError(f"{place} has no word: give suffix or negative, lists of positions")
    return Words(suffix, negative, separator)


def _positions(value: Any, place: str) -> Positions:
    value = [] if value is None else value
    if not isinstance(value, list) or len(value) > MOST_POSITIONS:
        raise WordsError(f"{place} is no list of at most {MOST_POSITIONS} positions, each a list of words")
    found = []
    for number, words in enumerate(value):
        if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
            raise WordsError(f"{place}[{number}] is no list of 1 to {MOST_WORDS} words")
        for word in words:
            if not isinstance(word, str) or not word.isprintable() or len(word) > LONGEST:
                raise WordsError(
                    f"{place}[{number}] has {word!r:.40}, which is no text of one line and at most {LONGEST} letters: "
                    "put it in quotes, or leave it out"
                )
        # None of them is a choice of every position, whether the table says so or not.
        found.append(tuple(dict.fromkeys(["", *(word.strip() for word in words)])))
    return tuple(position for position in found if len(position) > 1)
