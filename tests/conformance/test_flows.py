"""Every method on a flow transformer with a guidance pair, and on one that reads the scale itself: it makes its pictures, the same
ones in any order, at the cost that a spy counts; or it is refused in one line before any work.
"""

import pytest
import torch
from fakes import CPU, FakeReward, spied, words_graph
from tiny_transformers import write_flux, write_sd3

from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.sampling.batching import Calls
from align.sampling.ledger import COUNTS
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

from .test_methods import CHEAPER, METHODS, WRAP_ALIKE

PRESETS = {"sd3": "sd35_medium", "flux": "flux_dev"}
REFUSED = {("flux", "dymo_released"): "method.guidance.rule=correction"}
"""What asks for the correction of a pair, and has no other rule of its own."""
SOON = ("none", "dymo", "svdd", "das", "dymo_released")
REQUESTS = [Request("red cat blue dog", seed=5), Request("a quiet morning", seed=5)]
CASES = [
    pytest.param(name, method, id=f"{name}-{method}", marks=() if method in SOON else pytest.mark.slow)
    for name in PRESETS
    for method in METHODS
    if method not in WRAP_ALIKE and (name == "sd3" or method in SOON)
]
"""All methods on the transformer that has a pair of halves; of the other one what makes each kind of call."""


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in PRESETS}
    write_sd3(folders["sd3"], 1)
    write_flux(folders["flux"], 2)
    guidance = {"sd3": "pair", "flux": "embedded"}
    return {
        name: load(Recipe((str(folder),), name, guidance=guidance[name]), CPU, 32, 32, max_sequence_length=16)
        for name, folder in folders.items()
    }


def config_of(name, method):
    options = [f"backbone={PRESETS[name]}", f"method={method}", "sampler=flow_ancestral", "sampler.steps=4"]
    more = ["sampler.guidance_scale=3", "method.objective.copies=1", "method.recurrence.cap=1"]
    less = ["method.search.candidates=2", "method.search.widen=1"] if "dsearch" in method else []
    return jobs_of(parse([*options, *more, *CHEAPER.get(method, []), *less]))[0].config


@pytest.fixture
def counted(backbones):
    """Rows of network and decoder calls, forward and back, counted at the modules themselves."""
    seen = dict.fromkeys(COUNTS, 0)
    watched = [
        part
        for name, backbone in backbones.items()
        for part in (
            (backbone.network, "network", 2 if name == "sd3" else 1),
            (backbone.vae.decoder, "decoder", 1),
        )
    ]
    with spied(seen, *watched):
        yield seen


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_method_makes_its_pictures_or_is_refused(name, method, backbones, counted):
    if (reason := REFUSED.get((name, method))) is not None:
        with pytest.raises(ConfigError, match=reason) as said:
            config_of(name, method)
        assert "\n" not in str(said.value)
        return
    reward, config = FakeReward(), config_of(name, method)
    pairs = PromptGraphs(words_graph).pairs
    sampler = build.assemble(config, backbones[name], reward, pairs, Calls(1), CPU)
    number = config.method.returned
    requests = [
        Request(one.prompt, seed=one.seed, sample=k) for one in REQUESTS for k in range(number)
    ]  # all pictures of each group, so that the shares of its cost add up
    made = sampler.sample(requests)
    for one in made:
        assert one.error is None
        assert bool(one.picture.isfinite().all())
    spent = {what: sum(getattr(one.cost, what) for one in made) for what in COUNTS}
    assert {**counted, **reward.counts} == {**spent, **{k: spent[k] for k in reward.counts}}
    backwards = sampler.sample(requests[::-1])[::-1]
    for one, other in zip(made, backwards, strict=True):
        assert torch.equal(one.picture, other.picture)
