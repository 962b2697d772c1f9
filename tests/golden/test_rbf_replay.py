"""Recorded runs of RBF's published search on a tiny FLUX.1-schnell, through our own loop, fed with its noise.

Where each particle is, round by round, is decided by the rewards alone: it has to be the same throughout.
"""

import math
from functools import cached_property

import pytest
import torch
from fakes import passes

from align.backbones.base import Conditioning
from align.backbones.families.flux import unpacked
from align.processes.sde import preserving, vp_converted
from align.released.rollover import AnyLevel
from align.rewards.base import Reward
from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from align.sampling.parts import Parts
from align.sampling.sampler import Population
from align.sampling.state import Pictures
from align.sampling.values import PosteriorMean

from .flow import CPU, Trace, far, pytest_cases

REWARDS = 5e-5
REST = 1e-4


def pytest_generate_tests(metafunc):
    pytest_cases(metafunc, "rbf_")


@pytest.fixture(scope="module")
def trace(request, golden, tmp_path_factory):
    return Search(golden, request.param, tmp_path_factory.mktemp("rbf"))


class Redness(Reward):
    """Ten times red minus blue."""

    name, differentiable = "redness", False

    def score(self, pictures, prompts, step=None):
        means = pictures.mean(dim=(2, 3))
        return 10 * (means[:, 0] - means[:, 2])


class Recorded:
    """A row's draws: initial states by number, then one a round."""

    def __init__(self, search, row):
        self.search, self.row, self.round = search, row, 0

    def normal(self, purpose, step, round, shape):
        if purpose.startswith("initial"):
            number = int(purpose.rpartition(" ")[2]) if "candidate" in purpose else 0
            return self.search.latents("init/latents")[
                self.row * self.search.settings["init_n_particles"] + number
            ]
        self.round += 1
        return self.search.latents(f"k{self.round - 1:02d}/noise")[self.row]


class Search(Trace):
    """A recorded search: rows of one prompt, each a particle with its half of the evaluations."""

    def latents(self, name):
        return unpacked(self.tensors[name], self.settings["height"] // 16)

    @cached_property
    def process(self):
        config = self.settings
        return vp_converted(
            config["max_steps"],
            config["diffusion_norm"],
            config["diffusion_coefficient"],
            config["time_schedule"],
        )

    @cached_property
    def rows(self):
        return self.settings["batch_size"]

    @cached_property
    def parts(self):
        config, backbone = self.settings, self.backbone
        value = PosteriorMean(backbone.decode)
        plan = AnyLevel(config["max_nfe"] // self.rows, config["init_n_particles"])
        return Parts(
            *passes(backbone, 1.0, self.rows, reward=Redness(), value=value), self.process, rollover=plan
        )

    @cached_property
    def found(self):
        """The state at the end, its cost and, of each row, its evaluations: level, latents, prediction and value."""
        told = [[] for _ in range(self.rows)]
        cond = self.cond()
        given = Conditioning(cond.states, cond.states, cond.pooled, cond.pooled)
        pictures = Pictures(["text"], given, torch.zeros(1, 1, 1), torch.zeros(1, dtype=torch.bool))
        draws = [Recorded(self, row) for row in range(self.rows)]
        state = start(
            lambda picture, row: draws[row],
            1,
            self.rows,
            self.backbone.latent_shape(),
            CPU,
            self.process.initial,
        )
        state.tilt[:] = torch.arange(self.rows)  # who is who, which nothing here reads

        def watch(info):
            of = info.estimate
            for k, row in enumerate(info.state.tilt.tolist()):
                told[int(row)].append((info.step.index, info.state.z[k], of.eps[k], of.x0[k], of.value[k]))

        ledger = Ledger(1)
        with torch.no_grad():
            end = run(self.parts, state, pictures, lambda picture, row: draws[row], ledger, watch)
        return end, ledger.costs[0], told


def test_the_first_states_are_worth_what_was_recorded(trace):
    number = trace.settings["init_n_particles"]
    ours = [one for told in trace.found[2] for one in told[:number]]
    assert far(torch.stack([x0 for *_, x0, _ in ours]), trace.latents("init/x0")) < REST
    velocity = torch.stack([eps - x0 for *_, eps, x0, _ in ours])
    assert far(velocity, trace.latents("init/network_velocity")) < REST
    values = torch.stack([value for *_, value in ours])
    torch.testing.assert_close(values, trace.tensors["init/rewards"], rtol=0, atol=REWARDS)


def test_every_round_every_row_is_where_it_was(trace):
    number, worst = trace.settings["init_n_particles"], 0.0
    rounds = [one for one in trace.facts["iterations"] if not one.get("done")]
    places = [
        math.sqrt(1 - (1 - u) ** 2)
        for u in (1 - k / len(trace.process.steps) for k in range(len(trace.process.steps)))
    ]
    for row, told in enumerate(trace.found[2]):
        assert len(told) == number + len(rounds)
        for k, (facts, (level, z, eps, x0, value)) in enumerate(zip(rounds, told[number:], strict=True)):
            assert 1000 * places[level] == pytest.approx(facts["t"][row], rel=1e-5), k
            assert float(value) == pytest.approx(facts["rewards"][row], abs=REWARDS)
            there = preserving(places[level + 1])
            ours = {
                "latents_next": (there.a + there.b) * z,
                "x0": x0,
                "network_velocity": eps - x0,
            }
            for name, mine in ours.items():
                worst = max(worst, far(mine, trace.latents(f"k{k:02d}/{name}")[row]))
    assert worst < REST


def test_the_picture_is_the_best_last_prediction_of_all_rows(trace):
    end, cost, _ = trace.found
    population = Population(trace.rows, 1, "weight")
    assert population.choose == "weight"
    best = int(end.log_weights.argmax())
    assert far(end.z[best], trace.latents("final/x0")[0]) < REST
    assert float(end.log_weights[best]) == pytest.approx(
        trace.facts["iterations"][-1]["final_reward"], abs=REWARDS
    )
    picture = trace.backbone.decode(end.z[best][None]).clamp(0, 1)
    assert far(picture, trace.tensors["final/image"]) < REST
    first = trace.settings["init_n_particles"] * trace.rows
    assert cost.network_forward == first + trace.facts["evaluations"] * trace.rows
    assert cost.network_forward == cost.decoder_forward == cost.reward_forward
