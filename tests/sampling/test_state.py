from dataclasses import fields, replace

import torch

from align.sampling.state import Estimate, State, join


def state(pictures, offset=0):
    number = len(pictures)
    rows = torch.arange(number, dtype=torch.float32) + offset
    latents = rows.view(-1, 1, 1, 1).expand(-1, 2, 3, 3)
    whole = State.of(latents, torch.tensor(pictures, dtype=torch.long))
    names = ("log_weights", "twist", "statistic", "tilt")
    return replace(whole, previous_x0=latents + 100, **{name: rows + k for k, name in enumerate(names)})


def test_taking_particles_takes_all_that_is_theirs():
    index = torch.tensor([2, 0, 0])
    whole = state([0, 1, 2])
    taken = whole.take(index)
    for field in fields(State):
        assert torch.equal(getattr(taken, field.name), getattr(whole, field.name)[index]), field.name


def test_an_estimate_has_no_field_that_stays_behind():
    rows = torch.arange(3.0)
    whole = Estimate(**{field.name: rows + k for k, field in enumerate(fields(Estimate))})
    taken = whole.take(torch.tensor([2, 1]))
    assert all(
        torch.equal(getattr(taken, f.name), torch.tensor([2.0, 1.0]) + k)
        for k, f in enumerate(fields(Estimate))
    )


def test_joining_puts_one_after_the_other():
    joined = join([state([1, 1, 3]), state([0, 2], offset=10), state([], offset=20)])
    assert joined.picture.tolist() == [1, 1, 3, 0, 2]
    assert joined.log_weights.tolist() == [0, 1, 2, 10, 11]
    assert joined.previous_x0[:, 0, 0, 0].tolist() == [100, 101, 102, 110, 111]


def test_particles_start_with_an_equal_share_of_their_group():
    whole = State.of(torch.zeros(5, 1, 1, 1), torch.tensor([0, 0, 0, 2, 2]))
    torch.testing.assert_close(whole.log_weights.exp().float(), torch.tensor([1 / 3] * 3 + [1 / 2] * 2))
    assert [rows.tolist() for rows in whole.groups()] == [[0, 1, 2], [3, 4]]


def test_slots_number_the_particles_of_each_picture():
    assert state([0, 0, 0, 2, 5, 5]).slots().tolist() == [0, 1, 2, 0, 0, 1]
