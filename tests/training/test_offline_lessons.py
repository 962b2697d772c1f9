"""Diffusion-DPO, Diffusion-KTO and AlignProp: their formulas by hand, and what they do to a small network."""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.sampling.batching import Calls
from align.semantics.sources import no_pairs
from align.training.alignprop import AlignProp
from align.training.dpo import Dpo, dpo_loss
from align.training.kto import Kto, kto_loss, reference_point, utility
from align.training.noised import Errors
from align.training.pairs import LabelledPairs
from align.training.policy import Policy
from align.training.ranks import Ranks
from align.training.rounds import Rounds

PROMPTS = ["red cat", "blue dog", "cat and dog"]


def test_untrained_pairs_cost_ln_2():
    errors = torch.tensor([0.3, 0.7, 0.1])
    loss = dpo_loss(errors, errors + 0.2, errors, errors + 0.2, beta=5000)
    assert torch.equal(loss, torch.full((3,), math.log(2)))


def test_dpo_by_hand():
    # The chosen picture's error fell by 0.001 and the rejected one's rose by 0.0005: 2500 times 0.0015 is 3.75.
    loss = dpo_loss(*(torch.tensor([x]) for x in (0.199, 0.4005, 0.2, 0.4)), beta=5000)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-3.75)), rel=1e-4)


def test_dpo_wants_preferred_pictures_denoised_better_and_the_others_worse():
    chosen, rejected = torch.tensor([0.3]).requires_grad_(), torch.tensor([0.3]).requires_grad_()
    dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=8).sum().backward()
    assert float(chosen.grad) == pytest.approx(2)  # beta/2 sigmoid(0)
    assert float(rejected.grad) == pytest.approx(-2)


def test_kto_of_two_pictures_by_hand():
    errors, reference = torch.tensor([0.10, 0.26]), torch.tensor([0.14, 0.24])
    liked = torch.tensor([True, False])
    point = reference_point(reference - errors)  # of gains 0.04 and -0.02
    assert float(point) == pytest.approx(0.01)
    loss = kto_loss(errors, reference, liked, point, beta=100)
    # Liked: 100 (0.04 - 0.01) = 3. Not liked: -100 (-0.02 - 0.01) = 3.
    assert loss.tolist() == pytest.approx([1 / (1 + math.exp(3))] * 2, rel=1e-4)


def test_a_loss_of_all_pictures_is_no_reference_point():
    assert float(reference_point(torch.tensor([-0.3, 0.1]))) == 0
    assert not reference_point(torch.tensor([0.3], requires_grad=True)).requires_grad


@pytest.mark.parametrize("kind", ["kahneman_tversky", "loss_averse", "risk_seeking"])
def test_every_utility_grows_and_has_its_own_curvature(kind):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    value = utility(x, kind)
    assert (value.diff() > 0).all()
    bend = value.diff().diff()
    assert {
        "loss_averse": (bend < 0).all(),
        "risk_seeking": (bend > 0).all(),
        "kahneman_tversky": bend[0] > 0 > bend[-1],
    }[kind]


class Trained(FakeBackbone):
    """Whose convolution learns."""

    def __init__(self):
        super().__init__()
        self.start, self.conv = self.conv, self.conv.clone().requires_grad_()

    @contextmanager
    def off(self):
        own, self.conv = self.conv, self.start
        yield
        self.conv = own


def pairs():
    latents = torch.randn(3, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[0.0, 1.0, 0.1, 3.0], [2.0, 2.0, 2.0, 2.0], [5.0, 1.0, 1.0, 1.0]]).double()
    return LabelledPairs.of(PROMPTS, latents, labels, margin=0.15)


def lesson_of(kind, backbone, **options):
    def conditioning(prompts):
        return Conditioning.of([backbone.encode(prompt, "") for prompt in prompts])

    policy = Policy(backbone, backbone, None, Guider(3.0), conditioning, CPU, most=100)
    data = pairs()
    return kind(data, Rounds(range(len(data)), 6, 3), Errors(policy, 3, empty=0.2), beta=2000, **options)


def test_pairs_differ_by_more_than_the_margin():
    found = pairs()
    by_label = [(p, found.labels[p, w] - found.labels[p, l]) for p, w, l in found.places]
    assert min(gap for _, gap in by_label) > 0.15
    assert [p for p, _ in by_label] == [0] * 5 + [
        2
    ] * 3  # none where all are alike, and 0.1 is no gain over 0
    assert torch.equal(found[0].chosen, found.latents[0, 1])


@pytest.mark.parametrize("kind", [Dpo, Kto])
def test_a_round_follows_from_its_number_whoever_shares_it(kind):
    lesson = lesson_of(kind, Trained())
    whole = lesson.collect(2, Ranks())
    again = lesson.collect(2, Ranks())
    assert [one.key for one in whole] == [one.key for one in again]
    assert len({one.key for one in whole}) == len(whole) == 6
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(one.noise, other.noise)
        assert (one.time, one.prompt) == (other.time, other.prompt)
    assert {one.key for one in lesson.collect(3, Ranks())} != {one.key for one in whole}
    assert "" in {one.prompt for round_ in range(4) for one in lesson.collect(round_, Ranks())}  # 0.2 of them


