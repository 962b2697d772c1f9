"""Search: candidates for each particle's next state, and fewer particles as it goes on."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from fakes import CPU, SCHEDULE, passes, watching

from align.processes.ddim import ddim
from align.released.search import RawPrune
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.recurrence import Recurrence
from align.sampling.sampler import Population, Request
from align.sampling.schedules import populations, search_probabilities, searched_width
from align.sampling.search import Prune, Search
from align.sampling.selection import by_value
from align.sampling.state import State
from align.sampling.values import PosteriorMean
from sampling.test_loop import PROMPTS, REQUESTS, STEPS, parts_of, plain_of, same, sample

MANY = [Request(prompt, seed=seed) for prompt in PROMPTS for seed in range(4)]


def svdd_of(backbone, reward, candidates=4, batch_size=4, **options):
    return Parts(
        *passes(backbone, 3.0, batch_size, reward=reward, value=PosteriorMean(backbone.decode)),
        ddim(SCHEDULE, STEPS, 1.0),
        search=Search(candidates, probabilities=(1.0,) * (STEPS - 1), **options),
    )


def grouped(parts, reward, population, requests=REQUESTS):
    judge = replace(parts.judge, reward=reward)
    return sample(replace(parts, judge=judge), requests, population=population)


def test_svdd_raises_the_reward_at_its_known_cost(backbone, reward):
    """Of four candidates the one whose predicted picture is best goes on (arXiv 2408.08252)."""
    found, plain = sample(svdd_of(backbone, reward), MANY), sample(plain_of(backbone), MANY)
    # One evaluation at the start, then the candidates' own: the one that goes on is not evaluated again.
    costs = {
        (
            one.cost.network_forward,
            one.cost.decoder_forward,
            one.cost.reward_forward,
            one.cost.network_backward,
        )
        for one in found
    }
    assert costs == {(1 + 4 * (STEPS - 1), 1 + 4 * (STEPS - 1), 4 * (STEPS - 1), 0)}
    prompts = [request.prompt for request in MANY]
    scores = [reward.score(torch.stack([one.picture for one in some]), prompts) for some in (found, plain)]
    assert float((scores[0] - scores[1]).mean()) > 0.3


def test_a_searched_picture_does_not_see_its_company(backbone, reward):
    parts = svdd_of(backbone, reward)
    for request, outcome in zip(MANY[:3], sample(parts, MANY), strict=False):
        assert torch.equal(sample(parts, [request])[0].picture, outcome.picture)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_plan_of_calls_never_changes_the_choice(backbone, reward, batch_size, temperature):
    whole = sample(svdd_of(backbone, reward, 5, temperature=temperature))
    other = sample(svdd_of(backbone, reward, 5, batch_size, temperature=temperature))
    for one, two in zip(whole, other, strict=True):
        torch.testing.assert_close(one.picture, two.picture)


def test_one_candidate_is_plain_sampling(backbone, reward):
    assert same(sample(svdd_of(backbone, reward, 1)), sample(plain_of(backbone)))
    assert not reward.counts


def test_the_first_candidate_is_the_plain_child(backbone):
    """So a reward that is the same for all changes nothing: ties go to the first."""
    from fakes import FakeReward

    flat = FakeReward(flat=PROMPTS)
    for one, two in zip(sample(svdd_of(backbone, flat)), sample(plain_of(backbone)), strict=True):
        torch.testing.assert_close(one.picture, two.picture)


def test_the_chosen_candidate_is_the_best_of_fresh_ones(backbone, reward):
    """Written apart: one step of one particle by hand."""
    parts = svdd_of(backbone, reward, 6)
    with watching() as log:
        sample(parts, REQUESTS[:1])
    steps = parts.process.steps
    (_, found), *rest = ((state, estimate) for _, state, estimate in log)
    tried = [pair for pair in rest if len(pair[1].value)][:2]  # Six candidates in calls of four.
    values = torch.cat([estimate.value for _, estimate in tried])
    z = torch.cat([candidates.z for candidates, _ in tried])
    assert len(values) == 6
    kernel = parts.process.kernel(found.x0, found.eps, steps[0])
    stream = NoiseStream(7, PROMPTS[0], 0)
    names = ["step", *(f"step, candidate {k}" for k in range(1, 6))]
    drawn = torch.stack([stream.normal(name, 0, 0, backbone.latent_shape()) for name in names])
    torch.testing.assert_close(z, kernel.mean + kernel.std * drawn)
    nodes = torch.cat([estimate.x0 for _, estimate in tried])
    times = torch.full((6,), int(steps[1].time))
    scores = reward.score(backbone.decode(nodes).clamp(0, 1), PROMPTS[:1] * 6, times)
    torch.testing.assert_close(values, scores)
    follow = rest[2][0]  # The next step's first candidates come from the best of these.
    best = int(values.argmax())
    assert torch.equal(follow.previous_x0[0], nodes[best])


def test_a_temperature_draws_candidates_in_proportion(backbone):
    """Gumbel noise on v / alpha is a draw from softmax(v / alpha), whatever is compared at a time."""
    value, alpha, number = torch.tensor([0.0, 0.5, 1.0]), 0.7, 6000
    search = Search(3, temperature=alpha)
    streams = [NoiseStream(seed, "p", 0, k) for seed in range(number) for k in range(3)]
    draws = Draws(streams, 0, 0, (1, 1, 1), CPU)
    keys = search.keys(value.repeat(number), torch.zeros(3 * number, dtype=torch.float64), draws)
    share = torch.bincount(keys.view(number, 3).argmax(1), minlength=3) / number
    expected = torch.softmax(value / alpha, 0)
    assert (share - expected).abs().max() < 4 * 0.5 / number**0.5


def test_a_guided_proposal_is_weighed_against_the_kernel():
    search = Search(2, temperature=1.0)
    draws = Draws([NoiseStream(0, "p", 0)] * 2, 0, 0, (1, 1, 1), CPU)
    ratio = torch.tensor([0.0, -3.0], dtype=torch.float64)
    keys = search.keys(torch.tensor([1.0, 1.0]), ratio, draws)
    assert float(keys[0] - keys[1]) == pytest.approx(3.0)


def test_guidance_inside_a_search_evaluates_the_chosen_again_with_its_gradient(backbone, reward):
    objective = Objective(preference=1, semantic=0, semantic_until=1, both_until=1)
    parts = parts_of(backbone, reward, objective=objective)
    parts = replace(parts, judge=replace(parts.judge, value=PosteriorMean(backbone.decode)))
    parts = replace(parts, search=Search(3, probabilities=(1.0,) * (STEPS - 1)))
    (outcome,) = sample(parts, REQUESTS[:1])
    assert outcome.cost.network_forward == STEPS + 3 * (STEPS - 1)
    assert outcome.cost.network_backward == STEPS


def entered(log):
    """By step, from the second on: the candidates' values, their predictions, and those that they come from."""
    found = {}
    for step, state, estimate in log:
        if step.index:
            found.setdefault(step.index, []).append(
                (float(estimate.value), estimate.x0[0], state.previous_x0[0])
            )
    return found


