"""The reward's gradient by the noise of whole samplings, against calculus."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward, GaussianBackbone, passes, spied, words_graph
from tiny import load_tiny

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.config.strategy import NoiseGradientConfig
from align.processes.ddim import ddim
from align.released.noise_gradient import LostGradient, shared
from align.rewards.base import Reward
from align.runner import build
from align.runner.estimate import network_evaluations, recomputed, walked_back
from align.sampling.batching import Calls
from align.sampling.ledger import COUNTS
from align.sampling.noise import Given
from align.sampling.parts import Parts
from align.sampling.sampler import Request, Sampler, keyed
from align.semantics.sources import PromptGraphs, no_pairs
from align.strategies.hybrid import SMALL, direction, surrogate
from align.strategies.moves import Sphere, clipped
from align.strategies.noise_gradient import NoiseGradient
from align.strategies.penalties import gaussian_penalty

SHAPE = (1, 4, 4)
REQUEST = Request("red cat", seed=3)


class Linear(Reward):
    """The inner product of a picture's first channel with w."""

    name = "linear"

    def __init__(self, w):
        self.w = w

    def score(self, pictures, prompts, step=None):
        return (pictures[:, 0] * self.w).flatten(1).sum(dim=1)


W = torch.linspace(-1, 1, 16).view(4, 4).add(0.1)


def linear_sampler(steps=3, eta=0.0, reward=None):
    """Pictures that no clamp reaches, of a map from noise that is linear: the exact denoiser of one Gaussian."""
    backbone = GaussianBackbone(0.5, 0.02, SHAPE)
    process = ddim(backbone.scheduler_config, steps, eta)
    parts = Parts(*passes(backbone, 1.0, 2, reward=reward or Linear(W)), process)
    return Sampler(parts, no_pairs, CPU)


def strategy_of(sampler=None, **options):
    told = {
        name: options.pop(name) for name in ("differentiable", "rest", "keep_last", "idle") if name in options
    }
    usual = {"iterations": 3, "clip": 0.0, "optimiser": "sgd", "momentum": 0.0, "nesterov": False}
    return NoiseGradient(sampler or linear_sampler(), NoiseGradientConfig(**usual | options), **told)


@torch.no_grad()
def picture_of(sampler, draws):
    """The clean latents from some draws, all others being nothing."""

    class Nothing:
        def normal(self, purpose, step, round, shape):
            return torch.zeros(shape)

    noise = Given(draws, Nothing())
    state = sampler.run([REQUEST], sampler.encode([REQUEST]), streams=lambda *_: noise)
    return state.z[0]


def slope_by(sampler, slot):
    """d reward / d draw: of a linear map it is what the map makes of each unit."""
    nothing = picture_of(sampler, {})
    columns = []
    for k in range(16):
        unit = torch.zeros(16)
        unit[k] = 1
        columns.append((picture_of(sampler, {slot: unit.view(SHAPE)}) - nothing).flatten())
    return (torch.stack(columns) @ W.flatten()).view(SHAPE)


def iterates(strategy, request=REQUEST):
    """The noise of a request as it was at each iterate, and the outcome."""
    seen, inner = [], strategy.offer

    def offer(trials, found, leaves, iteration):
        seen.append(leaves[0].detach().clone())
        inner(trials, found, leaves, iteration)

    strategy.offer = offer
    (outcome,) = strategy.sample([request])
    return seen, outcome


def test_without_a_penalty_the_noise_climbs_straight():
    sampler = linear_sampler()
    slope = slope_by(sampler, ("initial", 0))
    seen, outcome = iterates(strategy_of(sampler, rate=5.0, iterations=4))
    for number, noise in enumerate(seen):
        wanted = keyed(REQUEST, 0).normal("initial", 0, 0, SHAPE) + 5.0 * number * slope
        assert torch.allclose(noise[0], wanted, atol=1e-5)
    assert outcome.info["iterate"] == 4


