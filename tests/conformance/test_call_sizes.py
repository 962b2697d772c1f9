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
from align.sampling.batching import Calls
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


def sampler_of(options, backbone, calls, steps=6):
    common = [f"sampler.steps={steps}", "sampler.eta=1", "sampler.guidance_scale=3"]
    config = jobs_of(parse([*options, *common]))[0].config
    return build.assemble(config, backbone, FakeReward(), PromptGraphs(words_graph).pairs, calls, CPU)


SIZES = [
    Calls(4),
    Calls(4, len(PROMPTS)),
    *(pytest.param(one, marks=pytest.mark.slow) for one in (Calls(2), Calls(8, 3))),
]


@pytest.mark.parametrize("calls", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_a_picture_has_the_same_bytes_in_any_company(method, calls):
    sampler = sampler_of(METHODS[method], Rounding(), calls)
    together = sampler.sample(REQUESTS)
    some = sampler.sample([REQUESTS[k] for k in (4, 1, 2)])
    for k, other in zip((4, 1, 2), some, strict=True):
        (alone,) = sampler.sample([REQUESTS[k]])
        for outcome in (alone, other):
            assert torch.equal(outcome.picture, together[k].picture)
            assert outcome.info == together[k].info


@pytest.mark.parametrize(
    ("options", "at_end"),
    [
        (["method=none"], 1),
        (["method=svdd", "method.search.candidates=2"], 1),
        (["method=svdd", "method.search.candidates=11"], 1),
        (["method=svdd", "method.search.candidates=20"], 1),
        (["method=dsearch", "method.particles=5", "method.search.candidates=5"], 1),
        (["method=das", "method.particles=2"], 2),
        (["method=das", "method.particles=9"], 9),
        (["method=dymo", "method.recurrence.rule=gradient_norm", "method.recurrence.cap=4"], 1),
    ],
)
def test_the_only_picture_of_a_plan_pays_for_no_row_that_it_has_not(options, at_end):
    backbone = FakeBackbone()
    decoded = []
    inner, backbone.decode = backbone.decode, lambda z: (decoded.append(len(z)), inner(z))[1]
    (made,) = sampler_of(options, backbone, Calls(8, 1), steps=20).sample(REQUESTS[:1])
    assert sum(backbone.batches) == made.cost.network_forward
    assert sum(decoded) == made.cost.decoder_forward
    assert decoded[-1] <= at_end


def test_those_who_travel_back_pay_for_few_who_do_not():
    backbone = FakeBackbone()
    options = ["method=dymo", "method.recurrence.rule=gradient_norm", "method.recurrence.cap=4"]
    made = sampler_of(options, backbone, Calls(8), steps=20).sample(REQUESTS)
    rounds = sum(outcome.info["rounds"] for outcome in made)
    assert rounds > 0
    first = 20 * (8 + 8)  # a call at each step of those who are judged, and one of those who are not
    assert sum(backbone.batches) <= first + 2 * rounds