@pytest.mark.parametrize(("kind", "first"), [(Dpo, math.log(2)), (Kto, 0.5)])
def test_the_first_loss_is_that_of_no_difference_and_learning_lowers_it(kind, first):
    backbone = Trained()
    lesson = lesson_of(kind, backbone)
    examples = lesson.collect(0, Ranks())
    loss, _ = lesson.loss(examples)
    assert loss.item() == pytest.approx(first, abs=1e-6)
    optimizer = torch.optim.AdamW([backbone.conv], 1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        loss, figures = lesson.loss(examples)
        loss.backward()
        optimizer.step()
    assert lesson.loss(examples)[0].item() < first - 0.02
    assert float(figures["right"]) > 0.7


def test_the_share_of_liked_pictures_is_kept():
    liked = [one.liked for one in lesson_of(Kto, Trained(), liked=0.8).collect(0, Ranks())]
    assert 0.6 <= sum(liked) / len(liked) < 1


def alignprop(backbone, last, steps=5, reward=None, calls=3):
    config = jobs_of(parse(["method=none", f"sampler.steps={steps}", "sampler.eta=1"]))[0].config
    judge = reward or FakeReward(takes_timestep=False)
    sampler = build.assemble(config, backbone, judge, no_pairs, Calls(calls), CPU)
    return AlignProp(sampler, Rounds(PROMPTS, 3, 1), (last, last), seed=1)


def test_the_gradient_is_that_of_the_mean_reward_through_the_last_steps():
    backbone = Trained()
    lesson = alignprop(backbone, 5)
    examples = lesson.collect(0, Ranks())
    loss, figures = lesson.loss(examples)
    (found,) = torch.autograd.grad(loss, backbone.conv)
    assert loss.item() == pytest.approx(-float(figures["reward"]))

    def reward():  # the sampling as it is, without stages or recomputation
        sampler = lesson.sampler
        requests = [one.request for one in examples]
        latents = sampler.run(requests, sampler.encode(requests)).z
        pictures = backbone.decode(latents).clamp(0, 1)
        return FakeReward(takes_timestep=False).score(pictures, [one.prompt for one in requests]).mean()

    (wanted,) = torch.autograd.grad(-reward(), backbone.conv)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_fewer_steps_walk_back_less_and_make_the_same_pictures():
    backbone = Trained()
    whole, some = alignprop(backbone, 5), alignprop(backbone, 2)
    examples = whole.collect(0, Ranks())
    few = [replace(one, last=2) for one in examples]
    assert whole.loss(examples)[0].item() == some.loss(few)[0].item()
    (all_,), (part,) = (
        torch.autograd.grad(one.loss(them)[0], backbone.conv)
        for one, them in ((whole, examples), (some, few))
    )
    assert not torch.allclose(all_, part)
    # The first call of each way is walked back to the weights alone, not to what went in.
    assert backbone.counts["network_backward"] == 3 * 4 + 3 * 1


def test_a_picture_without_a_finite_reward_teaches_nothing():
    backbone = Trained()
    lesson = alignprop(backbone, 2, reward=FakeReward(takes_timestep=False, broken=("blue dog",)))
    loss, figures = lesson.loss(lesson.collect(0, Ranks()))
    assert math.isfinite(loss.item())
    assert float(figures["finite"]) == pytest.approx(2 / 3)
    assert torch.autograd.grad(loss, backbone.conv)[0].isfinite().all()


def test_how_far_back_is_drawn_anew_for_each_round():
    lesson = alignprop(Trained(), 5)
    lesson.last = (1, 5)
    assert len({lesson.collect(round_, Ranks())[0].last for round_ in range(12)}) > 2


def test_errors_are_of_what_the_network_predicts():
    backbone = Trained()
    lesson = lesson_of(Dpo, backbone)
    examples = lesson.collect(0, Ranks())[:1]
    of_noise = lesson.errors(examples)
    backbone.scheduler_config["prediction_type"] = "v_prediction"
    other = lesson_of(Dpo, backbone)
    abar = other.errors.levels[examples[0].time]
    with torch.no_grad():
        step = other.errors.step(examples[0].time)
        clean, noise = examples[0].latents, examples[0].noise
        z = step.a * clean + step.s * noise
        x0, eps = other.errors.policy.predict(z, [step] * 2, [examples[0].prompt] * 2)
        v, true = step.a * eps - step.s * x0, step.a * noise - step.s * clean
        assert torch.allclose(
            other.errors(examples)[0], (v - true).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6
        )
    assert of_noise.shape == (1, 2)
    assert abar == pytest.approx(step.a**2)
