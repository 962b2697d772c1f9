"""The table of parts is what is built, for every method that there is."""

from functools import partial
from importlib import import_module

import pytest
from fakes import CPU, FakeBackbone, FakeReward

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.convert import option_names
from align.config.places import group_choices
from align.config.schema import Config
from align.runner import build
from align.runner.parts_table import PLACES, parts_lines, parts_of
from align.sampling.batching import Calls
from align.semantics.sources import no_pairs

OTHERS = {
    "looks": ["method=svdd", "method.value.estimate=looks"],
    "no strength": ["method=dymo", "method.guidance.strength=0"],
    "no words": ["method=dymo", "method.objective.semantic=0"],
    "time travel": ["method=dymo", "method.recurrence.rule=fixed", "method.recurrence.rounds=[1,1,1]"],
    "consistency": ["method=das", "backbone=lcm", "reward=shapes_pick", "metrics=none"],
    "consistency as released": ["method=das_released", "backbone=lcm", "reward=shapes_pick", "metrics=none"],
}


def config_of(*options):
    steps = [] if "backbone=lcm" in options else ["sampler.eta=1"]
    (job,) = jobs_of(parse([*options, "sampler.steps=4", *steps]))
    return job.config


def classes_in(thing, seen=None):
    """The classes of ours that an object is made of, itself among them."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return set()
    seen[id(thing)] = thing
    inside = []
    if isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple):
        inside = thing
    elif isinstance(thing, partial):
        inside = [thing.func, *thing.args, *thing.keywords.values()]
    elif hasattr(thing, "__self__"):
        inside = [thing.__self__]
    elif type(thing).__module__.startswith("align.") and not isinstance(thing, type):
        inside = [getattr(thing, name) for name in vars(thing)]
    return {type(thing)}.union(*(classes_in(one, seen) for one in inside))


def named(name):
    module, _, what = name.partition(":")
    return getattr(import_module(module), what)


KNOWN = {named(part.name) for place, parts in PLACES.items() for part in parts if place != "process"}


@pytest.fixture
def called(monkeypatch):
    """The functions of the table that a method is built with: those that make its steps."""
    names = []

    def watch(name):
        found = named(name)
        module, _, what = name.partition(":")
        monkeypatch.setattr(f"{module}.{what}", lambda *arguments: names.append(name) or found(*arguments))

    for part in PLACES["process"]:
        watch(part.name)
    return names


@pytest.mark.parametrize("case", [*group_choices("method"), *OTHERS])
def test_the_table_is_what_is_built(case, called):
    config = config_of(*OTHERS.get(case, [f"method={case}"]))
    backbone = FakeBackbone()
    reward = FakeReward() if config.method.uses_reward else None
    made = build.assemble(config, backbone, reward, no_pairs, Calls(2), CPU)
    parts = parts_of(config)
    process = parts.pop("process")
    assert called[:1] == [process.name]  # a released one begins as the right one
    told = {named(part.name) for part in parts.values() if part}
    assert KNOWN & classes_in(made) == {one for one in told if isinstance(one, type)}


def test_faults_are_named_with_the_file_that_has_them():
    lines = parts_lines(config_of("method=fk_released"))
    faults = {line.split()[2]: line for line in lines if line.startswith("fault ")}
    assert set(faults) == {"steered_children", "forgetful_weights"}
    assert "align/released/particles.py" in faults["forgetful_weights"]


def test_what_a_table_says_is_what_the_configuration_has():
    lines = {line.split("  ")[0]: line for line in parts_lines(config_of("method=das"))}
    assert "method.guidance.rule=variance" in lines["guidance"]
    assert "align/sampling/guidance.py Guidance" in lines["guidance"]
    assert lines["search"].split()[-1] == "-"
    assert list(lines) == list(PLACES)


@pytest.mark.parametrize(
    ("method", "option"), [("dsearch", "search.drop=exponential"), ("dsearch_r", "search.replace=0.25")]
)
def test_what_prunes_is_named_by_the_option_that_makes_it(method, option):
    lines = {line.split("  ")[0]: line for line in parts_lines(config_of(f"method={method}"))}
    assert f"method.{option} " in lines["select"]
    assert "align/sampling/search.py Prune" in lines["select"]


def test_every_option_of_the_table_is_one():
    assert {part.option for parts in PLACES.values() for part in parts} <= set(option_names(Config))


@pytest.mark.parametrize("estimate", ["network", "small_decoder"])
def test_estimates_of_the_shapes_world(estimate):
    config = config_of("method=svdd", f"method.value.estimate={estimate}", "metrics=none")
    made = classes_in(build.build_sampler(config, Calls(2)))
    assert named(parts_of(config)["value estimate"].name) in made