@pytest.mark.parametrize("until", ["above", "better"])
def test_candidates_are_drawn_until_one_is_good_enough(backbone, reward, until):
    """Written apart: the first that is above the bar goes on, or of three the best."""
    rule = {"until": until, "threshold": (8.0,) * (STEPS - 1)}
    parts = svdd_of(backbone, reward, 3, batch_size=1, **rule)
    with watching() as log:
        (made,) = sample(parts, REQUESTS[:1])
    tried, bar, ends = entered(log), float(log[0][2].value), set()
    assert len(tried) == STEPS - 1
    for index, candidates in tried.items():
        values = [value for value, *_ in candidates]
        bar = rule["threshold"][index - 1] if until == "above" else bar
        assert all(value <= bar for value in values[:-1])
        assert values[-1] > bar or len(values) == 3
        ends.add((len(values), values[-1] > bar))
        value, x0, _ = max(candidates, key=lambda one: one[0])
        assert all(torch.equal(x0, parent) for *_, parent in tried.get(index + 1, []))
        bar = value
    assert len(ends) > 1
    number = sum(map(len, tried.values()))
    assert made.info["tries"].split()[:-1] == [str(len(tried[k])) for k in sorted(tried)]
    assert made.cost.network_forward == 1 + number
    assert made.cost.reward_forward == number + (until == "better")


