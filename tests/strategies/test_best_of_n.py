from dataclasses import replace

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeReward, words_graph

from align.processes.ddim import DDIM
from align.sampling.evaluate import Evaluator
from align.sampling.loop import Parts
from align.sampling.sampler import Request, Sampler
from align.semantics.tokens import pairs_by_offsets
from align.strategies.best_of_n import BestOfN

REQUESTS = [Request("red cat", seed=1), Request("blue dog", seed=2), Request("a hill", seed=3)]


def sampler_of(backbone, batch_size=2):
    parts = Parts(Evaluator(backbone, 3.0, batch_size), DDIM(SCHEDULE, 4, 1.0))
    return Sampler(backbone, parts, pairs_by_offsets(words_graph), batch_size, CPU)


def candidates_of(sampler, number):
    return [[one.picture for one in sampler.sample(REQUESTS, candidate=k)] for k in range(number)]


def test_the_best_candidate_of_each_request_is_returned(backbone, reward):
    sampler = sampler_of(backbone)
    outcomes = BestOfN(sampler, reward, 4).sample(REQUESTS)
    candidates = candidates_of(sampler, 4)
    prompts = [request.prompt for request in REQUESTS]
    times = torch.zeros(3, dtype=torch.long)
    scores = torch.stack([reward.score(torch.stack(one), prompts, times) for one in candidates])
    for k, outcome in enumerate(outcomes):
        best = int(scores[:, k].argmax())
        assert torch.equal(outcome.picture, candidates[best][k])
        assert outcome.info["info_candidate"] == best
    assert len({outcome.info["info_candidate"] for outcome in outcomes}) > 1


def test_one_candidate_is_plain_sampling(backbone, reward):
    sampler = sampler_of(backbone)
    plain = sampler.sample(REQUESTS)
    for one, two in zip(BestOfN(sampler, reward, 1).sample(REQUESTS), plain, strict=True):
        assert torch.equal(one.picture, two.picture)


def test_equal_scores_choose_the_plain_picture(backbone):
    flat = FakeReward(flat=[request.prompt for request in REQUESTS])
    assert [
        one.info["info_candidate"] for one in BestOfN(sampler_of(backbone), flat, 3).sample(REQUESTS)
    ] == [0] * 3


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
    sampler = sampler_of(backbone)
    first, second = candidates_of(sampler, 2)
    outcomes = BestOfN(sampler, Picky(first, value), 2).sample(REQUESTS)
    for outcome, picture in zip(outcomes, second, strict=True):
        assert torch.equal(outcome.picture, picture)


def test_without_any_finite_reward_a_request_fails_and_the_others_do_not(backbone):
    reward = FakeReward(broken=["blue dog"])
    one, failed, two = BestOfN(sampler_of(backbone), reward, 2).sample(REQUESTS)
    assert failed.picture is None
    assert "no candidate" in failed.error
    assert one.error is two.error is None


def test_all_candidates_are_paid_for(backbone, reward):
    outcomes = BestOfN(sampler_of(backbone, batch_size=1), reward, 3).sample(REQUESTS)
    for outcome in outcomes:
        assert (outcome.cost.network_forward, outcome.cost.decoder_forward, outcome.cost.reward_forward) == (
            12,
            3,
            3,
        )
    assert backbone.counts["network_forward"] == 36
    assert reward.counts == {"reward_forward": 9}


def test_progress_covers_all_candidates(backbone, reward):
    told = []
    BestOfN(sampler_of(backbone), reward, 2).sample(REQUESTS, told.append)
    assert told == pytest.approx([k / 8 for k in range(1, 9)])


def test_other_requests_change_nothing(backbone, reward):
    strategy = BestOfN(sampler_of(backbone), reward, 3)
    together = strategy.sample(REQUESTS)
    for request, outcome in zip(REQUESTS, together, strict=True):
        assert torch.equal(strategy.sample([replace(request)])[0].picture, outcome.picture)


def test_no_candidates_are_refused(backbone, reward):
    with pytest.raises(ValueError, match="at least 1"):
        BestOfN(sampler_of(backbone), reward, 0)
