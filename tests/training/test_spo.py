"""SPO: which steps split, which candidates are a pair, and what is learned from one."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import load_tiny, save_pipeline

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.base import Gaussian
from align.processes.ddim import ddim
from align.rewards.base import Reward
from align.training.lora import Lora
from align.training.policy import Policy
from align.training.ranks import Ranks
from align.training.rounds import Rounds
from align.training.spo import (
    Preferences,
    Spo,
    blocks,
    choose,
    mean_log_prob,
    per_prompt,
    preference_loss,
)

CPU = torch.device("cpu")
PROMPTS = ["a cat", "a dog", "a fox"]


class Redness(Reward):
    """How red a picture is, seen from a timestep."""

    name = "redness"
    takes_timestep = True

    def __init__(self):
        self.seen = []

    def score(self, pictures, prompts, step=None):
        self.seen.append((step.tolist(), list(prompts)))
        return 200 * pictures[:, 0].mean(dim=(1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_pipeline(folder)
    return folder


def lesson(folder, steps=6, how=None, seed=0):
    backbone = load_tiny(folder, height=32, width=32)
    lora = Lora(backbone.network, rank=2)
    policy = Policy(
        backbone,
        lora,
        ddim(backbone.scheduler_config, steps, 1.0),
        Guider(3.0),
        lambda prompts: Conditioning.of([backbone.encode(prompt, "") for prompt in prompts]),
        CPU,
    )
    how = how or Preferences(first=2, threshold=0.1)
    return Spo(policy, Redness(), Rounds(PROMPTS, len(PROMPTS), 0), how, Spo.keyed(seed))


def steps_of(number, clean=False):
    schedule = {
        "num_train_timesteps": 1000,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": clean,
    }
    return ddim(schedule, number, 1.0).steps


@pytest.mark.parametrize(
    ("inner", "starts", "longest"),
    [(0, list(range(4, 20)), 1), (3, [4, 8, 12, 16], 4), (2, [4, 7, 10, 13, 16], 4)],
)
def test_blocks_of_steps(inner, starts, longest):
    """With two walked steps the last would be alone, and belongs to the block before."""
    found = blocks(steps_of(20), 4, inner)
    assert [block[0].index for block in found] == starts
    assert [step.index for block in found for step in block] == list(range(4, 20))
    assert max(map(len, found)) == longest


def test_a_last_step_without_noise_is_left_out():
    assert [block[0].index for block in blocks(steps_of(10, clean=True), 4, 0)] == [4, 5, 6, 7, 8]


def test_the_published_costs_of_a_prompt():
    steps = steps_of(20)
    assert per_prompt(steps, Preferences(4, 0.3, 4, 0)) == (65, 64, 16)
    assert per_prompt(steps, Preferences(2, 0.4, 4, 3)) == (35, 8, 16)


def test_best_and_worst_are_a_pair_if_they_differ_enough():
    scores = torch.tensor([[1.0, 0.0, 1.0], [3.0, 0.5, torch.nan], [2.0, 0.2, 9.0]])
    winner, loser, valid = choose(scores, threshold=0.3)
    assert winner.tolist()[:2] == [1, 1]
    assert loser.tolist()[:2] == [0, 0]
    assert valid.tolist() == [
        True,
        False,
        False,
    ]  # a gap of 0.5 is 0.245; a score that is no number makes no pair


def test_log_probabilities_are_means_over_elements():
    kernel = Gaussian(torch.randn(2, 3, 4), 0.7)
    z = torch.randn(2, 3, 4)
    expected = torch.distributions.Normal(kernel.mean, 0.7).log_prob(z).mean(dim=(1, 2))
    torch.testing.assert_close(mean_log_prob(kernel, z), expected)


def test_the_loss_by_hand():
    log_ratio = torch.tensor([[0.05, 0.5], [-0.05, -0.5]], requires_grad=True)
    each, ratio = preference_loss(log_ratio, beta=10.0, clip=0.1)
    low, high = math.log(0.9), math.log(1.1)
    expected = [math.log1p(math.exp(-10 * 0.1)), math.log1p(math.exp(-10 * (high - low)))]
    assert each.tolist() == pytest.approx(expected)
    assert ratio[:, 1].tolist() == pytest.approx([1.1, 0.9])
    each.sum().backward()
    assert (
        log_ratio.grad[:, 0] * torch.tensor([-1.0, 1.0]) > 0
    ).all()  # up with the winner, down with the loser
    assert not log_ratio.grad[:, 1].any()  # beyond the clip


def test_a_fresh_lesson_begins_at_ln_2_and_moves_b_alone(folder):
    spo = lesson(folder)
    pairs = spo.collect(0, Ranks())
    assert pairs
    value, figures = spo.loss(pairs)
    assert float(value.detach()) == pytest.approx(math.log(2), abs=1e-6)
    value.backward()
    for name, one in spo.policy.lora.parameters().items():
        assert bool(one.grad.any()) == ("lora_B" in name)
    assert float(figures["ratio_winner"]) == pytest.approx(1)


def test_candidates_are_judged_at_the_level_that_they_are_at(folder):
    spo = lesson(folder)
    spo.collect(0, Ranks())
    times = [times[0] for times, _ in spo.reward.seen]
    assert times == [step.timestep for step in spo.policy.process.steps[3:]] + [0]
    assert all(len(prompts) == 4 * len(PROMPTS) for _, prompts in spo.reward.seen)


def test_a_prompt_gives_the_same_pairs_whoever_is_beside_it(folder):
    spo = lesson(folder)
    together = {pair.key: pair for pair in spo.collect(0, Ranks())}
    alone = lesson(folder)
    alone.prompts = Rounds(PROMPTS[:1], 1, 0)
    found = alone.collect(0, Ranks())
    assert [pair.key for pair in found] == [key for key in together if key.startswith(PROMPTS[0])]
    for pair in found:
        torch.testing.assert_close(pair.z_next, together[pair.key].z_next, rtol=0, atol=1e-4)


def test_each_epoch_has_noise_of_its_own(folder):
    spo = lesson(folder)
    first, again, second = spo.collect(0, Ranks()), spo.collect(0, Ranks()), spo.collect(1, Ranks())
    assert torch.equal(first[0].z, again[0].z)
    assert not torch.equal(first[0].z, second[0].z)


def test_a_shared_state_is_predicted_once(folder):
    """With the same loss and gradient as two rows of it."""
    spo = lesson(folder)
    with torch.no_grad():
        for one in spo.policy.lora.parameters().values():
            one += 0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    pairs = spo.collect(0, Ranks())
    assert all(len(pair.z) == 1 for pair in pairs)
    apart = [replace(pair, z=pair.z.expand(2, *pair.z.shape[1:])) for pair in pairs]
    values = [spo.loss(some)[0] for some in (pairs, apart)]
    torch.testing.assert_close(*values)
    parameters = list(spo.policy.lora.parameters().values())
    one, two = (torch.autograd.grad(value, parameters) for value in values)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_walked_steps_are_learned_from_with_the_pair_that_they_led_to(folder):
    spo = lesson(folder, how=Preferences(2, 0.0, 2, 1))
    pairs = spo.collect(0, Ranks())
    by_step = {step: [pair for pair in pairs if pair.step == step] for step in (2, 3, 4, 5)}
    assert len({len(some) for some in by_step.values()}) == 1
    assert [len(by_step[step][0].z) for step in (2, 3, 4, 5)] == [1, 2, 1, 2]
    for split, walked in zip(by_step[2], by_step[3], strict=True):
        assert torch.equal(split.z_next, walked.z)


def test_learning_raises_what_won(folder):
    """A few steps of plain gradient descent on pairs that were drawn once."""
    spo = lesson(folder)
    pairs = spo.collect(0, Ranks())
    optimizer = torch.optim.AdamW(spo.policy.lora.parameters().values(), lr=3e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value, figures = spo.loss(pairs)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses == sorted(losses, reverse=True)
    assert figures["ratio_winner"] > figures["ratio_loser"]
