import json
import math
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from align.sampling.resampling import Resampling, Scheme, ess, normalised, resample

PUBLISHED = json.loads((Path(__file__).parent / "data" / "das_resampling.json").read_text())
SCHEMES = get_args(Scheme)
DRAWS = 20_000
SKEW = (0.05, 0.1, 0.15, 0.7)
INF, NAN = math.inf, math.nan


def recorded(draws):
    """Uniforms that must be asked for in one piece."""

    def uniforms(number):
        assert number == len(draws)
        return torch.tensor(draws, dtype=torch.float64)

    return uniforms


def seeded(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda number: torch.rand(number, generator=generator, dtype=torch.float64)


def constant(value):
    return lambda number: torch.full((number,), value, dtype=torch.float64)


def random_weights(number, seed):
    """Anything from nearly even to nearly one-hot, some exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = (torch.randn(number, generator=generator, dtype=torch.float64) * (seed % 5)).softmax(0)
    dropped = torch.rand(number, generator=generator) < 0.2
    dropped[weights.argmax()] = False
    weights[dropped] = 0
    return weights / weights.sum()


def counts(indices, number):
    return torch.nn.functional.one_hot(torch.stack(indices), number).sum(dim=1).double()


@cache
def offspring(scheme, weights=SKEW):
    """(DRAWS, N) numbers of offspring."""
    given, uniforms = torch.tensor(weights, dtype=torch.float64), seeded(7)
    return counts([resample(scheme, given, uniforms) for _ in range(DRAWS)], len(weights))


def looks_unbiased(drawn, weights):
    """Whether mean offspring lie within 4.5 standard errors of N W."""
    error = drawn.std(dim=0) / len(drawn) ** 0.5
    expected = len(weights) * torch.tensor(weights, dtype=torch.float64)
    return bool(((drawn.mean(dim=0) - expected).abs() <= 4.5 * error + 1e-9).all())


def resampled(scheme, threshold, log_weights, uniforms):
    """What became of one group, and its normalised log-weights."""
    draws = SimpleNamespace(of_group=lambda row, purpose: uniforms)
    came = Resampling(scheme, threshold)(torch.tensor(log_weights, dtype=torch.float64), draws, 0)
    return came, normalised(came.log_weights).tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_published_draw_is_reproduced(scheme):
    cases = [case for case in PUBLISHED["draws"] if case["scheme"] == scheme]
    assert len(cases) == 44
    for case in cases:
        weights = torch.tensor(PUBLISHED["weights"][case["weights"]])
        assert resample(scheme, weights, recorded(case["uniforms"])).tolist() == case["indices"], case


def test_every_resampling_of_the_published_runs_is_reproduced():
    by_trace = defaultdict(list)
    for case in PUBLISHED["traces"]:
        uniforms = recorded(case["uniforms"] or [])
        came, log_weights = resampled(case["scheme"], case["threshold"], case["log_w"], uniforms)
        assert came.happened == (case["uniforms"] is not None), case
        assert came.index.tolist() == case["indices"], case
        assert came.ess == pytest.approx(case["ess"], rel=1e-4)
        assert log_weights == pytest.approx(case["log_w_out"], abs=1e-3)
        by_trace[case["trace"]].append(came.happened)
    assert len(by_trace) == 9
    assert all(any(happened) for happened in by_trace.values())


def test_the_threshold_is_strict_and_none_always_draws():
    for case in PUBLISHED["when_low"]:
        uniforms = constant(case["uniform"])
        came, log_weights = resampled("systematic", case["ess_threshold"], case["log_w"], uniforms)
        assert came.happened == case["is_resampled"], case
        assert came.index.tolist() == case["indices"]
        assert log_weights == pytest.approx(case["log_w_out"], abs=1e-6)


def test_kept_particles_ask_for_no_draws():
    def refuse(number):
        raise AssertionError

    kept, log_weights = resampled("ssp", 1.0, [3.0, 3.0, 3.0], refuse)
    assert kept.index.tolist() == [0, 1, 2]
    assert not kept.happened
    assert kept.log_weights.tolist() == [3.0, 3.0, 3.0]
    assert log_weights == pytest.approx([-math.log(3)] * 3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mean_offspring_are_n_times_the_weight(scheme):
    assert looks_unbiased(offspring(scheme), SKEW)


def fixed_points(weights, uniforms):
    """Systematic points without their random shift."""
    return resample("systematic", weights, constant(0.5))


def first_reached_from_below(weights, uniforms):
    """Last particle whose cumulative weight lies below a point: one place too early."""
    points = (torch.arange(len(weights)) + uniforms(1)) / len(weights)
    return (torch.searchsorted(weights.cumsum(0), points) - 1).clamp(min=0)


def squared_weights(weights, uniforms):
    return resample("ssp", weights.square() / weights.square().sum(), uniforms)


def the_published_residual(weights, uniforms):
    """Its search for leftovers stops at the index that is their number less one."""
    kept = int((len(weights) * weights + 1e-9).floor().sum())
    index = resample("residual", weights, uniforms)
    return torch.cat([index[:kept], index[kept:].clamp(max=len(weights) - kept - 1)])


def test_every_draw_of_the_published_residual_is_explained():
    cases = [case for case in PUBLISHED["draws"] if case["scheme"] == "residual_released"]
    assert len(cases) == 44
    for case in cases:
        weights = torch.tensor(PUBLISHED["weights"][case["weights"]]).double()
        found = the_published_residual(weights, recorded(case["uniforms"]))
        assert found.tolist() == case["indices"], case


@pytest.mark.parametrize(
    "wrong", [fixed_points, first_reached_from_below, squared_weights, the_published_residual]
)
def test_the_same_check_fails_for_a_wrong_resampler(wrong):
    weights, uniforms = torch.tensor(SKEW, dtype=torch.float64), seeded(7)
    drawn = counts([wrong(weights, uniforms) for _ in range(DRAWS // 20)], len(SKEW))
    assert not looks_unbiased(drawn, SKEW)


def variances(scheme):
    """Of offspring, by theory."""
    number, weights = len(SKEW), torch.tensor(SKEW, dtype=torch.float64)
    expected = number * weights
    rest = expected - expected.floor()
    if scheme == "multinomial":
        return expected * (1 - weights)
    if scheme == "residual":
        return rest * (1 - rest / rest.sum())
    if scheme == "stratified":  # A stratum's one draw falls to k with probability N times their overlap.
        ends = weights.cumsum(0) * number
        strata = torch.arange(number, dtype=torch.float64)[:, None]
        overlap = torch.minimum(ends, strata + 1) - torch.maximum(ends - expected, strata)
        return (overlap.clamp(min=0) * (1 - overlap.clamp(min=0))).sum(dim=0)
    return rest * (1 - rest)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_variances_of_offspring_are_those_of_theory(scheme):
    drawn, expected = offspring(scheme), variances(scheme)
    squares = (drawn - drawn.mean(dim=0)).square()
    error = squares.std(dim=0) / DRAWS**0.5
    assert ((squares.mean(dim=0) - expected).abs() <= 4.5 * error + 1e-3).all()


def test_schemes_are_ordered_by_variance():
    spread = {scheme: offspring(scheme).var(dim=0).sum().item() for scheme in SCHEMES}
    assert spread["ssp"] == pytest.approx(spread["systematic"], rel=0.03)
    assert 1.1 * spread["systematic"] < spread["stratified"]
    assert 1.1 * spread["stratified"] < spread["residual"]
    assert 1.1 * spread["residual"] < spread["multinomial"]


def test_ssp_offspring_are_negatively_associated_where_systematic_ones_are_not():
    weights = (0.125, 0.25, 0.125, 0.25, 0.125, 0.125)

    def covariances(scheme, draws=4000):
        given, uniforms = torch.tensor(weights, dtype=torch.float64), seeded(3)
        drawn = counts([resample(scheme, given, uniforms) for _ in range(draws)], len(weights))
        return drawn.T.cov()[tuple(torch.triu_indices(len(weights), len(weights), offset=1))]

    assert covariances("ssp").max() < 4 * 0.25 / 4000**0.5
    assert covariances("systematic").max() > 0.1


@pytest.mark.parametrize("case", PUBLISHED["offspring"], ids=lambda case: case["scheme"])
def test_published_statistics_agree_with_the_theory_tested_here(case):
    """And show what the published residual scheme does."""
    number = len(case["weights"])
    bound = 4.5 * (torch.tensor(case["var_offspring"]) / case["draws"]).sqrt() + 1e-3
    off = (torch.tensor(case["mean_offspring"]) - number * torch.tensor(case["weights"])).abs() > bound
    whole = torch.equal(off, torch.zeros_like(off))
    assert whole or case["scheme"] == "residual"


@pytest.mark.parametrize(
    ("scheme", "most"), [("systematic", 1), ("ssp", 1), ("stratified", 2), ("residual", INF)]
)
def test_offspring_stay_near_what_is_expected(scheme, most):
    """Strictly less than ``most`` away, so floor or ceil where it is 1; residual gives the floor at least."""
    for seed in range(150):
        number = seed % 33 + 1
        weights = random_weights(number, seed)
        drawn = resample(scheme, weights, seeded(seed)).bincount(minlength=number)
        away = drawn - number * weights
        assert away.abs().max() < most + 1e-9
        assert away.min() > -most
        assert scheme == "stratified" or away.min() > -1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_draw_is_n_ancestors_of_positive_weight(scheme):
    for seed in range(60):
        number = seed % 20 + 1
        weights = random_weights(number, seed)
        index = resample(scheme, weights, seeded(seed))
        assert index.dtype == torch.int64
        assert index.shape == (number,)
        assert (weights[index] > 0).all()
        if scheme != "residual":
            assert torch.equal(index, index.sort().values)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53], ids=["lowest", "middle", "highest"])
@pytest.mark.parametrize("weights", [[0.0, 0.5, 0.5, 0.0], [0.0, 0.3, 0.3, 0.4, 0.0, 0.0], [0.1] * 10])
def test_the_ends_of_the_uniforms_choose_no_particle_without_weight(scheme, uniform, weights):
    weights = torch.tensor(weights, dtype=torch.float64)
    index = resample(scheme, weights, constant(uniform))
    assert len(index) == len(weights)
    assert (weights[index] > 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_particle_and_one_with_all_weight(scheme):
    assert resample(scheme, torch.ones(1), seeded(0)).tolist() == [0]
    for place in (0, 2, 4):
        weights = torch.zeros(5)
        weights[place] = 1
        assert resample(scheme, weights, seeded(0)).tolist() == [place] * 5


@pytest.mark.parametrize("scheme", ["systematic", "stratified", "residual", "ssp"])
def test_equal_weights_keep_every_particle(scheme):
    """Though 49 times 1/49 is below 1 in floating point, and so may the sum of rounded weights be."""
    for number in range(1, 65):
        weights = normalised(torch.zeros(number)).exp() * (1 - 1e-5)
        assert resample(scheme, weights, seeded(number)).sort().values.tolist() == list(range(number))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_of_calls_and_precision_of_weights_change_nothing(scheme):
    weights = torch.tensor([0.125, 0.5, 0.25, 0.125])
    once = resample(scheme, weights, seeded(5))
    resample(scheme, weights, seeded(6))
    assert torch.equal(resample(scheme, weights.double(), seeded(5)), once)


@pytest.mark.parametrize(
    "weights",
    [[0.5, NAN], [-0.5, 1.5], [0.5, 0.6], [0.0, 0.0], [INF, 0.0], [], [[0.5, 0.5]]],
    ids=["NaN", "negative", "sum", "zero", "infinite", "empty", "two groups"],
)
def test_weights_that_are_no_probabilities_are_refused(weights):
    with pytest.raises(ValueError, match="no probabilities"):
        resample("ssp", torch.tensor(weights), seeded(0))


@pytest.mark.parametrize("function", [ess, normalised])
@pytest.mark.parametrize(
    "log_weights", [[[0.0, 1.0], [0.0, NAN]], [[-INF, -INF], [0.0, 1.0]], [[0.0, 1.0], [INF, 0.0]]]
)
def test_log_weights_that_leave_a_group_without_weights_are_refused(function, log_weights):
    with pytest.raises(ValueError, match="without weights"):
        function(torch.tensor(log_weights))


@pytest.mark.parametrize("case", PUBLISHED["ess"], ids=lambda case: f"{case['ess']:.3f}")
def test_published_sample_sizes_and_weights(case):
    log_weights = torch.tensor(case["log_w"])
    assert ess(log_weights).item() == pytest.approx(case["ess"], rel=1e-5)
    assert normalised(log_weights).tolist() == pytest.approx(case["log_normalized"], abs=1e-5)
    assert normalised(log_weights).exp().tolist() == pytest.approx(case["normalized_w"], rel=1e-5, abs=1e-40)


def test_ess_counts_equal_particles_exactly():
    for number in range(1, 100):
        assert ess(torch.full((number,), -1e6)).item() == number
    assert ess(torch.tensor([5.0, -INF, 5.0, -INF])).item() == 2


def test_groups_do_not_touch_each_other():
    first, second = torch.tensor([0.0, -1.0, -2.0]), torch.tensor([1e5, 1e5 - 0.5, -INF])
    both = torch.stack([first, second])[:, None]
    assert ess(both).shape == (2, 1)
    assert ess(both).flatten().tolist() == [ess(first).item(), ess(second).item()]
    assert torch.equal(normalised(both)[:, 0], torch.stack([normalised(first), normalised(second)]))
    assert normalised(second)[2] == -INF
