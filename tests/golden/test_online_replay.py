"""Recorded fits of the released surrogates, and fits with their faults mended, from recorded data and draws.

Slim copies come with the tests; ``--golden DIR`` replays every trace of a folder too.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from align.released.surrogates import ReleasedDraws, ReleasedFit
from align.surrogates.networks import Fit, bonus, hidden, last, root_of

from .filters import Differences, cases
from .replay import parameters

LIMITS = {
    "losses": 4.8e-5,
    "held-out errors": 1e-5,
    "weights": 3.3e-4,
    "covariance": 3.7e-7,
    "hidden": 4.8e-5,
    "heads": 4.8e-5,
    "plain": 4.8e-5,
    "optimistic": 4.8e-5,
    "gradient": 3.7e-5,
    "data": 0.0,
}
MENDED_LIMITS = dict.fromkeys((*LIMITS, "bonus"), 1e-4) | {"weights": LIMITS["weights"]}
"""Computed in float64."""
PLACES = (0, 2, 4, 6, 7)
"""Numbers of the linear layers among the released ones."""


def pytest_generate_tests(metafunc):
    found = cases("online", "*", metafunc.config.getoption("--golden"))
    soon = [name for _, name in found]
    metafunc.parametrize("trace", parameters(found, soon), indirect=True, scope="module")


@pytest.fixture(scope="module")
def trace(request):
    return Trace(*request.param)


class Trace:
    """A recorded experiment."""

    def __init__(self, folder, name):
        self.name = name
        self.tensors = load_file(folder / f"online/{name}.safetensors")
        facts = json.loads((folder / f"online/{name}.json").read_text())
        self.config = facts["config"]
        log = facts["log"]
        self.rounds = log if isinstance(log, list) else log["rounds"]
        self.heads = self.config["heads"] or 1
        self.mended = "bonus" in self.config

    def get(self, key):
        return self.tensors.get(key)

    def layers(self, prefix):
        """Our form of recorded weights; None where there are none."""
        made = []
        for place in PLACES:
            heads = [f"models.{head}." for head in range(self.heads)] if self.heads > 1 else [""]
            keys = [f"{prefix}.{head}layers.{place}" for head in heads]
            if f"{keys[0]}.weight" not in self.tensors:
                return None
            made.append(torch.stack([self.tensors[f"{key}.weight"] for key in keys]))
            made.append(torch.stack([self.tensors[f"{key}.bias"][None] for key in keys]))
        return made


class Recorded(ReleasedDraws):
    """A round's draws."""

    def __init__(self, trace, round_):
        self.own = {
            key.removeprefix(f"round{round_}."): value
            for key, value in trace.tensors.items()
            if key.startswith(f"round{round_}.")
        }

    def split(self, rows, share):
        return self.own["rows"], self.own["held_out"]

    def order(self, epoch, rows):
        return self.own["order"][epoch]

    def resampled(self, heads, rows):
        return self.own["bootstrap" if "bootstrap" in self.own else "bootstrap_train"]

    def judged(self, heads, rows):
        return self.own["bootstrap_valid"]

    def kept(self, step, place, shape, share):
        calls = range(3 * shape[0] * step + place, 3 * shape[0] * (step + 1), 3)
        return torch.stack([self.own[f"dropout{number}"] for number in calls])

    def gradient_noise(self, step, like):
        drawn = [self.own[f"gradient_noise.{step * len(like) + place}"] for place in range(len(like))]
        return [one.view(other.shape) for one, other in zip(drawn, like, strict=True)]


def data_of(trace, round_, before):
    """Features and values after a round's query: noise is added, and what is not finite is left out."""
    new, clean = trace.get(f"round{round_}.x_new"), trace.get(f"round{round_}.y_clean")
    if new is None:
        return trace.get(f"round{round_}.x"), trace.get(f"round{round_}.y")[:, 0]
    asked = (clean + trace.config["feedback_noise"] * trace.get(f"round{round_}.feedback_noise"))[:, 0]
    there = asked.isfinite()
    return torch.cat([before[0], new[there]]), torch.cat([before[1], asked[there]])


def test_every_fit_and_every_value_is_the_recorded_one(trace):
    config, differences = trace.config, Differences(trace)
    kind = Fit if trace.mended else ReleasedFit
    fit = kind(
        config["epochs"],
        config["batch"],
        config["learning_rate"],
        config["held_out"],
        config["gradient_noise"] or 0.0,
    )
    start = trace.layers("start" if trace.heads > 1 else "base")
    data = torch.empty(0, config["widths"][0]), torch.empty(0)
    layers = start
    for number, told in enumerate(trace.rounds):
        at = f"round{number}"
        data = features, targets = data_of(trace, number, data)
        differences.add("data", features, f"{at}.x")
        differences.add("data", targets[:, None], f"{at}.y")
        # The released bootstrap goes on from the previous round's weights.
        first = layers if trace.heads > 1 and not trace.mended else start
        fitted = fit(first, features, targets, Recorded(trace, number))
        layers = fitted.layers
        differences.add("losses", fitted.losses, f"{at}.batch_losses")
        differences.add("held-out errors", fitted.errors, f"{at}.valid_mae")
        best = min(range(len(fitted.errors)), key=lambda epoch: (fitted.errors[epoch], -epoch))
        assert best == told["best_epoch"]
        for ours, recorded in zip(
            layers, trace.layers(f"{at}.{'best' if trace.mended else 'end'}"), strict=True
        ):
            worst = float((ours - recorded).abs().max())
            differences.worst["weights"] = max(worst, differences.worst.get("weights", 0.0))
        compare_values(trace, at, layers, features, differences)
    assert not differences.beyond(MENDED_LIMITS if trace.mended else LIMITS)


def compare_values(trace, at, layers, features, differences):
    config = trace.config
    probe = trace.get("probe").clone().requires_grad_()
    found = hidden(layers, F.normalize(probe, dim=-1))
    heads = last(layers, found)
    optimistic = heads.max(0).values
    if config["alpha"] is not None:
        known = hidden(layers, features)[0]
        roots = {rule: root_of(known, config["ridge"], rule) for rule in ("gram", "covariance")}
        bonuses = {
            rule: bonus(found[0], root, config["alpha"], config["bonus_limit"])
            for rule, root in roots.items()
        }
        optimistic = heads[0] + bonuses["gram" if trace.mended else "covariance"]
        for rule, one in bonuses.items():
            differences.add("bonus", one.detach(), f"{at}.bonus_{rule}")
        differences.add("covariance", torch.cov(known.T), f"{at}.covariance")
    (gradient,) = torch.autograd.grad(optimistic.sum(), probe)
    differences.add("hidden", found[0].detach(), f"{at}.hidden")
    differences.add("heads", heads.detach().T, f"{at}.heads")
    differences.add("plain", heads.mean(0).detach(), f"{at}.plain")
    differences.add("optimistic", optimistic.detach(), f"{at}.optimistic")
    differences.add("gradient", gradient, f"{at}.optimistic_grad")
