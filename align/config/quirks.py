"""Faults of published programs that ``method.quirks`` brings back, for comparison with what those programs did.

Each is a part of its own in ``align/released``, put in place of the right one when a method is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.method import MethodConfig, QuirkName


@dataclass(frozen=True)
class Quirk:
    """A fault: whose program has it, what it does, the module that has it, and what it is a fault of.

    ``give`` is the option that gives a method this part, ``read`` whether a method has it.
    """

    of: str
    what: str
    where: str
    part: str
    give: str
    read: Callable[[MethodConfig], bool]


_STEERING = ("Feynman-Kac steering", "method.steering.potential=max", attrgetter("steers"))
_TEMPERING = ("tempered weights", "method.tempering.rule=schedule", attrgetter("tempers"))

_NOISE = ("optimised noise", "method.noise_gradient.iterations=10", attrgetter("follows_noise"))

QUIRKS: dict[QuirkName, Quirk] = {
    "sign_blind": Quirk(
        "DyMO",
        "L_R is the norm -sqrt(sum s^2) of the views' scores, which raises a negative score's size",
        "align/released/objective.py",
        "the preference loss",
        "method.objective.preference=1 and a rule of method.guidance",
        lambda method: method.reward_needs_gradient,
    ),
    "raw_values": Quirk(
        "DSearch-R",
        "copies are drawn by exp(v/temperature) in raw reward units instead of deviations of the group",
        "align/released/search.py",
        "replacing particles",
        "method.search.replace=0.25",
        lambda method: method.search.replace > 0,
    ),
    "steered_children": Quirk(
        "FK steering",
        "the children of a step are resampled by their parents' values, so that copies begin the next at the same latents",
        "align/sampling/loop.py",
        *_STEERING,
    ),
    "forgetful_weights": Quirk(
        "FK steering",
        "weights are clamped at 1e10 and forgotten where nothing is resampled, values below 0 are alike under max, and the "
        "last prediction counts instead of the finished picture",
        "align/released/particles.py",
        *_STEERING,
    ),
    "stale_gradients": Quirk(
        "DAS",
        "gradients and twists stay where they are when their particles are resampled",
        "align/released/particles.py",
        *_TEMPERING,
    ),
    "published_ladder": Quirk(
        "DAS",
        "lambda is searched for with Adam, which does not leave 0; the polynomial's next rung lacks its exponent, and the "
        "last proposal the final temperature",
        "align/released/tempering.py",
        *_TEMPERING,
    ),
    "lcm_variances": Quirk(
        "DAS",
        "a consistency model's guidance, noise and weights have different variances (sampler.eta), and its last step but "
        "one is not guided; other models have no such fault",
        "align/released/lcm.py",
        *_TEMPERING,
    ),
    "any_level": Quirk(
        "RBF",
        "a candidate has to beat the best of all levels, the first states' luck included; levels have less than their share, the last "
        "that proposes the rest; the last evaluation is not made",
        "align/released/rollover.py",
        "spending a budget level by level",
        "method.rollover.budget=100",
        attrgetter("rolls"),
    ),
    "lost_gradient": Quirk(
        "DNO",
        "nothing goes back through the network: the gradient is the decoder's, times a number for each step",
        "align/released/noise_gradient.py",
        *_NOISE,
    ),
    "last_iterate": Quirk(
        "DNO",
        "the last picture is kept, however good others were, and the noise after the last update is not sampled",
        "align/strategies/noise_gradient.py",
        *_NOISE,
    ),
    "idle_noise": Quirk(
        "DNO",
        "weight decay shrinks noise too that no gradient reaches, and the penalty reads the last step's where that draws none",
        "align/strategies/noise_gradient.py",
        *_NOISE,
    ),
    "shared_noise": Quirk(
        "ReNO",
        "the noise of steps depends on the seed alone: every prompt and picture has the same",
        "align/released/noise_gradient.py",
        *_NOISE,
    ),
    "forgetful_pivot": Quirk(
        "tt-scale-flux",
        "a round of zero-order search without a better neighbour is followed by one around fresh noise, and each makes its pivot again",
        "align/released/noise_search.py",
        "searching around the best noise",
        "method.noise_search.rounds=3 and propose=neighbours",
        lambda method: method.noise_search.rounds > 0 and method.noise_search.propose == "neighbours",
    ),
}


def check_quirks(method: MethodConfig) -> None:
    """Refuse a quirk that is there twice, or of a part that the method has not. Raises ConfigError."""
    for name in method.quirks:
        quirk = QUIRKS[name]
        if method.quirks.count(name) > 1:
            raise ConfigError(f"method.quirks={shown(list(method.quirks))} has {name} twice: give it once")
        if not quirk.read(method):
            raise ConfigError(
                f"method.quirks: {name} is a fault of {quirk.part}, which method={method.name} has not: "
                f"give {quirk.give}, or leave it out"
            )
