"""How the rows of a pass are cut into calls."""

import pytest
import torch

from align.sampling.batching import calls, chunks, later


def rows_of(cut):
    return [(chunk.rows[: chunk.real].tolist(), len(chunk.rows)) for chunk in cut]


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


@pytest.mark.parametrize(
    ("number", "sizes"), [(8, [8]), (9, [5, 4]), (20, [7, 7, 6]), (24, [8, 8, 8]), (25, [7, 6, 6, 6])]
)
def test_a_large_group_has_even_calls_of_its_own_and_no_padding(number, sizes):
    assert [size for _, size in rows_of(calls([3] * number, 8))] == sizes


def test_small_groups_share_calls_of_one_size():
    assert rows_of(calls([0, 0, 1, 1, 2, 2], 4)) == [([0, 1, 2, 3], 4), ([4, 5], 4)]


@pytest.mark.parametrize("groups", [[0] * 5 + [1] * 3 + [2] * 9, [2, 0, 2, 1, 2, 2, 0, 2], [], [7]])
@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_every_row_is_called_for_once(groups, size):
    cut = rows_of(calls(groups, size))
    assert sorted(row for rows, _ in cut for row in rows) == list(range(len(groups)))
    assert all(length <= size for _, length in cut)


def test_a_row_is_in_a_call_of_the_same_size_whatever_the_company():
    def sizes(groups, of):
        found = {}
        for rows, size in rows_of(calls(groups, 4)):
            found |= dict.fromkeys((row for row in rows if groups[row] == of), size)
        return [found[row] for row in sorted(found)]

    for own in (1, 3, 4, 6, 11):
        alone = sizes([0] * own, 0)
        for others in ([1], [1] * 3, [1] * 5 + [2] * 2):
            assert sizes([0] * own + others, 0) == alone
            assert sizes(others + [0] * own, 0) == alone


@pytest.mark.parametrize(
    ("size", "round", "rows"), [(8, 0, 8), (8, 1, 2), (8, 5, 2), (4, 1, 1), (1, 0, 1), (1, 3, 1)]
)
def test_those_who_travel_back_have_small_calls(size, round, rows):
    assert later(size, round) == rows
