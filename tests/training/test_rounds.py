"""Which part of what there is to learn from a round takes."""

from align.training.rounds import Rounds, keyed_order

ITEMS = [f"prompt {k}" for k in range(10)]


def test_the_order_depends_on_keys_and_purpose_alone():
    ordered = keyed_order(ITEMS, str, 0, "order", 0)
    assert keyed_order(ITEMS[::-1], str, 0, "order", 0) == ordered != ITEMS
    assert len({tuple(keyed_order(ITEMS, str, seed, "order", k)) for seed in (0, 1) for k in (0, 1)}) == 4


def test_an_epoch_takes_every_item_once_in_an_order_of_its_own():
    rounds = Rounds(ITEMS, 4, seed=0)
    epochs = [[rounds(3 * epoch + k) for k in range(3)] for epoch in range(2)]
    for number, found in enumerate(epochs):
        assert [epoch for epoch, _ in found] == [number] * 3
        assert [len(part) for _, part in found] == [4, 4, 2]
        assert sorted(item for _, part in found for item in part) == ITEMS
    assert epochs[0][0][1] != epochs[1][0][1]
