"""What every method must do, whatever it is made of.

Every method is held to it on the fake world, where all of the sampling is as everywhere.  A real network adds its own calls
(forward alone, back through network and decoder, with attention maps), and methods that make each kind of call show those.
"""

from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeFlow, FakeReward, spied, words_graph
from tiny import load_tiny

import align.shapes
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.places import group_choices
from align.runner import build
from align.sampling.batching import Calls
from align.sampling.ledger import COUNTS
from align.sampling.noise import NoiseStream
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs
from align.shapes.semantics import graph as shapes_graph

METHODS = tuple(group_choices("method"))
"""All that there are: a new config is held to this by being there."""
CHEAPER = {
    "best_of_n": ["method.particles=3"],
    "dno": ["method.noise_gradient.iterations=2", "method.noise_gradient.permutations=3"],
    "reno": ["method.noise_gradient.iterations=2"],
    "wgnc": ["method.noise_gradient.iterations=2"],
    "dno_released": ["method.noise_gradient.iterations=2", "method.noise_gradient.permutations=3"],
    "reno_released": ["method.noise_gradient.iterations=2"],
    "dymo_released": ["method.objective.copies=2", "method.recurrence.cap=3"],
    "svdd": ["method.search.candidates=3"],
    "verifier_threshold": ["method.search.until=above", "method.search.threshold=[12]"],
    "dsearch": ["method.particles=3"],
    "dsearch_r": ["method.particles=3", "method.search.replace=0.4", "method.search.candidates=2"],
    "svdd_released": ["method.search.candidates=3"],
    "dsearch_released": [
        "method.particles=3",
        "method.returned=1",
        "method.search.candidates=2",
        "method.search.widen=1",
    ],
    "dsearch_r_released": [
        "method.particles=3",
        "method.search.widen=1",
        "method.search.replace=0.4",
        "method.search.candidates=2",
    ],
    "rbf": ["method.rollover.budget=9", "method.rollover.first=2"],
    "dfs": [
        "method.backtracking.budget=9",
        "method.backtracking.check=[0.5,0.75]",
        "method.backtracking.threshold=[12]",
    ],
    "rbf_released": ["method.rollover.budget=9", "method.rollover.first=2"],
    "promptopt": [
        "method.prompt_search.budget=7",
        "method.prompt_search.population=3",
        "method.prompt_search.parents=2",
        "method.prompt_search.mutants=1",
        "method.prompt_search.children=1",
    ],
    **{
        name: ["method.noise_search.rounds=2", "method.noise_search.candidates=2"]
        for name in ("noise_search", "noise_search_released")
    },
    "evosearch": [
        "method.noise_search.rounds=3",
        "method.noise_search.populations=[3,2,2]",
        "method.noise_search.begin=[0,0.5]",
    ],
    "draft": ["method.draft.candidates=3"],
    "prune": ["method.particles=3"],
    "local_search": [
        "method.local_search.drafts=2",
        "method.local_search.children=[2,1]",
        "method.local_search.begin=[0.5,0.75]",
    ],
    "tree_search": ["method.tree_search.budget=10"],
    **{name: ["method.particles=2"] for name in ("fk", "bfs", "das", "smc", "tds", "urge", "dymo_smc")},
}
WRAP_ALIKE = (
    "dno_released",
    "reno",
    "reno_released",
    "wgnc",
    "noise_search_released",
    "evosearch",
    "promptist",
)
"""What wraps whole samplings as another one does, and asks nothing about their process."""
CASES = {
    "fake": METHODS,
    "flow": tuple(method for method in METHODS if method not in WRAP_ALIKE),
    "unet": ("none", "dymo", "svdd", "dymo_smc", "dno"),
    "shapes": ("dymo", "svdd", "das"),
}
"""The methods of a world: one that guides by attention and reward, one that chooses, and weighed particles."""
SOON = {
    "unet": tuple(method for method in METHODS if method not in ("svdd", "dymo_smc")),
    "shapes": (),
    "flow": ("none", "dymo", "ugd", "svdd", "das"),
}
"""Those of them that every change is held to, where it is not all."""
SHAPES = Path(align.shapes.__file__).parent / "weights"
GREY = 1 / 255


