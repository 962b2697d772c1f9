"""How the rows of a pass are cut into calls."""

import pytest
import torch

from align.sampling.batching import Calls, chunks


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
    assert [size for _, size in rows_of(Calls(8)([3] * number))] == sizes


def test_small_groups_share_calls_of_one_size():
    assert rows_of(Calls(4)([0, 0, 1, 1, 2, 2])) == [([0, 1, 2, 3], 4), ([4, 5], 4)]


@pytest.mark.parametrize(
    ("plan", "number", "rows"),
    [(1, 1, 1), (1, 5, 5), (3, 1, 3), (3, 2, 6), (10, 1, 5), (3, 5, 8), (32, 1, 8), (33, 1, 8), (None, 1, 8)],
)
def test_groups_share_calls_of_what_the_plan_brings_together(plan, number, rows):
    assert Calls(8, plan).shared(number) == rows


def test_groups_that_bring_different_numbers_of_rows_do_not_wait_for_each_other():
    assert rows_of(Calls(8, 2)([0, 1, 1, 1])) == [([0], 2), ([1, 2, 3], 6)]


@pytest.mark.parametrize("groups", [[0] * 5 + [1] * 3 + [2] * 9, [2, 0, 2, 1, 2, 2, 0, 2], [], [7]])
@pytest.mark.parametrize("size", [1, 3, 4, 8])
@pytest.mark.parametrize("plan", [None, 3])
def test_every_row_is_called_for_once(groups, size, plan):
    cut = rows_of(Calls(size, plan)(groups))
    assert sorted(row for rows, _ in cut for row in rows) == list(range(len(groups)))
    assert all(length <= size for _, length in cut)


@pytest.mark.parametrize("plan", [None, 3, 5])
def test_a_row_is_in_a_call_of_the_same_size_whatever_the_company(plan):
    def sizes(groups, of):
        found = {}
        for rows, size in rows_of(Calls(4, plan)(groups)):
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
    assert Calls(size).later(round).shared(1) == rows
