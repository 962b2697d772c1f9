"""Several rewards by their ranks in a choice."""

from functools import cache

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward, counted, seeded, words_graph

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.rewards.combination import RankSum, ranks
from align.runner import build
from align.runner.dry_run import calls_of_a_picture
from align.runner.plan import identity
from align.runner.rows import optimised
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

RANKS = ("reward=sum", "reward.combine=ranks", "reward.terms.shapes_pick=1", "reward.terms.shapes_hps=1")
REQUESTS = [Request(prompt, seed=5) for prompt in ("red cat blue dog", "blue dog", "a quiet morning")]


class Other(FakeReward):
    """Likes other pictures, on a scale beside which the first one's is nothing."""

    def score(self, pictures, prompts, step=None):
        wanted = torch.stack([seeded(f"other {prompt}", *pictures.shape[1:]) for prompt in prompts])
        return 1e4 * (counted(pictures, self.counts, "other") * wanted).flatten(1).sum(dim=1)


@cache
def config_of(*options):
    steps = ("sampler.steps=4", "sampler.eta=0", "sampler.guidance_scale=3")
    return jobs_of(parse([*steps, *options]))[0].config


def built(*options, reward=None, backbone=None, batch_size=1):
    pairs = PromptGraphs(words_graph).pairs
    reward = reward or RankSum([(1, FakeReward()), (1, Other())])
    return build.assemble(
        config_of(*options), backbone or FakeBackbone(), reward, pairs, Calls(batch_size), CPU
    )


def test_equals_have_the_mean_of_their_ranks():
    values = torch.tensor([[3.0, -1e9], [1.0, 0.5], [3.0, 0.25], [2.0, 0.5]])
    assert ranks(values).tolist() == [[3.5, 1], [1, 3.5], [3.5, 2], [2, 3.5]]


def test_weights_count_ranks_and_a_negative_one_turns_them_round():
    reward = RankSum([(2, FakeReward()), (-1, Other())])
    assert reward.among(torch.tensor([[0.1, 5.0], [0.2, 7.0], [0.3, 6.0]])).tolist() == [1, 1, 4]


def test_what_is_not_finite_is_never_chosen_and_moves_no_rank():
    reward = RankSum([(1, FakeReward()), (1, Other())])
    values = torch.tensor([[1.0, 2.0], [torch.nan, 1e9], [2.0, 1.0], [torch.inf, 0.0]])
    found = reward.among(values)
    assert found.isnan().tolist() == [False, True, False, True]
    assert torch.equal(found[[0, 2]], reward.among(values[[0, 2]]))
    assert reward.among(values[:1]).tolist() == [2]


def test_best_of_n_takes_the_best_sum_of_ranks():
    """Written apart.  The sum of values would be the second reward's choice."""
    particles = built("method=best_of_n", "method.particles=6", "method.returned=6")
    made = built("method=best_of_n", "method.particles=6", *RANKS).sample(REQUESTS)
    choices = []
    for request, one in zip(REQUESTS, made, strict=True):
        group = [Request(request.prompt, seed=5, sample=k) for k in range(6)]
        pictures = torch.stack([two.picture for two in particles.sample(group)])
        each = [reward.score(pictures, [request.prompt] * 6) for reward in (FakeReward(), Other())]
        places = [values.argsort().argsort() + 1 for values in each]
        assert torch.equal(one.picture, pictures[sum(places).argmax()])
        assert one.info["value"] == float(sum(places).max())
        choices.append((one.info["particle"], int(each[1].argmax())))
    assert any(mine != others for mine, others in choices)


CHOOSES = {
    "draft": ("method=draft", "method.draft.candidates=3", "method.draft.keep=2"),
    "local_search": (
        "method=local_search",
        "method.local_search.drafts=3",
        "method.local_search.children=[3,2]",
        "method.local_search.begin=[0.5,0.75]",
    ),
    "evolution": (
        "method=evosearch",
        "method.noise_search.rounds=2",
        "method.noise_search.populations=[3,2]",
        "method.noise_search.begin=[0.5]",
    ),
}