@pytest.mark.parametrize("last", [None, 2])
def test_the_noise_of_steps_climbs_by_its_own_slope(last):
    sampler = linear_sampler(eta=1.0)
    strategy = strategy_of(sampler, over="all", last=last, rate=5.0, iterations=1)
    wanted = [("step", 2), ("step", 1), *([("step", 0), ("initial", 0)] if last is None else [])]
    assert strategy.slots == wanted
    before, after = iterates(strategy)[0]
    for slot, moved in zip(wanted, after - before, strict=True):
        assert torch.allclose(moved, 5.0 * slope_by(sampler, slot), atol=1e-5)


def test_the_penalty_on_the_norm_stops_where_both_slopes_cancel():
    sampler = linear_sampler()
    slope, weight = slope_by(sampler, ("initial", 0)), 0.02
    strategy = strategy_of(sampler, rate=2.0, iterations=400, penalty="norm", weight=weight)
    z = iterates(strategy)[0][-1][0]
    pull = slope.norm() / weight
    norm = (pull + (pull**2 + 4 * 15).sqrt()) / 2  # weight (|z| - (d - 1) / |z|) = |slope|
    assert torch.allclose(z, norm * slope / slope.norm(), atol=1e-3)


def test_dnos_penalty_of_likely_noise_is_its_floor_and_of_shifted_noise_pulls_back():
    likely = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    orders = torch.stack([torch.randperm(4000, generator=torch.Generator().manual_seed(k)) for k in range(8)])
    floor = 2 * torch.log(torch.tensor(2.0))
    assert torch.isclose(gaussian_penalty(likely, orders[:0], 4), floor)
    shifted = (likely + 0.2).requires_grad_()
    penalty = gaussian_penalty(shifted, orders, 4)
    (slope,) = torch.autograd.grad(penalty, shifted)
    # To first order the mean alone: n M1^2 / 2m of n rows, twice (in order, and in the mean of orders).
    mean = float(shifted.detach().mean())
    assert float(penalty.detach()) > 2 * 1000 * mean**2 / 2
    assert float(slope.mean()) == pytest.approx(2 * mean * 1000 / 4 / 1000, rel=0.05)


def test_on_the_sphere_the_norm_stays_and_the_noise_ends_along_the_slope():
    sampler = linear_sampler()
    slope = slope_by(sampler, ("initial", 0))
    seen, _ = iterates(strategy_of(sampler, optimiser="sphere", rate=0.2, iterations=60))
    for noise in seen:
        assert float(noise.norm()) == pytest.approx(float(seen[0].norm()), rel=1e-5)
    assert torch.allclose(seen[-1][0] / seen[-1].norm(), slope / slope.norm(), atol=1e-4)


def test_on_the_sphere_nothing_moves_without_a_slope():
    leaf = torch.ones(3).requires_grad_()
    leaf.grad = torch.zeros(3)
    Sphere([leaf], 0.1).step()
    assert torch.equal(leaf, torch.ones(3))


def test_the_norm_of_a_gradient_is_cut_for_each_picture():
    assert float(clipped(torch.tensor([3.0, 4.0]), 1).norm()) == pytest.approx(1, rel=1e-5)
    small = torch.tensor([0.3, 0.4])
    assert torch.equal(clipped(small, 1), small)
    assert torch.equal(clipped(10 * small, 0), 10 * small)


def config_of(*options):
    return jobs_of(parse(list(options)))[0].config


def assembled(config, backbone, reward=None, batch_size=2):
    pairs = PromptGraphs(words_graph).pairs
    return build.assemble(config, backbone, reward or FakeReward(), pairs, Calls(batch_size), CPU)


