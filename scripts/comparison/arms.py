"""What ``scripts/compare.py`` compares: methods at budgets, the settings that it tries, the runs whose diversity is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ETA_0 = "sampler.eta=0"


@dataclass(frozen=True)
class Arm:
    """One method at one budget.

    Attributes:
        name: of the method in tables.
        budget: network evaluations a picture, about; 0 for the plain baselines.
        options: of the command line.
    """

    name: str
    budget: int
    options: tuple[str, ...]

    @property
    def label(self) -> str:
        """Of its folder and rows."""
        return f"{self.name}_{self.budget}" if self.budget else self.name


# What decides how hard a method follows the reward; chosen by the reward that is followed, on validation prompts (tune).
FK = "method.steering.rate=1"
SMC = "method.tempering.alpha=0.1"
DAS = ("method.tempering.alpha=0.1", "method.guidance.coefficient=0.1")
DYMO_SMC = ("method.tempering.alpha=0.1", "method.guidance.strength=0.03")
DIVERSITY = ("prompts.limit=12", "samples=4")
"""Of the runs whose diversity is measured: at the smallest budget, several pictures of each of fewer prompts."""


@dataclass(frozen=True)
class Comparison:
    """Arms that are compared with each other: a run's folder, a part of the page.

    Attributes:
        arms: of which those without a budget are the plain baselines.
        options: of all of them, beside the experiment.
        base: label of the arm that all are compared with.
        titles: of the table of a budget, where it is none of network evaluations.
        figure: file of the figure beside the page, if there is one.
        diversity: whether that of the smallest budget is measured too.
        seeds: every picture is made with the noise of each of them.
    """

    name: str
    arms: tuple[Arm, ...]
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    base: str = "none"
    titles: Mapping[int, str] = field(default_factory=dict)
    figure: str | None = None
    diversity: bool = False

    def title(self, budget: int) -> str:
        return self.titles.get(budget, f"About {budget} network evaluations a picture")

    @property
    def folder(self) -> Path:
        return Path("outputs/shapes_compare") / self.name

    def of_seed(self, seed: int) -> Path:
        """Where the runs of a seed are."""
        return self.folder / f"seed{seed}" if seed else self.folder

    @property
    def several(self) -> tuple[Arm, ...]:
        """The smallest budget's arms and plain sampling, whose diversity is measured."""
        least = min(arm.budget for arm in self.arms if arm.budget)
        return tuple(arm for arm in self.arms if arm.budget in (0, least)) if self.diversity else ()


def arms() -> list[Arm]:
    """All of them; with 15 steps a particle costs 15 evaluations, not quite twice that with backward passes."""
    found = [
        Arm("none", 0, ("method=none",)),
        Arm("none_eta0", 0, ("method=none", ETA_0)),
    ]
    # Particles without gradients and with; candidates of SVDD; particles and candidates of DSearch and of DSearch-R.
    for budget, plain, guided, candidates, start, tree, several, each in (
        (60, 4, 2, 4, 2, 2, 2, 2),
        (120, 8, 4, 8, 4, 2, 4, 2),
    ):
        found += [
            Arm("best_of_n", budget, ("method=best_of_n", f"method.particles={plain}")),
            Arm("svdd", budget, ("method=svdd", f"method.search.candidates={candidates}")),
            Arm(
                "dsearch",
                budget,
                ("method=dsearch", f"method.particles={start}", f"method.search.candidates={tree}"),
            ),
            Arm(
                "dsearch_r",
                budget,
                (
                    "method=dsearch_r",
                    f"method.particles={several}",
                    "method.returned=1",
                    "method.choose=best",
                    f"method.search.replace={1 / several}",
                    f"method.search.candidates={each}",
                ),
            ),
            Arm("fk", budget, ("method=fk", f"method.particles={plain}", FK)),
            Arm("smc", budget, ("method=smc", f"method.particles={plain}", SMC)),
            Arm("das", budget, ("method=das", f"method.particles={guided}", *DAS)),
            Arm("dymo_smc", budget, ("method=dymo_smc", f"method.particles={guided}", *DYMO_SMC)),
            Arm("dymo", budget, ("method=dymo", f"method.particles={guided}", "method.choose=best", ETA_0)),
            Arm(
                "freedom",
                budget,
                # It repeats some steps, and so takes fewer.
                ("method=freedom", f"method.particles={guided}", "method.choose=best", "sampler.steps=11"),
            ),
        ]
    return found


def tuned() -> list[Arm]:
    """What ``tune`` tries, at the larger budget."""
    found = [Arm("none", 0, ("method=none",))]
    for rate in (0.5, 1, 2, 4):
        found.append(
            Arm(f"fk_rate{rate}", 180, ("method=fk", "method.particles=12", f"method.steering.rate={rate}"))
        )
    for alpha in (0.1, 0.25, 0.5, 1, 2):
        scale = f"method.tempering.alpha={alpha}"
        found.append(Arm(f"smc_alpha{alpha}", 180, ("method=smc", "method.particles=12", scale)))
    # The coefficient: how much of the target's tilt the proposals take on; weights correct for the rest.
    for alpha, coefficient in ((0.1, 0.03), (0.1, 0.1), (0.25, 1), (0.5, 1), (1, 1)):
        options = (f"method.tempering.alpha={alpha}", f"method.guidance.coefficient={coefficient}")
        name = f"das_alpha{alpha}_coefficient{coefficient}"
        found.append(Arm(name, 180, ("method=das", "method.particles=7", *options)))
    for strength in (0.03, 0.1):
        options = ("method.tempering.alpha=0.1", f"method.guidance.strength={strength}")
        found.append(
            Arm(f"dymo_smc_strength{strength}", 180, ("method=dymo_smc", "method.particles=7", *options))
        )
    return found


