"""What every strategy shares, by one that only a test would want: the pictures of some particles, for words of its own."""

import pytest
import torch
from fakes import FakeBackbone, FakeReward

from align.sampling.sampler import Request
from align.strategies.base import Strategy, Trial

from .helpers import REQUESTS, built, values

NUMBER = 3


class Several(Strategy):
    """So many candidates one after the other, the last of them for other words."""

    samplings, width = NUMBER, 1

    def work(self, trials):
        for number in range(NUMBER):
            words = "red dog" if number == NUMBER - 1 else ""
            rows = [
                Trial(
                    owner,
                    Request(words or request.prompt, request.negative, request.seed, request.sample),
                    self.sampler.noise(request, number),
                )
                for owner, request in enumerate(trials.requests)
            ]
            found = trials(rows)
            for owner in range(len(rows)):
                value = float(found.values[owner])
                trials.best[owner].offer(value, found.pictures[owner], found.latents[owner], number=number)


def several(**given):
    # Of a method that has a reward, which plain sampling has not; its own search is left out.
    return Several(built("method=noise_search", eta=1, **given).sampler)


def test_company_changes_neither_bytes_nor_costs():
    together = several().sample(REQUESTS)
    alone = [several().sample([request])[0] for request in REQUESTS]
    for one, two in zip(together, alone, strict=True):
        assert torch.equal(one.picture, two.picture)
        assert one.cost == two.cost
        assert one.info == two.info


def test_costs_are_summed_by_their_owners():
    backbone, reward = FakeBackbone(), FakeReward()
    made = several(backbone=backbone, reward=reward, batch_size=1).sample(REQUESTS)
    for one in made:
        assert one.cost.network_forward == 4 * NUMBER
        assert one.cost.decoder_forward == one.cost.reward_forward == NUMBER
    assert backbone.counts["network_forward"] == len(made) * 4 * NUMBER
    assert reward.counts["reward_forward"] == len(made) * NUMBER


def test_candidates_are_judged_for_the_words_that_were_asked_for():
    asked = []

    class Listening(FakeReward):
        def score(self, pictures, prompts, step=None):
            asked.extend(prompts)
            return super().score(pictures, prompts, step)

    several(reward=Listening()).sample(REQUESTS)
    assert set(asked) == {request.prompt for request in REQUESTS}


def test_the_best_is_what_was_seen_best():
    for one in several().sample(REQUESTS):
        found = values(one)
        assert len(found) == NUMBER
        assert one.info["number"] == found.index(max(found))
        assert one.info["value"] == pytest.approx(max(found), rel=1e-4)


def test_progress_never_falls_and_ends_at_one():
    told = []
    several(batch_size=1).sample(
        [*REQUESTS, Request("cat and dog"), Request("dog"), Request("cat")], told.append
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert all(0 <= share <= 1 for share in told)
    assert len(set(told)) > 2 * NUMBER


def test_a_request_of_which_nothing_is_finite_fails_alone():
    broken = REQUESTS[0].prompt
    made = several(reward=FakeReward(broken=[broken])).sample(REQUESTS)
    sound = several().sample(REQUESTS)
    for request, one, two in zip(REQUESTS, made, sound, strict=True):
        if request.prompt == broken:
            assert one.picture is None
            assert one.error == "no candidate has a picture with a finite reward"
            assert one.cost == two.cost
        else:
            assert torch.equal(one.picture, two.picture)


def test_equal_words_are_read_once():
    backbone, read = FakeBackbone(), []
    inner = backbone.encode
    backbone.encode = lambda *words: read.append(words) or inner(*words)
    several(backbone=backbone).sample(REQUESTS)
    assert sorted(read) == sorted({(prompt, "") for prompt in [*(one.prompt for one in REQUESTS), "red dog"]})


def test_equal_requests_are_made_once():
    backbone = FakeBackbone()
    one, two = several(backbone=backbone, batch_size=1).sample([REQUESTS[0], REQUESTS[0]])
    assert torch.equal(one.picture, two.picture)
    assert backbone.counts["network_forward"] == 4 * NUMBER
