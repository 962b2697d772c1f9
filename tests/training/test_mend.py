"""What one step is taught where it is wrong: whose pictures count, which of them is chosen, and that nothing else is taught."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from align.checkpoints.reference import EMBEDDED
from align.shapes.grammar import caption_split
from scripts.shapes_training import mend
from scripts.shapes_training.denoiser import Denoiser
from scripts.shapes_training.loop import Budget

SHAPE = (2, 8, 8)


def test_captions_are_of_the_train_split_and_mostly_of_one_object():
    asked = list(islice(mend.asked(3), 400))
    assert {caption_split(caption) for caption in asked} == {"train"}
    assert 0.7 < np.mean([caption.n_objects == 1 for caption in asked]) < 0.95
    assert 0.3 < np.mean([caption.phrases[0].size == "small" for caption in asked]) < 0.6


def test_the_nearest_right_one_is_chosen_and_wrong_ones_never():
    made = torch.zeros(3, *SHAPE)
    others = torch.stack([torch.full_like(made, value) for value in (0.1, 2.0, -1.0)])
    right = torch.tensor([[False, True, False], [True, False, False], [True, False, False]])
    target, found = mend.nearest(made, others, right)
    assert found.tolist() == [True, True, False]
    assert target[0].unique().item() == -1
    assert target[1].unique().item() == pytest.approx(0.1)


def test_the_oldest_pairs_leave_first(monkeypatch):
    monkeypatch.setattr(mend, "KEPT", 4)
    pairs = mend.Pairs()
    for value in range(6):
        pairs.add(torch.full((1, *SHAPE), float(value)), torch.zeros(1, *SHAPE), torch.zeros(1, 3, 4))
    noise, _, _ = pairs.draw(np.random.default_rng(0), 60)
    assert {int(value) for value in noise[:, 0, 0, 0]} == {2, 3, 4, 5}


@pytest.fixture(scope="module")
def words():
    return CLIPTokenizer.from_pretrained(EMBEDDED["shapes"] / "tokenizer")


@pytest.fixture
def going_on(words, tmp_path, monkeypatch):
    """Goes on with an untrained student a step, where a judge says what is right."""
    torch.manual_seed(0)
    denoiser = Denoiser(len(words), SHAPE[0])
    monkeypatch.setattr(mend, "FIRST", 4)

    def run(judge):
        monkeypatch.setattr(
            mend, "check_picture", lambda picture, caption: SimpleNamespace(all=judge(picture))
        )
        decode = lambda z: z[:, :1].expand(-1, 3, -1, -1)  # noqa: E731
        moved = mend.run(denoiser.unet, SHAPE, decode, words, denoiser, Budget(steps=1), tmp_path, 0)
        return denoiser.unet.state_dict(), moved.state_dict()

    return run


def test_a_training_moves_a_copy(going_on):
    turns = iter(range(10**6))
    before, after = going_on(lambda picture: next(turns) % 2 == 0)
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    assert all(value.isfinite().all() for value in after.values())


def test_a_student_that_draws_nothing_right_is_left_as_it_is(going_on, capsys):
    before, after = going_on(lambda picture: False)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert "nothing that the student draws is right" in capsys.readouterr().out
