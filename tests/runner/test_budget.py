"""A budget is spent by what the method itself costs: in the ledger's calls, and in seconds of a clock that the test keeps."""

import pytest
from fakes import CPU, SCHEDULE, FakeBackbone, FakeReward, words_graph

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.runner.calibrate import measured
from align.runner.dry_run import Price, calls_of_a_picture, seconds_of_a_picture
from align.runner.spending import apportioned, plan_told, planned
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

REQUESTS = [
    Request("red cat blue dog", seed=5),
    Request("blue dog", seed=5),
    Request("a quiet morning", seed=5),
]
ANCESTRAL = ("sampler=ddim_ancestral",)
SPENDERS = {
    "none": ("sampler.steps=8",),
    "best_of_n": ("sampler.steps=8",),
    "fk": (*ANCESTRAL, "sampler.steps=8"),
    "svdd": (*ANCESTRAL, "sampler.steps=8"),
    "local_search": ("sampler.steps=8",),
    "noise_search": ("sampler.steps=8",),
}


def config_of(*options):
    return jobs_of(parse(list(options)))[0].config


def anything(config):
    """Is possible."""


class Clock:
    """Time that goes by in calls alone, so much in each and so much for each of its rows."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def takes(self, call, row, rows):
        self.now += call + row * rows


class SlowBackbone(FakeBackbone):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def predict(self, z, step, conditioning, guider, *rest, **more):
        self.clock.takes(0.06, 0.03, len(z))
        return super().predict(z, step, conditioning, guider, *rest, **more)

    def decode(self, z0):
        self.clock.takes(0.015, 0.012, len(z0))
        return super().decode(z0)


class SlowReward(FakeReward):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def score(self, pictures, prompts, step=None):
        self.clock.takes(0.003, 0.009, len(pictures))
        return super().score(pictures, prompts, step)


def on_fakes(config, clock, calls):
    return build.assemble(
        config, SlowBackbone(clock), SlowReward(clock), PromptGraphs(words_graph).pairs, calls, CPU
    )


@pytest.mark.parametrize("method", SPENDERS)
def test_seconds_that_were_promised_are_those_that_a_picture_takes(method):
    clock, calls = Clock(), Calls(8, len(REQUESTS))
    config = config_of(f"method={method}", *SPENDERS[method], "budget.seconds=2")
    prices = measured(on_fakes(config, clock, calls), config.method, REQUESTS[0], clock)

    def seconds(one):
        return seconds_of_a_picture(one, SCHEDULE, calls, prices, len(REQUESTS))

    plan = planned(config, seconds, anything)
    began = clock.now
    on_fakes(plan, clock, calls).sample(REQUESTS)
    took = (clock.now - began) / len(REQUESTS)
    assert took == pytest.approx(seconds(plan), rel=1e-3)
    assert took == pytest.approx(2, rel=0.1)


class Unsteady(Clock):
    """Half as fast again for its first calls."""

    def __init__(self, slow=0):
        super().__init__()
        self.slow, self.taken = slow, 0

    def takes(self, call, row, rows):
        share = 1.5 if self.taken < self.slow else 1.0
        self.taken += 1
        super().takes(share * call, share * row, rows)


def test_a_slow_while_of_the_machine_moves_no_price():
    config, steady = config_of("method=svdd", *SPENDERS["svdd"], "budget.seconds=2"), Unsteady()

    def prices(clock):
        return measured(on_fakes(config, clock, Calls(8)), config.method, REQUESTS[0], clock)

    expected = prices(steady)
    unsteady = Unsteady(slow=steady.taken // 5)
    found = prices(unsteady)
    assert {what: price.rows for what, price in found.items()} == {
        what: price.rows for what, price in expected.items()
    }
    for what, price in expected.items():
        assert found[what].seconds == pytest.approx(price.seconds, rel=1e-6)


@pytest.mark.parametrize("method", SPENDERS)
def test_calls_that_were_promised_are_those_of_the_ledger(method):
    config = config_of(f"method={method}", *SPENDERS[method], "budget.calls=60")
    plan = planned(config, lambda one: calls_of_a_picture(one, SCHEDULE).network_forward, anything)
    (made,) = on_fakes(plan, Clock(), Calls(4)).sample(REQUESTS[:1])
    assert 54 <= made.cost.network_forward <= 60
    assert made.cost == calls_of_a_picture(plan, SCHEDULE)
    assert "=" in plan_told(plan)


def test_a_price_lies_between_and_beyond_what_was_measured():
    price = Price((1, 2, 8), (1.0, 3.0, 9.0))
    assert [price(rows) for rows in (0.5, 1, 1.5, 5, 8, 10)] == [0, 1, 2, 6, 9, 11]
    assert Price(seconds=(4.0,))(7) == 4


def test_proportions_are_kept_and_no_part_shrinks():
    assert apportioned(26, (5, 7, 6, 8)) == (5, 7, 6, 8)
    assert apportioned(52, (5, 7, 6, 8)) == (10, 14, 12, 16)
    before = apportioned(4, (5, 7, 6, 8))
    assert before == (1, 1, 1, 1)
    for number in range(5, 60):
        parts = apportioned(number, (5, 7, 6, 8))
        assert sum(parts) == number
        assert all(now >= was for now, was in zip(parts, before, strict=True))
        before = parts


def costing(per_evaluation):
    return lambda config: per_evaluation * config.sampler.steps * config.method.particles


def test_what_particles_leave_over_goes_to_steps_unless_only_they_may_grow():
    whole = planned(config_of("method=best_of_n", "budget.seconds=2"), costing(0.03), anything)
    assert (whole.method.particles, whole.sampler.steps) == (2, 33)
    alone = config_of("method=best_of_n", "budget.seconds=2", "budget.spend=particles")
    assert (
        plan_told(planned(alone, costing(0.03), anything)) == "method.particles=3"
    )  # 2.25 is nearer than 1.5
    calls = config_of("method=best_of_n", "budget.calls=74", "budget.spend=particles")
    assert planned(calls, costing(1), anything).method.particles == 2  # never more than that


def test_steps_of_a_distilled_network_stay():
    config = config_of("method=best_of_n", "backbone=shapes_turbo", "budget.calls=18")
    assert (
        plan_told(planned(config, costing(1), anything)) == f"method.particles={18 // config.sampler.steps}"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["budget.calls=9", "budget.seconds=2"], "give one of them"),
        (["budget.spend=steps"], "is not read without a budget"),
        (["budget.seconds=2", "budget.weights.decoder_forward=1"], "seconds are measured"),
        (["budget.calls=9", "budget.weights.decodings=1"], "names: decoder_backward"),
        (["budget.calls=9", "budget.spend=particles"], "does not choose among particles"),
        (["budget.calls=9", "budget.spend=candidates"], "compares no states"),
        (["method=local_search", "budget.calls=90", "budget.spend=particles"], "whole samplings"),
        (["method=promptist", "budget.calls=90"], "nothing to spend"),
        (["budget.seconds=2", "runner=ray"], "give budget.calls"),
        (["method=local_search", "budget.calls=9"], "the least"),
        (
            ["backbone=shapes_turbo", "sampler.timesteps=[999,749,499,249]", "budget.calls=9"],
            "sampler.timesteps",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else one[-1],
)
def test_a_budget_that_cannot_be_is_refused_in_a_line(options, said, capsys, tmp_path):
    assert main([*options, f"run.root={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "budget" in line
    assert said in line
    assert not any(tmp_path.iterdir())


def test_a_folder_keeps_its_plan_whatever_the_clock_says_later(tmp_path, monkeypatch, capsys):
    from align.analysis.arms import read_rows

    prices = iter([Price((1, 2), (0.1, 0.2)), Price((1, 2), (0.4, 0.8))])
    monkeypatch.setattr("align.runner.calibrate.measured", lambda *_: {"network_forward": next(prices)})
    command = [
        "method=best_of_n", "sampler.steps=2", "budget.seconds=0.6", "budget.spend=particles", "metrics=none",
        'prompts.text=["a red circle"]', "prompts=text", f"run.folder={tmp_path / 'run'}", "run.gallery=false",
    ]  # fmt: skip
    assert main(command) == 0
    assert "0.6 seconds a picture: method.particles=3, which takes 0.6 seconds" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "run").to_dict("records")
    assert row["info_budget"] == "method.particles=3 for 0.6 seconds"
    assert row["network_forward"] == 6
    assert main([*command[:-3], 'prompts.text=["a red circle", "a blue star"]', *command[-3:]]) == 0
    assert "method.particles=3, as its folder says" in capsys.readouterr().out
    assert len(read_rows(tmp_path / "run")) == 2
