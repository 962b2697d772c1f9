import pytest
import torch
from fakes import CPU, SCHEDULE, FakeBackbone, words_graph

from align.processes.ddim import ddim
from align.sampling.evaluate import Evaluator
from align.sampling.loop import Parts
from align.sampling.sampler import Request, Sampler, root_mean_square
from align.semantics.tokens import pairs_by_offsets

REQUESTS = [Request("red cat", seed=1), Request("blue dog", seed=1), Request("red cat", seed=1, sample=1)]


def sampler_of(backbone, batch_size=2):
    parts = Parts(Evaluator(backbone, 3.0, batch_size), ddim(SCHEDULE, 5, 1.0))
    return Sampler(backbone, parts, pairs_by_offsets(words_graph), batch_size, CPU)


def test_one_picture_a_request_in_order(backbone):
    outcomes = sampler_of(backbone).sample(REQUESTS)
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert outcome.picture.shape == (3, 8, 8)
        assert outcome.picture.dtype == torch.float32
        assert 0 <= float(outcome.picture.min()) <= float(outcome.picture.max()) <= 1
        assert outcome.error is None


def test_seed_and_sample_each_make_another_picture(backbone):
    sampler = sampler_of(backbone)
    first, _, other_sample = sampler.sample(REQUESTS)
    (other_seed,) = sampler.sample([Request("red cat", seed=2)])
    pictures = [one.picture for one in (first, other_sample, other_seed)]
    for k, one in enumerate(pictures):
        assert not any(torch.equal(one, two) for two in pictures[k + 1 :])


def test_equal_requests_give_equal_bytes(backbone):
    twice = sampler_of(backbone).sample([REQUESTS[0], REQUESTS[1], REQUESTS[0]])
    assert torch.equal(twice[0].picture, twice[2].picture)


def test_the_negative_prompt_counts(backbone):
    sampler = sampler_of(backbone)
    (one,), (two,) = (sampler.sample([Request("red cat", negative=text)]) for text in ("", "blurry"))
    assert not torch.equal(one.picture, two.picture)


def test_costs_are_what_was_called(backbone):
    outcomes = sampler_of(backbone, batch_size=1).sample(REQUESTS)
    assert backbone.counts == {"network_forward": 15, "decoder_forward": 3}
    for outcome in outcomes:
        assert (outcome.cost.network_forward, outcome.cost.decoder_forward) == (5, 1)


def test_every_call_has_the_same_shape(backbone):
    sampler_of(backbone, batch_size=2).sample(REQUESTS)
    assert set(backbone.batches) == {2}


def test_truncated_prompts_are_told(backbone):
    long, short = sampler_of(backbone).sample([Request("word " * 50), Request("word")])
    assert (long.info["prompt_truncated"], short.info["prompt_truncated"]) == (1, 0)


def test_progress_rises_to_one(backbone):
    told = []
    sampler_of(backbone).sample(REQUESTS, on_step=told.append)
    assert told == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_picture_that_is_not_finite_fails_alone():
    class Broken(FakeBackbone):
        def encode(self, prompt, negative):
            read = super().encode(prompt, negative)
            if prompt == "blue dog":
                read.prompt[:] = torch.nan
            return read

    one, broken, two = sampler_of(Broken()).sample(REQUESTS)
    sound = sampler_of(FakeBackbone()).sample(REQUESTS)
    assert broken.picture is None
    assert "not finite" in broken.error
    assert torch.equal(one.picture, sound[0].picture)
    assert torch.equal(two.picture, sound[2].picture)


@pytest.mark.parametrize("prompt", ["", " ", "\ud800", "caf\u00e9 \u2615", "a\x1fb\0", "x" * 10_000])
def test_any_prompt_is_a_prompt(backbone, prompt):
    (outcome,) = sampler_of(backbone).sample([Request(prompt)])
    assert outcome.error is None


def test_the_size_of_the_finished_latents_is_told(backbone, monkeypatch):
    """|z| / sqrt(dim) of the latents that were decoded, of each picture."""
    decoded = []
    decode = backbone.decode
    monkeypatch.setattr(backbone, "decode", lambda z: decoded.append(z) or decode(z))
    outcomes = sampler_of(backbone, batch_size=1).sample(REQUESTS)
    for z, outcome in zip(decoded, outcomes, strict=True):
        expected = float(z.norm()) / z.numel() ** 0.5
        assert outcome.info["latent_norm"] == pytest.approx(expected, rel=1e-6)
    assert root_mean_square(torch.full((4, 2, 2), -3.0)) == 3