METHODS = ["dno", "reno"]
REQUESTS = [Request(prompt, seed=5) for prompt in ("red cat blue dog", "a quiet morning", "blue dog")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nothing", ["iterations=0", "rate=0"])
def test_without_updates_it_is_plain_sampling(method, nothing):
    common = ["sampler.steps=6", "sampler.guidance_scale=3"]
    config = config_of(f"method={method}", f"method.noise_gradient.{nothing}", *common)
    made = assembled(config, FakeBackbone()).sample(REQUESTS)
    plain = assembled(config_of("method=none", *common), FakeBackbone()).sample(REQUESTS)
    for one, two in zip(made, plain, strict=True):
        assert torch.equal(one.picture, two.picture)
    if nothing == "iterations=0":
        assert [one.cost for one in made] == [two.cost for two in plain]


COSTS = {
    "one step": (["method=reno", "sampler.steps=1"], 1, 1, 1),
    "four steps keep all": (["method=reno", "sampler.steps=4"], 4, 4, 4),
    "six steps again": (["method=reno", "sampler.steps=6"], 6, 12, 6),
    "the last of six": (["method=dno", "sampler.steps=6", "over=all", "last=3"], 6, 8, 2),
    "six steps lost": (
        ["method=dno", "sampler.steps=6", "over=all", "method.quirks=[lost_gradient]"],
        6,
        6,
        0,
    ),
    "neighbours": (
        ["method=dno", "sampler.steps=6", "over=all", "estimate=hybrid", "neighbours=3"],
        6,
        6 * 3 + 12,
        6,
    ),
    "without the last": (
        ["method=dno", "sampler.steps=6", "over=all", "method.quirks=[last_iterate]"],
        0,
        12,
        6,
    ),
}


@pytest.mark.parametrize("case", COSTS)
def test_the_plan_is_what_the_ledger_and_a_spy_count(case, pipeline_folder):
    options, last, forward, backward = COSTS[case]
    options = [
        one if "." in one or one.startswith("method=") else f"method.noise_gradient.{one}" for one in options
    ]
    few = ["method.noise_gradient.iterations=1", "sampler.guidance_scale=3", "sampler.eta=1"]
    config = config_of(*options, *few)
    backbone, reward, seen = load_tiny(pipeline_folder, height=32, width=32), FakeReward(), Counter()
    method = assembled(config, backbone, reward, batch_size=1)
    with spied(seen, (backbone.unet, "network", 2), (backbone.vae.decoder, "decoder", 1)):
        made = method.sample(REQUESTS[:2])
    for outcome in made:
        assert (outcome.cost.network_forward, outcome.cost.network_backward) == (forward + last, backward)
    assert network_evaluations(config) == (forward + last, forward + last)
    if "lost_gradient" not in config.method.quirks:
        assert walked_back(config) == backward
    assert recomputed(config) in (0, backward)
    counted = seen + reward.counts
    assert {what: counted[what] for what in COUNTS} == {
        what: sum(getattr(one.cost, what) for one in made) for what in COUNTS
    }


@pytest.mark.parametrize("method", METHODS)
def test_requests_together_are_each_alone_where_calls_are_made_again(method, pipeline_folder):
    config = config_of(
        f"method={method}",
        "method.noise_gradient.iterations=2",
        "method.noise_gradient.penalty=gaussian",
        "method.noise_gradient.permutations=3",
        "method.noise_gradient.over=all",
        "sampler.steps=3",
        "sampler.eta=1",
        "sampler.guidance_scale=3",
    )
    sampler = assembled(config, load_tiny(pipeline_folder, height=32, width=32))
    together = sampler.sample(REQUESTS)
    for request, one in zip(REQUESTS, together, strict=True):
        (alone,) = sampler.sample([request])
        assert torch.equal(one.picture, alone.picture)
        assert (one.cost, one.info) == (alone.cost, alone.info)


class Breaking(Linear):
    """NaN for a prompt from its second picture on."""

    def __init__(self, w, prompt):
        super().__init__(w)
        self.prompt, self.asked = prompt, Counter()

    def score(self, pictures, prompts, step=None):
        found = super().score(pictures, prompts)
        for prompt in dict.fromkeys(prompts):  # calls are filled up with copies
            self.asked[prompt] += 1
        broken = [prompt == self.prompt and self.asked[prompt] > 1 for prompt in prompts]
        return torch.where(torch.tensor(broken), torch.nan, found)


def test_a_reward_that_breaks_never_wins_and_leaves_the_noise_where_it_was():
    sound, broken = Request("a", seed=1), Request("b", seed=1)
    reward = Breaking(W, "b")
    strategy = strategy_of(linear_sampler(reward=reward), rate=5.0, momentum=0.9)
    one, two = strategy.sample([sound, broken])
    (alone,) = strategy_of(rate=5.0, momentum=0.9).sample([sound])
    assert torch.equal(one.picture, alone.picture)
    (first,) = strategy_of(iterations=1, keep_last=True).sample([broken])
    assert torch.equal(two.picture, first.picture)
    assert two.info["iterate"] == 0
    assert two.info["nonfinite_gradients"] == 2
    assert two.info["values"].split()[1:] == ["nan"] * 3


def test_a_gradient_that_is_not_finite_changes_neither_noise_nor_state():
    strategy = strategy_of(rate=1.0, momentum=0.9, iterations=4)
    inner, seen = strategy.walk_back, []

    def walk_back(trials, noises, leaves, iteration):
        seen.append(leaves[0].detach().clone())
        gradients, finite = inner(trials, noises, leaves, iteration)
        return gradients, [iteration != 2] * len(finite)

    strategy.walk_back = walk_back
    strategy.sample([REQUEST])
    steps = [(after - before).norm() for before, after in pairwise(seen)]
    assert float(steps[2]) == 0
    assert float(steps[1] / steps[0]) == pytest.approx(1.9, rel=1e-3)


def test_the_best_is_kept_and_each_value_is_told():
    strategy = strategy_of(rate=5.0, iterations=2)
    (outcome,) = strategy.sample([REQUEST])
    values = [float(value) for value in outcome.info["values"].split()]
    assert len(values) == 3
    assert outcome.info["value"] == pytest.approx(max(values), rel=1e-3)


def test_the_last_picture_as_released_is_the_one_before_the_last_update():
    rate = 5000.0  # so far that pictures saturate
    best, last = (
        strategy_of(rate=rate, iterations=3, keep_last=told).sample([REQUEST])[0] for told in (False, True)
    )
    assert len(best.info["values"].split()) == 4
    assert len(last.info["values"].split()) == 3
    assert last.info["iterate"] == 2


def test_idle_noise_shrinks_and_as_published_else_it_is_left_alone():
    sampler = linear_sampler(eta=1.0)
    common = {"over": "all", "last": 2, "optimiser": "adamw", "rate": 0.1, "decay": 0.5, "iterations": 1}
    assert strategy_of(sampler, **common).slots == [("step", 2), ("step", 1)]
    strategy = strategy_of(sampler, idle=True, **common)
    before, after = iterates(strategy)[0]
    assert strategy.slots[2:] == [("step", 0), ("initial", 0)]
    assert torch.allclose(after[2:], before[2:] * (1 - 0.1 * 0.5))
    assert strategy.penalised == {("step", 2), ("step", 1)}


def test_a_lost_gradient_is_the_decoders_times_a_number():
    sampler = linear_sampler(eta=1.0)
    strategy = strategy_of(sampler, over="all", rate=1.0, iterations=1, differentiable=LostGradient)
    before, after = iterates(strategy)[0]
    steps = sampler.parts.process.steps
    factor = 1.0
    for step, moved in zip(reversed(steps), after - before, strict=False):
        assert torch.allclose(moved[0], factor * step.std * W, atol=1e-5)
        factor *= step.a_next / step.a  # eps being constant
    assert torch.allclose(after[-1][0] - before[-1][0], factor * W, atol=1e-5)


def test_shared_noise_is_the_same_for_every_prompt():
    one, two = (shared(Request(prompt, seed=3)).normal("step", 0, 0, (2,)) for prompt in "ab")
    assert torch.equal(one, two)
    assert not torch.equal(one, shared(Request("a", seed=4)).normal("step", 0, 0, (2,)))


def test_neighbours_tell_the_slope_along_their_differences():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(1, 3, 4, 4, generator=generator)
    neighbours = pictures[:, None] + 0.01 * torch.randn(1, 5, 3, 4, 4, generator=generator)
    w = torch.randn(3, 4, 4, generator=generator)
    values, base = (neighbours * w).sum(dim=(2, 3, 4)), (pictures * w).sum(dim=(1, 2, 3))
    differences = 2 * (neighbours - pictures[:, None]).flatten(2)[0]  # of pictures in [-1, 1]
    wanted = -differences.T @ (differences @ w.flatten()) / 2
    found = direction(neighbours, values, pictures, base)
    assert torch.allclose(found.flatten(), wanted, atol=1e-5)
    assert torch.allclose(surrogate(neighbours, values, pictures, base), 2 * found / (found.norm() + SMALL))
    worse = torch.cat([values, torch.tensor([[torch.nan, torch.inf]])], dim=1)
    more = torch.cat([neighbours, torch.rand(1, 2, 3, 4, 4, generator=generator)], dim=1)
    assert torch.allclose(direction(more, worse, pictures, base), found)


def test_by_neighbours_a_reward_without_a_gradient_rises():
    class Steps(Linear):
        differentiable = False

        def score(self, pictures, prompts, step=None):
            return (super().score(pictures, prompts).detach() * 1e4).round()

    sampler = linear_sampler(reward=Steps(W))
    strategy = strategy_of(
        sampler, estimate="hybrid", neighbours=8, radius=0.1, rate=0.5, clip=1.0, iterations=8
    )
    (outcome,) = strategy.sample([REQUEST])
    values = [float(value) for value in outcome.info["values"].split()]
    assert len(values) == 9
    assert values == sorted(values)
    assert outcome.cost.reward_backward == 0
    assert outcome.cost.decoder_forward == 8 * (8 + 1) + 1


REFUSED = {
    "a guided method": (["method=dymo"], "method.guidance.rule"),
    "steps without noise": (["over=all", "sampler.eta=0"], "sampler.eta=0"),
    "last steps of none": (["over=start", "last=2"], "over=start"),
    "more than all": (["over=all", "last=9", "sampler.eta=1", "sampler.steps=8"], "last=9"),
    "a reward without a gradient": (["reward=jpeg_compressibility"], "jpeg_compressibility has no gradient"),
    "another optimiser's": (["decay=0.1", "optimiser=sgd"], "decay=0.1"),
    "no neighbours": (["neighbours=7"], "estimate=hybrid"),
    "weights that left": (["backbone.offload=true", "backbone=sd15"], "backbone.offload=true"),
    "a kernel without a gradient": (["backbone.attention=sage", "backbone=sd15"], "sage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_a_line(case):
    options, named = REFUSED[case]
    options = [
        one
        if "." in one.split("=")[0] or one.split("=")[0] in ("method", "reward", "backbone")
        else f"method.noise_gradient.{one}"
        for one in options
    ]
    first = [] if any(one.startswith("method=") for one in options) else ["method=dno"]
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as found:
        config_of(*first, "method.noise_gradient.iterations=2", *options)
    assert len(str(found.value).splitlines()) == 1


def test_rewards_without_a_gradient_go_with_neighbours():
    config = config_of("method=dno", "method.noise_gradient.estimate=hybrid", "reward=jpeg_compressibility")
    assert not config.method.reward_needs_gradient


def test_a_projected_iterate_has_the_spectrum_of_noise_and_goes_up():
    """Of 4 x 4 latents: one block of the eight frequencies, whose squares are 8; the noise it begins with is plain."""
    strategy = strategy_of(project="wgnc", rate=0.3, iterations=8, optimiser="adamw")
    (outcome,) = strategy.sample([REQUEST])
    seen = [float(word) for word in outcome.info["values"].split()]
    (plain,) = strategy_of(iterations=1, rate=0.0).sample([REQUEST])
    assert seen[0] == pytest.approx(plain.info["value"], rel=1e-4)
    assert outcome.info["value"] > seen[0]
    assert outcome.info["iterate"] > 0
    assert outcome.info["noise_norm"] == pytest.approx(1.0, abs=1e-6)