@cache
def config_of(method, strength=1.0, steps=4):
    """A method by name as its config has it, in a few steps."""
    options = [f"method={method}", f"sampler.steps={steps}", "sampler.eta=1", "sampler.guidance_scale=3"]
    options += [f"method.guidance.strength={strength}", *CHEAPER.get(method, [])]
    return jobs_of(parse(options))[0].config


def build_method(method, backbone, reward, batch_size=2, graph=words_graph, **options):
    """What it comes to on a backbone."""
    pairs, config = PromptGraphs(graph).pairs, config_of(method, **options)
    if isinstance(backbone, FakeFlow):
        config = replace(config, sampler=replace(config.sampler, kind="flow"))
    return build.assemble(config, backbone, reward, pairs, Calls(batch_size), CPU)


class World:
    """A backbone, a reward and prompts to try methods on."""

    def __init__(self, name, backbone, reward, prompts, graph=words_graph):
        self.name, self.backbone, self.reward, self.graph = name, backbone, reward, graph
        self.requests = [Request(prompt, seed=5, sample=k % 2) for k, prompt in enumerate(prompts)]

    def method(self, name, **options):
        return build_method(
            name, self.backbone, options.pop("reward", self.reward), graph=self.graph, **options
        )

    @cached_property
    def plain(self):
        """What is sampled without any method."""
        return self.method("none").sample(self.requests)


WORDS = ["red cat blue dog", "a quiet morning", "blue dog", "red cat blue dog", "cat and dog"]
CAPTIONS = [
    "a red circle above a blue square",
    "a large green star on a black background",
    "something else altogether",
]


OF_ALL_FLOWS = ("test_one_finished_picture_a_request", "test_the_ledger_is_what_a_spy_counts")
"""What a flow could do otherwise with a method that is held to all the rest on the fake world."""
OF_NETWORKS = (
    *OF_ALL_FLOWS,
    "test_done_again_neither_order_nor_company_changes_a_byte",
    "test_the_batch_size_changes_rounding_alone",
)
"""Likewise of a real network."""


def asked(test, world, method):
    """Whether a method is held to a test in a world."""
    if world == "fake" or (world == "flow" and method in SOON["flow"]):
        return True
    return test in (OF_ALL_FLOWS if world == "flow" else OF_NETWORKS)


def pytest_generate_tests(metafunc):
    cases = [
        pytest.param(world, method, marks=() if method in SOON.get(world, methods) else pytest.mark.slow)
        for world, methods in CASES.items()
        for method in methods
        if asked(metafunc.function.__name__, world, method)
    ]
    metafunc.parametrize(("world", "method"), cases, indirect=["world"], scope="module")


