import pytest
import torch

from align.sampling.batching import chunks


@pytest.mark.parametrize(("number", "size"), [(1, 1), (1, 8), (7, 3), (8, 8), (9, 8), (0, 4)])
def test_every_row_is_computed_once_in_calls_of_one_size(number, size):
    cut = list(chunks(number, size))
    assert all(len(chunk.rows) == size for chunk in cut)
    assert torch.cat([chunk.rows[: chunk.real] for chunk in cut] or [torch.tensor([])]).tolist() == list(
        range(number)
    )


def test_padding_repeats_the_last_row():
    *_, last = chunks(7, 4)
    assert (last.rows.tolist(), last.real) == ([4, 5, 6, 6], 3)