@pytest.mark.parametrize("name", CHOOSES)
def test_whatever_chooses_finished_pictures_can_go_by_ranks(name):
    """As the conformance suite has it of one reward: bytes whatever the company, the plan's calls, and NaN never wins."""
    broken, options = REQUESTS[1].prompt, (*CHOOSES[name], *RANKS)
    config, backbone, parts = config_of(*options), FakeBackbone(), [FakeReward(broken=[broken]), Other()]
    made = built(*options, reward=RankSum([(1, one) for one in parts]), backbone=backbone).sample(REQUESTS)
    judged = sum(one.cost.reward_forward for one in made)
    assert parts[0].counts["reward_forward"] == parts[1].counts["other_forward"] == judged
    assert sum(one.cost.network_forward for one in made) == backbone.counts["network_forward"]
    assert made[1].picture is None
    (alone,) = built(*options, batch_size=3).sample(REQUESTS[:1])
    torch.testing.assert_close(made[0].picture, alone.picture)
    assert made[0].cost == calls_of_a_picture(config, FakeBackbone().scheduler_config)


def test_a_child_wins_in_the_union_with_its_parent_and_equals_leave_the_parent():
    class Fixed(FakeReward):
        """Tells pictures in the order in which they come: the drafts a, b, then three children."""

        def __init__(self, told):
            super().__init__()
            self.told = iter(told)

        def score(self, pictures, prompts, step=None):
            return torch.tensor([next(self.told) for _ in pictures])

    options = (
        "method=local_search",
        "method.local_search.drafts=2",
        "method.local_search.children=[1,2]",
        "method.local_search.begin=[0.5,0.75]",
    )
    # a and b share first and second places, so a; then a child beats it in one and loses in the other; then one wins both.
    told = [2.0, 1.0, 3.0, 5.0, 4.0], [10.0, 20.0, 5.0, 30.0, 40.0]
    reward = RankSum([(1, Fixed(told[0])), (1, Fixed(told[1]))])
    (made,) = built(*options, *RANKS, reward=reward).sample(REQUESTS[:1])
    assert made.info["values"] == "3 3 3 5 5"
    assert made.info["candidate"] == 3
    assert made.info["value"] == 5


def test_all_of_them_count_as_followed_and_the_combination_is_part_of_the_identity():
    config = config_of("method=best_of_n", *RANKS)
    plain = config_of("method=best_of_n", *RANKS, "reward.combine=sum")
    files = {"shapes_pick": "a", "shapes_hps": "b"}
    assert optimised(config) == ["shapes_hps", "shapes_pick"]
    assert config.reward_label == "ranks of 1*shapes_hps+1*shapes_pick"
    assert identity(config, "", files) != identity(plain, "", files)


@pytest.mark.parametrize(
    "options",
    [
        ("method=svdd", "sampler.eta=1", *RANKS),
        ("method=fk", "sampler.eta=1", *RANKS),
        ("method=dps", *RANKS),
        ("method=reno", "method.guide_reward.shapes_hps=1", *RANKS),
        ("method=tree_search", "sampler.eta=1", *RANKS),
        ("method=promptopt", *RANKS),
        ("method=best_of_n", "reward=shapes_pick", "reward.combine=ranks"),
    ],
    ids=lambda options: options[0],
)
def test_where_values_are_weights_or_gradients_ranks_are_refused_in_a_line(options):
    with pytest.raises(ConfigError, match=r"^reward.combine=ranks .*: give reward[^\n]*$"):
        config_of(*options)


def test_gradients_of_one_reward_and_a_choice_by_ranks_go_together():
    options = ("method=dps", "method.particles=2", "method.choose=best", "method.guide_reward.shapes_pick=1")
    assert config_of(*options, *RANKS).guide is not None