def test_a_bar_that_nothing_or_everything_is_above(backbone, reward):
    """It is the whole search, and plain sampling."""
    bars = {one: (one,) * (STEPS - 1) for one in (-1e9, 1e9)}
    low, high = (
        sample(svdd_of(backbone, reward, 3, until="above", threshold=bar), MANY) for bar in bars.values()
    )
    for found, whole in ((low, plain_of(backbone)), (high, svdd_of(backbone, reward, 3))):
        for one, two in zip(found, sample(whole, MANY), strict=True):
            torch.testing.assert_close(one.picture, two.picture)
            assert one.cost.network_forward == two.cost.network_forward


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_soft_choice_among_guided_candidates_is_weighed_by_the_kernels_ratio(
    backbone, reward, temperature, monkeypatch
):
    """SVDD with another proposal q: a candidate goes on in proportion to exp(v / alpha) p / q."""
    ratios, keys = [], Search.keys

    def watch(self, value, log_ratio, draws):
        ratios.append(log_ratio)
        return keys(self, value, log_ratio, draws)

    monkeypatch.setattr(Search, "keys", watch)
    objective = Objective(preference=1, semantic=0, semantic_until=1, both_until=1)
    guided = parts_of(backbone, reward, objective=objective)
    guided = replace(guided, judge=replace(guided.judge, value=PosteriorMean(backbone.decode)))
    search = Search(3, probabilities=(1.0,) * (STEPS - 1), temperature=temperature)
    sample(replace(guided, search=search), REQUESTS[:1])
    assert bool((torch.cat(ratios) != 0).any()) is (temperature > 0)
    ratios.clear()
    sample(svdd_of(backbone, reward, temperature=temperature), REQUESTS[:1])
    assert not torch.cat(ratios).any()


def test_time_travel_repeats_a_searched_step(backbone, reward):
    parts = replace(svdd_of(backbone, reward, 2), recurrence=Recurrence("fixed", rounds=(1, 1, 1)))
    (outcome,) = sample(parts, REQUESTS[:1])
    # Each step twice, and the state that came back is evaluated again.
    assert outcome.cost.network_forward == 1 + STEPS + 2 * 2 * (STEPS - 1)
    assert outcome.info["rounds"] == STEPS


# ---------------------------------------------------------------- populations


def prune(values, prune, step_index=1, group=None):
    number = len(values)
    group = torch.tensor(group or [0] * number)
    state = State.of(torch.zeros(number, 1, 1, 1), group)

    class Found:
        value = torch.tensor(values)

        def take(self, index):
            return self.value[index]

    step = ddim(SCHEDULE, 5, 1.0).steps[step_index]
    draws = Draws([NoiseStream(k, "p", 0) for k in range(number)], step_index, 0, (1, 1, 1), CPU)
    return prune(state, Found(), step, draws).index.tolist()


def test_the_best_of_each_group_stay_best_first():
    drop = Prune(populations=(2, 2, 1, 1))
    assert prune([1.0, 3.0, 2.0, 9.0, 7.0, 8.0], drop, group=[0, 0, 0, 1, 1, 1]) == [1, 2, 3, 5]


def test_of_equals_the_first_stay_and_what_is_no_number_goes():
    assert prune([torch.nan, 1.0, 1.0, 1.0], Prune(populations=(2, 2, 2, 2))) == [1, 2]


def test_nothing_is_read_where_nothing_is_dropped():
    drop = Prune(populations=(4, 4, 2, 2))
    steps = ddim(SCHEDULE, 5, 1.0).steps
    assert [drop.reads(step) for step in steps] == [False, True, False, True, False]
    assert prune([1.0, 2.0], drop, step_index=2) == [0, 1]


def test_the_worst_are_replaced_by_copies_of_the_others():
    index = prune([5.0, 1.0, 4.0, 0.0], Prune(replace=2))
    assert index[:2] == [0, 2]
    assert set(index[2:]) <= {0, 2}


def copied(rule, value, number):
    """How often each particle of a group is the copy that one of them is replaced by."""
    drawn = []
    for seed in range(number):
        uniforms = Draws([NoiseStream(seed, "p", 0)], 1, 0, (1, 1, 1), CPU).of_group(0, "replace")(1)
        drawn.append(int(rule.replaced(value.double(), uniforms)[-1]))
    return torch.bincount(torch.tensor(drawn), minlength=len(value)) / number


