"""The flow's training: what it is taught, on which latents, and what of the text it is told."""

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from align.checkpoints.reference import EMBEDDED
from align.shapes.grammar import parse
from scripts.shapes_training import flow
from scripts.shapes_training.denoiser import WIDTH, Denoiser
from scripts.shapes_training.loop import Budget

TEXTS = (
    "a small red circle",
    "a red circle",
    "a red circle and a blue star",
    "a small red circle and a blue star",
)
CAPTIONS = [caption for caption in map(parse, TEXTS) if caption]


def test_one_small_object_is_drawn_most_often():
    shares = flow.often(CAPTIONS)
    assert shares.sum() == pytest.approx(1)
    assert shares.argmax() == 0
    assert shares[1] > shares[2] == shares[3]


def test_the_denoisers_prediction_becomes_the_velocity():
    """A denoiser that knows x0: eps - x0 at every level that its process has."""
    x0, eps = torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.1, 0.5, 0.9])
    level = sigma.view(-1, 1, 1, 1)
    z = (1 - level) * x0 + level * eps
    size = (level**2 + (1 - level) ** 2).sqrt()
    v = ((1 - level) * eps - level * x0) / size
    denoiser = Denoiser(40, 2)
    teacher = flow.Teacher(denoiser)
    teacher.unet = lambda *_, **__: (v,)
    torch.testing.assert_close(
        teacher.velocity(z, sigma, torch.zeros(3, 3, 4)), eps - x0, atol=1e-5, rtol=1e-5
    )


def test_pooled_texts_lie_on_one_line_and_the_empty_one_stays():
    empty, captions = torch.randn(1, WIDTH), torch.randn(20, WIDTH) + 1
    pooled = flow.Pooled(empty, captions)
    torch.testing.assert_close(pooled(empty), empty)
    torch.testing.assert_close(pooled(captions).mean(dim=0), captions.mean(dim=0))
    assert torch.linalg.matrix_rank(pooled(captions) - empty, rtol=1e-4) == 1


def test_the_weights_that_are_shipped_do_that_to_texts_as_they_come():
    torch.manual_seed(0)
    model = flow.network(2).eval()
    empty, captions = torch.randn(1, WIDTH), torch.randn(5, WIDTH)
    pooled = flow.Pooled(empty, captions)
    embed, told = model.time_text_embed.text_embedder, pooled.within(model).time_text_embed.text_embedder
    torch.testing.assert_close(told(captions), embed(pooled(captions)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(embed(captions), embed(pooled(captions)), atol=1e-3)


def test_a_walk_goes_down_to_clean_latents_and_begins_anew():
    """With the true velocity a walk without new noise keeps its noise all the way, to x0."""
    x0 = torch.full((1, 2, 8, 8), 3.0)
    walks = flow.Walks(x0, lambda number: np.zeros(number, dtype=int))
    walks.way[:] = 0

    def noise():
        level = walks.sigma(x0).view(-1, 1, 1, 1)
        return (walks.z - (1 - level) * x0) / level

    ended = 0
    for _ in range(flow.STEPS):
        kept, last = noise(), walks.place == flow.STEPS - 1
        walks.advance(kept - x0, np.random.default_rng(0))
        walks.way[:] = 0
        ended += last.sum()
        assert (walks.place[last] == 0).all()
        on = torch.from_numpy(~last)
        torch.testing.assert_close(noise()[on], kept[on], atol=1e-2, rtol=1e-2)
        assert (walks.z[~on].abs() < 6).all()
    assert ended == flow.WALKS


@pytest.mark.slow
def test_a_training_moves_the_network_and_ships_what_it_is_told(tmp_path):
    words = CLIPTokenizer.from_pretrained(EMBEDDED["shapes"] / "tokenizer")
    denoiser = Denoiser(len(words), 2)
    regions = np.zeros((len(CAPTIONS), 3, 8, 8), np.float16)
    latents = torch.randn(len(CAPTIONS), 2, 8, 8)
    made = flow.run(latents, CAPTIONS, regions, words, denoiser, Budget(steps=2), tmp_path, 0)
    first = made.time_text_embed.text_embedder.linear_1.weight
    assert torch.linalg.matrix_rank(first, rtol=1e-4) == 1
    assert any(p.abs().sum() > 0 for name, p in made.named_parameters() if name.startswith("proj_out"))
    assert torch.load(tmp_path / "flow.pt", weights_only=True)["step"] == 2
