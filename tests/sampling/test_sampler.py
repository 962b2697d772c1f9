from dataclasses import replace

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeBackbone, passes, words_graph

from align.processes.ddim import ddim
from align.sampling.noise import Given
from align.sampling.parts import Parts
from align.sampling.sampler import Request, Sampler, keyed, root_mean_square
from align.semantics.sources import PromptGraphs

REQUESTS = [Request("red cat", seed=1), Request("blue dog", seed=1), Request("red cat", seed=1, sample=1)]


def sampler_of(backbone, batch_size=2, eta=1.0, reward=None):
    parts = Parts(*passes(backbone, 3.0, batch_size, reward=reward), ddim(SCHEDULE, 5, eta))
    return Sampler(parts, PromptGraphs(words_graph).pairs, CPU)


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


# ---------------------------------------------------------------- noise that is given


def given(tensors):
    return lambda request, particle: Given(tensors, keyed(request, particle))


def test_a_noise_key_keeps_the_noise_of_another_prompt(backbone):
    sampler = sampler_of(backbone)
    first, rewritten = (
        sampler.sample([Request(prompt, seed=1, noise_key=key)])[0].picture
        for prompt, key in (("red cat", None), ("a red cat", "red cat"))
    )
    assert torch.equal(first, sampler.sample([Request("red cat", seed=1, noise_key="red cat")])[0].picture)
    other = sampler.sample([Request("a red cat", seed=1)])[0].picture
    assert not torch.equal(rewritten, other)
    noise = keyed(Request("a red cat", seed=1, noise_key="red cat"), 0)
    drawn = [("initial", 0), *(("step", k) for k in range(5))]
    sampler.noise = given({key: noise.normal(*key, 0, backbone.latent_shape()) for key in drawn})
    assert torch.equal(sampler.sample([Request("a red cat", seed=2)])[0].picture, rewritten)


class Double(FakeBackbone):
    """In float64, as finite differences want it."""

    def __init__(self):
        super().__init__()
        for name in ("conv", "query", "value", "up"):
            setattr(self, name, getattr(self, name).double())

    def encode(self, prompt, negative):
        read = super().encode(prompt, negative)
        return replace(read, prompt=read.prompt.double(), negative=read.negative.double())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_plain_sampling_can_be_differentiated_by_its_noise(eta):
    """By the initial noise and by that of a step, against finite differences."""
    backbone, requests = Double(), [Request("red cat"), Request("blue dog")]
    shape, generator = backbone.latent_shape(), torch.Generator().manual_seed(3)
    way, start, later = (torch.randn(*shape, generator=generator).double() for _ in range(3))
    read_out = torch.randn(2, 3, 8, 8, generator=generator)
    sampler = sampler_of(backbone, eta=eta)
    pictures = sampler.encode(requests)

    def value(at):
        sampler.noise = given({("initial", 0): start + at, ("step", 2): later + at})
        return (sampler.decode(sampler.run(requests, pictures).z) * read_out).sum()

    at = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(at), at)
    with torch.no_grad():
        slope = (value(1e-3 * way) - value(-1e-3 * way)) / 2e-3
    assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=0.01)
    assert float(gradient.abs().max()) > 0.01


def test_sampling_keeps_no_graph_unless_it_is_asked_for(backbone):
    sampler = sampler_of(backbone)
    noise = torch.randn(*backbone.latent_shape()).requires_grad_()
    sampler.noise = given({("initial", 0): noise})
    assert not sampler.sample(REQUESTS[:1])[0].picture.requires_grad


def test_the_steps_of_a_sampling_can_be_taken_alone(backbone, reward):
    sampler = sampler_of(backbone, reward=reward)
    with torch.no_grad():
        state = sampler.run(REQUESTS, sampler.encode(REQUESTS))
        pictures = sampler.decode(state.z)
        scores = sampler.score(pictures, [request.prompt for request in REQUESTS])
    for picture, score, outcome in zip(pictures, scores, sampler.sample(REQUESTS), strict=True):
        assert torch.equal(picture, outcome.picture)
        assert torch.isfinite(score)
