"""The student of few steps: what it is trained on, and that a training moves it and nothing else."""

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from align.checkpoints.reference import EMBEDDED
from scripts.shapes_training import turbo
from scripts.shapes_training.denoiser import Denoiser
from scripts.shapes_training.loop import Budget

SHAPE = (2, 8, 8)


@pytest.fixture(scope="module")
def words():
    return CLIPTokenizer.from_pretrained(EMBEDDED["shapes"] / "tokenizer")


@pytest.fixture
def denoiser(words):
    torch.manual_seed(0)
    return Denoiser(len(words), SHAPE[0])


def chain():
    return turbo.Chain(SHAPE, 400, lambda index: torch.zeros(len(index), 3, 4), torch.device("cpu"))


def test_rows_go_on_from_what_was_made_of_them_or_begin_as_noise():
    made, rng = chain(), np.random.default_rng(0)
    rows = made.draw(rng)
    assert (rows.place == 0).all()
    for number in range(1, 9):
        made.last = rows._replace(clean=torch.full((turbo.BATCH, *SHAPE), float(number)))
        before, rows = rows, made.draw(rng)
        going = rows.place > 0
        assert len(rows.place) == turbo.BATCH
        assert (~going).sum() >= turbo.FRESH
        assert (rows.clean[going] == number).all()
        assert (rows.clean[~going] == 0).all()
        assert int(rows.place.max()) <= min(int(before.place.max()) + 1, len(turbo.TIMES) - 1)
    assert int(rows.place.max()) > 1


def test_clean_latents_are_what_v_says():
    """v = a eps - s x0: from the true one x0 comes back."""
    levels, t = turbo.Levels(torch.device("cpu")), torch.tensor([20, 599, 979])
    x0, eps = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    a, s = levels.of(t)
    found = levels.clean(lambda *_, **__: (a * eps - s * x0,), a * x0 + s * eps, t, None)
    torch.testing.assert_close(found, x0)


@pytest.mark.slow
def test_a_training_moves_the_student_and_resumes(words, denoiser, tmp_path, monkeypatch):
    for name, value in {"BATCH": 4, "FRESH": 3}.items():
        monkeypatch.setattr(turbo, name, value)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}

    def run(steps):
        return turbo.run(SHAPE, words, denoiser, 400, Budget(steps=steps), tmp_path, 0)

    first = run(2).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert any(not torch.equal(value, before[f"unet.{name}"]) for name, value in first.items())
    more = run(3).state_dict()
    assert torch.load(tmp_path / "turbo.pt", weights_only=True)["step"] == 3
    assert any(not torch.equal(value, first[name]) for name, value in more.items())
    assert all(value.isfinite().all() for value in more.values())
