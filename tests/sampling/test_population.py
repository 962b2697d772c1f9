"""Of a population's finished pictures those that the reward likes best are returned."""

from dataclasses import replace

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeReward, passes, words_graph

from align.processes.ddim import ddim
from align.sampling.parts import Parts
from align.sampling.sampler import Population, Request, Sampler
from align.semantics.sources import PromptGraphs

REQUESTS = [Request("red cat", seed=1), Request("blue dog", seed=2), Request("a hill", seed=3)]


def sampler_of(backbone, batch_size=2, population=None, reward=None):
    parts = Parts(*passes(backbone, 3.0, batch_size, reward=reward), ddim(SCHEDULE, 4, 1.0))
    return Sampler(parts, PromptGraphs(words_graph).pairs, CPU, population)


def best_of(backbone, reward, number, batch_size=2):
    return sampler_of(backbone, batch_size, Population(number, 1, "best"), reward)


def particles_of(backbone, number):
    """All pictures of each request's population, whatever their reward."""
    whole = sampler_of(backbone, population=Population(number, number))
    asked = [replace(request, sample=k) for k in range(number) for request in REQUESTS]
    pictures = [one.picture for one in whole.sample(asked)]
    return [pictures[k * len(REQUESTS) : (k + 1) * len(REQUESTS)] for k in range(number)]


def test_the_best_picture_of_each_request_is_returned(backbone, reward):
    outcomes = best_of(backbone, reward, 4).sample(REQUESTS)
    candidates = particles_of(backbone, 4)
    prompts = [request.prompt for request in REQUESTS]
    times = torch.zeros(3, dtype=torch.long)
    scores = torch.stack([reward.score(torch.stack(one), prompts, times) for one in candidates])
    for k, outcome in enumerate(outcomes):
        best = int(scores[:, k].argmax())
        assert torch.equal(outcome.picture, candidates[best][k])
        assert outcome.info["particle"] == best
    assert len({outcome.info["particle"] for outcome in outcomes}) > 1


def test_one_candidate_is_plain_sampling(backbone, reward):
    plain = sampler_of(backbone).sample(REQUESTS)
    for one, two in zip(best_of(backbone, reward, 1).sample(REQUESTS), plain, strict=True):
        assert torch.equal(one.picture, two.picture)


def test_the_first_particle_is_the_plain_picture(backbone):
    for one, two in zip(particles_of(backbone, 3)[0], sampler_of(backbone).sample(REQUESTS), strict=True):
        assert torch.equal(one, two.picture)


def test_equal_scores_choose_the_plain_picture(backbone):
    flat = FakeReward(flat=[request.prompt for request in REQUESTS])
    assert [one.info["particle"] for one in best_of(backbone, flat, 3).sample(REQUESTS)] == [0] * 3


class Picky(FakeReward):
    """Not finite for the pictures listed."""

    def __init__(self, pictures, value):
        super().__init__()
        self.pictures, self.value = pictures, value

    def score(self, pictures, prompts, step=None):
        scores = super().score(pictures, prompts, step).clone()
        for row, picture in enumerate(pictures):
            if any(torch.equal(picture, other) for other in self.pictures):
                scores[row] = self.value
        return scores


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_has_no_finite_reward_is_never_chosen(backbone, value):
    first, second = particles_of(backbone, 2)
    outcomes = best_of(backbone, Picky(first, value), 2).sample(REQUESTS)
    for outcome, picture in zip(outcomes, second, strict=True):
        assert torch.equal(outcome.picture, picture)


def test_without_any_finite_reward_a_request_fails_and_the_others_do_not(backbone):
    reward = FakeReward(broken=["blue dog"])
    one, failed, two = best_of(backbone, reward, 2).sample(REQUESTS)
    assert failed.picture is None
    assert "no particle" in failed.error
    assert one.error is two.error is None


def test_all_particles_are_paid_for(backbone, reward):
    outcomes = best_of(backbone, reward, 3, batch_size=1).sample(REQUESTS)
    for outcome in outcomes:
        assert (outcome.cost.network_forward, outcome.cost.decoder_forward, outcome.cost.reward_forward) == (
            12,
            3,
            3,
        )
    assert backbone.counts["network_forward"] == 36
    assert reward.counts == {"reward_forward": 9}


def test_progress_covers_all_groups(backbone, reward):
    told = []
    best_of(backbone, reward, 8, batch_size=4).sample(REQUESTS, told.append)
    # Two groups of eight particles side by side, then the third, four steps each.
    assert told == pytest.approx([k / 6 for k in range(1, 5)] + [2 / 3 + k / 12 for k in range(1, 5)])


def test_other_requests_change_nothing(backbone, reward):
    sampler = best_of(backbone, reward, 3)
    together = sampler.sample(REQUESTS)
    for request, outcome in zip(REQUESTS, together, strict=True):
        assert torch.equal(sampler.sample([replace(request)])[0].picture, outcome.picture)


def test_samples_of_one_group_share_its_cost(backbone, reward):
    """Two of four particles become samples 2 and 3; sample 4 is another group's."""
    sampler = sampler_of(backbone, 4, Population(4, 2, "best"), reward)
    asked = [Request("red cat", seed=1, sample=k) for k in (2, 3, 4)]
    two, three, four = sampler.sample(asked)
    assert backbone.counts["network_forward"] == 2 * 4 * 4
    assert [one.cost.network_forward for one in (two, three, four)] == [8, 8, 8]
    assert two.info["value"] >= three.info["value"]
    assert two.info["particle"] != three.info["particle"]
    for request, outcome in zip(asked, (two, three, four), strict=True):
        assert torch.equal(sampler.sample([request])[0].picture, outcome.picture)