def test_copies_are_drawn_by_the_softmax_of_values():
    """In deviations of the survivors, here 2; as released in the reward's own units."""
    value, number, temperature = [0.0, 2.0, 4.0, -9.0], 4000, 0.8
    for kind, unit in ((Prune, 2.0), (RawPrune, 1.0)):
        share = copied(kind(replace=1, temperature=temperature), torch.tensor(value), number)
        expected = torch.softmax(torch.tensor(value[:3]) / unit / temperature, 0)
        assert (share[:3] - expected).abs().max() < 4 * 0.5 / number**0.5


@pytest.mark.parametrize("unknown", [torch.nan, -torch.inf, torch.inf])
def test_a_value_that_is_not_known_leaves_the_others_their_chances(unknown):
    """Deviations are those of the known values."""
    scores = [-torch.inf, -1.0, 0.0, 1.0]
    value = by_value(torch.tensor([-torch.inf, unknown, 0.0, 30.0, 60.0]))
    number = 3000
    share = copied(Prune(replace=1), value, number)
    assert share[0] == 0  # It was replaced.
    assert (share[1:] - torch.softmax(torch.tensor(scores), 0)).abs().max() < 4 * 0.5 / number**0.5


def test_dsearch_costs_what_its_schedules_say(backbone, reward):
    """Five particles become one; searched steps widen so that each costs w M B."""
    numbers = populations("linear", STEPS, 5, 1)
    parts = svdd_of(backbone, reward, 3)
    parts = replace(parts, select=Prune(numbers), search=replace(parts.search, budget=5))
    outcomes = grouped(parts, reward, Population(5, 1))
    enters = [5, *numbers[:-1]]
    expected = 5 + sum(n * searched_width(3, 1.0, 5, n) for n in enters)
    assert {outcome.cost.network_forward for outcome in outcomes} == {expected}
    assert all(outcome.cost.decoder_forward == expected - 5 + 1 for outcome in outcomes)


def test_groups_of_any_company_give_the_same_pictures(backbone, reward):
    parts = replace(svdd_of(backbone, reward, 2), select=Prune(populations("exponential", STEPS, 4, 2)))
    population = Population(4, 2)
    asked = [replace(request, sample=k) for request in REQUESTS for k in (0, 1)]
    together = grouped(parts, reward, population, asked)
    for request, outcome in zip(asked, together, strict=True):
        assert torch.equal(grouped(parts, reward, population, [request])[0].picture, outcome.picture)
    for one, two in pairwise(together):
        assert not torch.equal(one.picture, two.picture)


def test_a_step_without_search_may_be_free(backbone, reward):
    never = (0.0,) * (STEPS - 1)
    parts = svdd_of(backbone, reward, 4)
    free = replace(parts, search=replace(parts.search, probabilities=never, otherwise="one"))
    assert same(sample(free), sample(plain_of(backbone)))
    assert not reward.counts
    few = replace(parts, search=replace(parts.search, probabilities=never))
    assert same(sample(few), sample(parts))


# ---------------------------------------------------------------- schedules


def test_search_probabilities_are_those_of_the_named_schedules():
    assert search_probabilities("all", 50) == [1.0] * 49
    assert search_probabilities("uniform", 50) == [0.7] * 49
    linear, exponential = (search_probabilities(name, 50) for name in ("linear", "exponential"))
    assert linear[0] == pytest.approx(10 / 49)
    assert [p for p in linear[38:40]] == [pytest.approx(48 / 49), 1.0]
    assert exponential[0] == 0
    assert exponential[48] == pytest.approx(0.947, abs=1e-3)
    assert sum(exponential) == pytest.approx(33, abs=0.7)


@pytest.mark.parametrize("name", ["exponential", "quadratic", "linear", "sigmoid"])
def test_populations_fall_from_all_to_those_wanted(name):
    found = populations(name, 50, 60, 12)
    assert found[0] <= 60
    assert found[-1] == 12
    assert all(one >= two >= 12 for one, two in pairwise(found))
    if name != "sigmoid":
        assert found[0] == 60


@pytest.mark.parametrize(("number", "width"), [(60, 25), (59, 25), (30, 50), (12, 125), (13, 115)])
def test_the_tree_widens_as_the_beam_narrows(number, width):
    assert searched_width(5, 5.0, 60, number) == width
