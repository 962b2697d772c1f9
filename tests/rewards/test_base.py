"""What all rewards share."""

import torch

from align.rewards.base import TextCache


def test_text_cache_reads_lone_surrogates_as_question_marks() -> None:
    seen: list[str] = []

    def compute(prompt: str) -> torch.Tensor:
        seen.append(prompt)
        return torch.zeros(1)

    TextCache(compute)(["a \ud800 circle"])
    assert seen == ["a ? circle"]
