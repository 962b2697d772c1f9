"""The run commands of DSearch's README resolve to its numbers."""

from dataclasses import dataclass

import numpy as np
import pytest

from align.config.places import conf_folder
from align.runner.estimate import network_evaluations
from align.runner.prompts import load_prompts
from align.runner.searching import searching
from align.sampling.schedules import searched_width

from .test_conf_files import compose


@dataclass
class Command:
    """What the released program makes of a command."""

    particles: int
    returned: int
    candidates: int
    widen: float
    schedule: str
    drop: str
    replaced: int
    pictures: int
    widths: tuple[int, int]
    """Candidates of a particle at a searched step, at the start and in the end."""
    searched: int
    """Searched steps of all batches by the coins of seed 42."""
    evaluations: int
    """Candidates in all by those."""
    reward: str


COMMANDS = {
    "dsearch_compress": Command(
        60, 12, 5, 5, "exponential", "exponential", 0, 12, (25, 125), 37, 57_696, "jpeg_compressibility"
    ),
    "dsearch_r_compress": Command(
        34, 34, 5, 5, "exponential", "none", 1, 204, (25, 25), 197, 183_940, "jpeg_compressibility"
    ),
    "svdd_compress": Command(1, 1, 20, 1, "all", "none", 0, 12, (20, 20), 49, 11_760, "jpeg_compressibility"),
    "dsearch_aesthetic": Command(
        60, 12, 5, 5, "exponential", "exponential", 0, 12, (25, 125), 37, 57_696, "aesthetic"
    ),
    "dsearch_hps": Command(60, 12, 5, 6, "exponential", "exponential", 0, 12, (30, 150), 37, 68_877, "hpsv2"),
}
BATCHES = {"svdd_compress": 1, "dsearch_r_compress": 6}
SELECTING = 49


@pytest.fixture(params=COMMANDS)
def named(request):
    return request.param, COMMANDS[request.param], compose(f"experiment={request.param}")


def test_options_are_those_of_the_command(named):
    _, command, config = named
    method = config.method
    assert (method.particles, method.returned) == (command.particles, command.returned)
    assert (method.search.candidates, method.search.widen) == (command.candidates, command.widen)
    assert (method.search.schedule, method.search.drop) == (command.schedule, command.drop)
    assert method.search.temperature == 0
    assert method.search.otherwise == "few"
    assert searching(config).replaced == command.replaced
    if command.replaced:
        assert (method.search.replace_temperature, method.quirks) == (1, ("raw_values",))
    assert config.reward.label == command.reward
    assert command.reward in config.metrics.rewards
    assert (config.sampler.steps, config.sampler.eta, config.sampler.guidance_scale) == (50, 1, 7.5)
    assert (config.backbone.name, config.backbone.height, config.backbone.width) == ("sd15", 512, 512)
    assert (config.backbone.dtype, config.seed) == ("float32", 42)


def test_it_makes_as_many_pictures_in_whole_groups(named):
    _, command, config = named
    assert config.samples * len(load_prompts(config.prompts).prompts) == command.pictures
    assert config.samples % config.method.returned == 0
    assert (config.run.in_flight or 0) % config.method.returned == 0


def test_candidates_and_populations_are_those_of_the_schedules(named):
    _, command, config = named
    plan = searching(config)
    search = config.method.search
    start = searched_width(search.candidates, search.widen, plan.budget, command.particles)
    end = searched_width(search.candidates, search.widen, plan.budget, command.returned)
    assert (start, end) == command.widths
    if plan.populations:
        assert (plan.populations[0], plan.populations[-1]) == (60, 12)
    else:
        assert command.drop == "none"


def test_by_the_released_coins_it_costs_what_the_release_did(named):
    """One generator for all batches, a coin a step: seed 42 decides which steps are searched."""
    name, command, config = named
    plan, search = searching(config), config.method.search
    chance = np.array(plan.probabilities)
    batches = BATCHES.get(name, 1)
    searched = np.random.RandomState(42).random_sample((batches, SELECTING)) < chance
    assert searched.sum() == command.searched
    groups = command.pictures // command.returned // batches
    total = 0
    for batch in searched:
        number = command.particles
        for step, looks in enumerate(batch):
            width = searched_width(search.candidates, search.widen, plan.budget, number)
            total += groups * number * (width if looks else search.candidates)
            if plan.populations:
                number = plan.populations[step]
    assert total == command.evaluations


def test_the_estimate_includes_it(named):
    _, command, config = named
    least, most = network_evaluations(config)
    own = (command.evaluations + command.particles * command.pictures / command.returned) / command.pictures
    assert least <= own <= most
    if command.schedule == "all":
        assert least == own == most


def test_each_tells_its_command_and_what_differs(named):
    name, _, _ = named
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text()
    assert f"\n# python -m align experiment={name}\n" in text
    assert "\n# Cost: " in text