def on_flow() -> list[Arm]:
    """The smaller budget, what spends a budget of its own, and DyMO on the process that the others have."""
    return [arm for arm in arms() if arm.budget in (0, 60)] + [
        Arm("rbf", 60, ("method=rbf", "method.rollover.budget=60", "method.rollover.first=6")),
        Arm("dymo_noise", 60, ("method=dymo", "method.particles=2", "method.choose=best", "sampler.eta=1")),
    ]


def wrapped() -> list[Arm]:
    """What makes whole samplings again and again, 16 of 10 deterministic steps each, and what it competes with.

    An iteration of ``dno`` makes the network's evaluations twice and walks back through them.
    """
    return [
        Arm("none", 0, ("method=none",)),
        Arm("best_of_n", 160, ("method=best_of_n", "method.particles=16")),
        Arm("dymo", 160, ("method=dymo", "method.particles=8", "method.choose=best")),
        Arm("noise_search", 160, ("method=noise_search",)),
        Arm("evosearch", 160, ("method=evosearch",)),
        Arm("dno", 160, ("method=dno", "method.noise_gradient.iterations=5")),
        Arm("promptopt", 160, ("method=promptopt",)),
    ]


def distilled() -> list[Arm]:
    """On the student of few steps: 16 samplings of 4, and 31 of one, by the options of each arm."""
    four = ("sampler=turbo_shapes", "sampler.steps=4")
    one = ("sampler=turbo_shapes_1", "sampler.steps=1")
    return [
        Arm("none", 0, ("method=none", *four)),
        Arm("none_1step", 0, ("method=none", *one)),
        Arm("best_of_n", 64, ("method=best_of_n", "method.particles=16", *four)),
        Arm("noise_search", 64, ("method=noise_search", *four)),
        Arm("reno", 64, ("method=reno", "method.noise_gradient.iterations=7", *four)),
        Arm("dno", 64, ("method=dno", "method.noise_gradient.iterations=7", *four)),
        Arm("promptopt", 64, ("method=promptopt", *four)),
        Arm("best_of_n", 31, ("method=best_of_n", "method.particles=31", *one)),
        Arm("noise_search", 31, ("method=noise_search", "method.noise_search.rounds=6", *one)),
        Arm("reno", 31, ("method=reno", "method.noise_gradient.iterations=14", *one)),
        Arm("dno", 31, ("method=dno", "method.noise_gradient.iterations=14", *one)),
    ]


SHORT = ("sampler.steps=6", "guider=cfg_interval")
"""4.5 evaluations a sampling: see docs/methods.md."""
SEVEN = "sampler.steps=7"
"""The number of steps at which best-of-N chooses the best picture for a given cost, on validation prompts of either model."""
CALLS, SECONDS = 57, 87
LEADING = {
    CALLS: "At equal calls of the network",
    SECONDS: "At equal seconds or more, decodings and scores included",
}


def leading(own: tuple[str, ...], usual: tuple[str, ...], of_seconds: tuple[int, int]) -> tuple[Arm, ...]:
    """Local search, and best-of-N as good as it gets: at its best number of steps, and with local search's own sampler.

    own: sampler of local search; usual: of the usual best-of-N; of_seconds: N of the usual and with the own sampler in the second
    table, so large that a picture takes at least as many seconds, decodings and scores included, of which local search has 26.
    """
    found = [Arm("local_search", 0, ("method=local_search", *own))]
    for budget, (seven, many) in ((CALLS, (8, 13)), (SECONDS, of_seconds)):
        found.append(Arm("best_of_n", budget, ("method=best_of_n", f"method.particles={seven}", *usual)))
        found.append(Arm("best_of_n_short", budget, ("method=best_of_n", f"method.particles={many}", *own)))
    return tuple(found)


def leading_distilled() -> tuple[Arm, ...]:
    """The same on the student of few steps, none of which is cheaper than another, against best-of-N of four steps and of three."""
    four = ("sampler=turbo_shapes", "sampler.steps=4")
    three = ("sampler=turbo_shapes", "sampler.steps=3", "sampler.timesteps=[599,449,299]")
    return (
        Arm("local_search", 0, ("method=local_search", *four)),
        Arm("best_of_n", CALLS, ("method=best_of_n", "method.particles=14", *four)),
        Arm("best_of_n_3steps", CALLS, ("method=best_of_n", "method.particles=19", *three)),
    )


def compare_leading(
    name: str, arms: tuple[Arm, ...], *options: str, seeds: tuple[int, ...] = (0, 1, 2)
) -> Comparison:
    """With local search, on all test prompts and with the noise of each of the seeds."""
    whole = ("prompts=shapes_pair_400", "prompts.limit=null", *options)
    return Comparison(name, arms, whole, seeds, base="local_search", titles=LEADING)


COMPARISONS = {
    one.name: one
    for one in (
        Comparison("unet", tuple(arms()), figure="compare.svg", diversity=True),
        Comparison("flow", tuple(on_flow()), ("backbone=shapes_flow", "sampler=flow_ancestral")),
        Comparison("wrapped", tuple(wrapped()), ("sampler=ddim", "sampler.steps=10", "prompts.limit=50")),
        Comparison("turbo", tuple(distilled()), ("backbone=shapes_turbo",)),
        compare_leading("leading", leading(("sampler=short_6", *SHORT), ("sampler=ddim", SEVEN), (12, 19))),
        compare_leading(
            "leading_flow", leading(SHORT, (SEVEN,), (11, 16)), "backbone=shapes_flow", "sampler=flow"
        ),
        compare_leading("leading_turbo", leading_distilled(), "backbone=shapes_turbo", seeds=(0,)),
    )
}
