"""Stage ``tokenizer``: a CLIP byte-pair tokenizer in which every word of the grammar is one token.

Byte-level like CLIP's, so any prompt can be encoded; ``<|endoftext|>`` has the highest id, as CLIP's pooling
expects.  Trained by ordinary byte-pair merging on the list of words, so it is a second's work.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from align.shapes.grammar import BACKGROUNDS, COLOURS, SHAPES, SIZES, Phrase

MAX_LENGTH = 24


def words() -> list[str]:
    """Every word that a caption of the grammar can hold."""
    nouns = [Phrase("red", shape, count).text().split()[-1] for shape in SHAPES for count in (1, 2)]
    rest = ["a", "an", "two", "three", "left", "right", "of", "above", "below", "and", "on", "background"]
    return list(dict.fromkeys([*rest, *COLOURS, *BACKGROUNDS, *SHAPES, *nouns, *SIZES]))


def merges() -> list[tuple[str, str]]:
    """Byte-pair merges that make each word one symbol."""
    splits = {word: (*word[:-1], word[-1] + "</w>") for word in words()}
    found: list[tuple[str, str]] = []
    while any(len(symbols) > 1 for symbols in splits.values()):
        pairs = Counter(pair for symbols in splits.values() for pair in itertools.pairwise(symbols))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        found.append(best)
        for word, symbols in splits.items():
            out: list[str] = []
            for symbol in symbols:
                if out and (out[-1], symbol) == best:
                    out[-1] += symbol
                else:
                    out.append(symbol)
            splits[word] = tuple(out)
    return found


def run(folder: Path) -> CLIPTokenizer:
    """Make the tokenizer and save it to ``folder``."""
    letters = sorted(ByteLevel.alphabet())
    pieces = merges()
    symbols = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in pieces]
    vocabulary = list(dict.fromkeys([*symbols, "<|startoftext|>", "<|endoftext|>"]))
    tokenizer = CLIPTokenizer(
        vocab={symbol: index for index, symbol in enumerate(vocabulary)},
        merges=pieces,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
