"""Calls fit the work without letting a picture's bytes depend on its company.

Kernels round in their own way at each size of a call; here a backbone and a reward make much more of it.
"""

from dataclasses import replace

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward, words_graph

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

PROMPTS = ["red cat blue dog", "a quiet morning", "blue dog", "cat and dog", "red dog", "a cat"]
REQUESTS = [Request(prompt, seed=5) for prompt in PROMPTS]
METHODS = {
    "none": ["method=none"],
    "svdd": ["method=svdd", "method.search.candidates=11"],
    "dsearch": ["method=dsearch", "method.particles=4", "method.search.candidates=3"],
    "das": ["method=das", "method.particles=2"],
    "das of more than a call": ["method=das", "method.particles=5"],
    "dymo with time travel": [
        "method=dymo",
        "method.recurrence.rule=gradient_norm",
        "method.recurrence.cap=4",
    ],
}


class Rounding(FakeBackbone):
    """Whose numbers depend on how many rows a call has."""

    def predict(self, z, *rest, **options):
        found = super().predict(z, *rest, **options)
        return replace(found, eps=found.eps * (1 + 1e-3 * len(z)), x0=found.x0 * (1 + 1e-3 * len(z)))

    def decode(self, z0):
        return super().decode(z0) * (1 - 1e-3 * len(z0))


def sampler_of(options, backbone, batch_size, steps=6):
    common = [f"sampler.steps={steps}", "sampler.eta=1", "sampler.guidance_scale=3"]
    config = jobs_of(parse([*options, *common]))[0].config
    return build.assemble(config, backbone, FakeReward(), PromptGraphs(words_graph).pairs, batch_size, CPU)


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_picture_has_the_same_bytes_in_any_company(method, batch_size):
    sampler = sampler_of(METHODS[method], Rounding(), batch_size)
    together = sampler.sample(REQUESTS)
    some = sampler.sample([REQUESTS[k] for k in (4, 1, 2)])
    for k, other in zip((4, 1, 2), some, strict=True):
        (alone,) = sampler.sample([REQUESTS[k]])
        for outcome in (alone, other):
            assert torch.equal(outcome.picture, together[k].picture)
            assert outcome.info == together[k].info


@pytest.mark.parametrize(
    ("options", "batch_size", "start"),
    [
        (["method=svdd", "method.search.candidates=11"], 4, 1),
        (["method=svdd", "method.search.candidates=20"], 8, 1),
        (
            [
                "method=dsearch",
                "method.particles=5",
                "method.search.candidates=5",
                "method.search.schedule=all",
            ],
            8,
            5,
        ),
        (["method=das", "method.particles=2"], 2, 2),
        (["method=das", "method.particles=9"], 8, 9),
    ],
)
def test_a_picture_of_many_particles_or_candidates_pays_for_none_that_it_has_not(options, batch_size, start):
    backbone = FakeBackbone()
    (made,) = sampler_of(options, backbone, batch_size, steps=20).sample(REQUESTS[:1])
    # Only the particles of the start may be fewer than a call has rows.
    assert sum(backbone.batches) == made.cost.network_forward + max(0, batch_size - start)


def test_those_who_travel_back_pay_for_few_who_do_not():
    backbone = FakeBackbone()
    options = ["method=dymo", "method.recurrence.rule=gradient_norm", "method.recurrence.cap=4"]
    made = sampler_of(options, backbone, 8, steps=20).sample(REQUESTS)
    rounds = sum(outcome.info["rounds"] for outcome in made)
    assert rounds > 0
    first = 20 * (8 + 8)  # a call at each step of those who are judged, and one of those who are not
    assert sum(backbone.batches) <= first + 2 * rounds