@pytest.fixture(scope="module", autouse=True)
def _a_writer():
    """Of prompts, in place of a language model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.runner.strategies.rewriter_of", lambda config: lambda prompt: f"{prompt} in oil")
        yield


@pytest.fixture(scope="module")
def world(request):
    if request.param in ("fake", "flow"):
        backbone = FakeBackbone() if request.param == "fake" else FakeFlow()
        return World(request.param, backbone, FakeReward(), WORDS)
    if request.param == "unet":
        folder = request.getfixturevalue("pipeline_folder")
        return World("unet", load_tiny(folder, height=32, width=32), FakeReward(), WORDS[:3])
    if not (SHAPES / "unet").is_dir():
        pytest.skip("the shapes weights are not here")
    return World("shapes", load_tiny(SHAPES), FakeReward(), CAPTIONS, shapes_graph)


@pytest.fixture(scope="module")
def outcomes(world, method):
    return world.method(method).sample(world.requests)


def test_one_finished_picture_a_request(world, method, outcomes):
    assert len(outcomes) == len(world.requests)
    for outcome in outcomes:
        assert outcome.error is None
        assert outcome.picture.shape[0] == 3
        assert outcome.picture.device == CPU
        assert 0 <= float(outcome.picture.min()) <= float(outcome.picture.max()) <= 1


def test_different_samples_and_prompts_differ(world, method, outcomes):
    pictures = [outcome.picture for outcome in outcomes]
    for k, one in enumerate(pictures):
        assert not any(torch.equal(one, two) for two in pictures[k + 1 :])


def test_another_seed_gives_another_picture(world, method, outcomes):
    other = world.method(method).sample([replace(request, seed=6) for request in world.requests])
    for one, two in zip(outcomes, other, strict=True):
        assert not torch.equal(one.picture, two.picture)


def test_done_again_neither_order_nor_company_changes_a_byte(world, method, outcomes):
    backwards = world.method(method).sample(world.requests[::-1])[::-1]
    alone = [world.method(method).sample([request])[0] for request in world.requests[:3]]
    for one, two in [*zip(outcomes, backwards, strict=True), *zip(outcomes, alone, strict=False)]:
        assert torch.equal(one.picture, two.picture)
        assert one.cost == two.cost
        assert one.info == two.info


def test_the_batch_size_changes_rounding_alone(world, method, outcomes, monkeypatch):
    """Those of the other tests are 2."""
    drawn, pictures = [], []
    normal = NoiseStream.normal

    def spy(stream, *key):
        noise = normal(stream, *key)
        drawn[-1][stream, key] = noise
        return noise

    monkeypatch.setattr(NoiseStream, "normal", spy)
    for batch_size in (1, 3):
        drawn.append({})
        made = world.method(method, batch_size=batch_size).sample(world.requests)
        pictures.append(torch.stack([outcome.picture for outcome in made]))
    one, three = drawn
    assert one.keys() == three.keys()
    assert all(torch.equal(one[key], three[key]) for key in one)
    two = torch.stack([outcome.picture for outcome in outcomes])
    for other in pictures:
        assert float((other - two).abs().max()) < GREY


@pytest.fixture
def counts(world):
    """Rows of every call, forward and back, counted at the modules themselves."""
    world.reward.counts.clear()
    if world.name in ("fake", "flow"):
        world.backbone.counts.clear()
        yield lambda: {what: (world.backbone.counts + world.reward.counts)[what] for what in COUNTS}
        return
    seen = dict.fromkeys(COUNTS, 0)

    with spied(seen, (world.backbone.unet, "network", 2), (world.backbone.vae.decoder, "decoder", 1)):
        yield lambda: seen | world.reward.counts


def test_the_ledger_is_what_a_spy_counts(world, method, counts):
    # All pictures of each group, so that the shares of its cost add up.
    number = config_of(method).method.returned
    groups = {replace(one, sample=one.sample // number) for one in world.requests}
    requests = [replace(one, sample=one.sample * number + k) for one in groups for k in range(number)]
    made = world.method(method, batch_size=1).sample(requests)
    assert counts() == {what: sum(getattr(one.cost, what) for one in made) for what in COUNTS}


def test_a_broken_reward_never_wins(world, method, outcomes):
    prompt, config = world.requests[0].prompt, config_of(method).method
    made = world.method(method, reward=FakeReward(broken=[prompt])).sample(world.requests)
    for request, one, sound in zip(world.requests, made, outcomes, strict=True):
        if request.prompt != prompt:
            assert torch.equal(one.picture, sound.picture)
        elif (
            config.strategies
            or config.choose == "best"
            or (config.weighs and "forgetful_weights" not in config.quirks)
        ):
            assert one.picture is None
            assert "reward" in one.error
        else:
            assert torch.isfinite(one.picture).all()
            assert (one.info["nonfinite_gradients"] > 0) is config.reward_needs_gradient


def test_with_zero_strength_it_is_plain_sampling(world, method):
    if method != "none" and (not config_of(method).method.guided or config_of(method).method.particles > 1):
        pytest.skip("has no strength, or chooses beside it")
    made = world.method(method, strength=0.0).sample(world.requests)
    for one, two in zip(made, world.plain, strict=True):
        assert torch.equal(one.picture, two.picture)
        assert one.cost == two.cost


def test_a_method_changes_something(world, method, outcomes):
    same = all(torch.equal(a.picture, b.picture) for a, b in zip(outcomes, world.plain, strict=True))
    assert same is (method == "none")
