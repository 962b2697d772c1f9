"""Faults of published programs, as options."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from fakes import FakeBackbone, FakeReward, words_graph

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.config.method import QuirkName
from align.config.places import group_choices
from align.config.quirks import QUIRKS
from align.runner import build
from align.runner.plan import identity
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

ROOT = Path(__file__).parents[2]
COMMON = ("backbone=sd15", "sampler.steps=6", "sampler.eta=1", "reward=sum", "reward.terms.aesthetic=1")

DNO = ("method=dno", "method.noise_gradient.iterations=3", "method.noise_gradient.permutations=2")
READ = {  # a method of which each quirk changes the pictures
    "sign_blind": ("method=dps", "method.guidance.rule=constant"),
    "raw_values": ("method=dsearch_r", "method.particles=4", "method.search.replace=0.5"),
    "steered_children": ("method=fk", "method.resampling.threshold=null"),
    "forgetful_weights": ("method=fk", "method.resampling.threshold=null"),
    "stale_gradients": ("method=das", "method.resampling.threshold=null"),
    "published_ladder": ("method=das", "method.tempering.rule=adaptive"),
    "any_level": ("method=rbf", "method.rollover.budget=40", "method.rollover.first=3"),
    "lost_gradient": (*DNO, "method.noise_gradient.over=start"),
    "last_iterate": (*DNO, "method.noise_gradient.rate=3"),
    "idle_noise": (*DNO, "method.noise_gradient.last=2", "method.noise_gradient.decay=0.5"),
    "shared_noise": ("method=reno", "method.noise_gradient.iterations=1"),
    "forgetful_pivot": ("method=noise_search", "method.noise_search.cosine=0.99"),
    "lcm_variances": ("method=das", "backbone=lcm", "sampler.eta=0.5"),
}


def config_of(*options):
    return jobs_of(parse([*COMMON, *options]))[0].config


def with_quirks(*names):
    return f"method.quirks=[{','.join(names)}]"


def test_every_quirk_is_told_and_leads_to_what_has_it():
    page = (ROOT / "docs/methods.md").read_text()
    assert set(QUIRKS) == set(get_args(QuirkName)) == set(READ)
    for name, quirk in QUIRKS.items():
        assert f"| `{name}` | {quirk.of} |" in page
        assert f"`{quirk.where}`" in page


def test_released_presets_alone_have_some_and_each_is_in_one():
    texts = {name: (ROOT / f"conf/method/{name}.yaml").read_text() for name in group_choices("method")}
    having = {name for name, text in texts.items() if "\nquirks:" in text}
    assert having == {
        "das_released",
        "dno_released",
        "dsearch_r_released",
        "dymo_released",
        "fk_released",
        "noise_search_released",
        "rbf_released",
        "reno_released",
    }
    assert all(any(quirk in texts[name] for name in having) for quirk in QUIRKS)


def test_only_adaptive_temperatures_can_do_without_a_schedule():
    with pytest.raises(ConfigError, match="never leaves 0"):
        config_of("method=das", "method.tempering.rule=schedule", "method.tempering.schedule=previous")


def test_a_mistyped_quirk_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean stale_gradients"):
        config_of("method=das", with_quirks("stale_gradient"))


def test_a_quirk_of_a_part_that_is_not_there_is_refused():
    for name, quirk in QUIRKS.items():
        with pytest.raises(ConfigError) as caught:
            config_of("method=none", with_quirks(name))
        assert str(caught.value).startswith(f"method.quirks: {name} is a fault of {quirk.part}")
        assert quirk.give in str(caught.value)


def test_a_quirk_is_given_once():
    with pytest.raises(ConfigError, match="twice"):
        config_of("method=fk", with_quirks("forgetful_weights", "forgetful_weights"))


def test_their_order_makes_no_other_picture():
    names = ("stale_gradients", "published_ladder")
    one, two = (
        identity(config_of("method=das", with_quirks(*order)), "", {"aesthetic": ""})
        for order in (names, names[::-1])
    )
    assert one == two


@pytest.mark.parametrize("name", sorted(set(QUIRKS) - {"lcm_variances"}))
def test_every_quirk_alone_changes_a_method_that_reads_it(name):
    """That of consistency models: ``tests/test_hub_box_runs.py``."""

    def made(*more):
        config = config_of(*READ[name], *more)
        pairs = PromptGraphs(words_graph).pairs
        sampler = build.assemble(config, FakeBackbone(), FakeReward(), pairs, Calls(4), torch.device("cpu"))
        number = config.method.returned
        return sampler.sample(
            [Request("a red cat", seed=seed, sample=k) for seed in (0, 1) for k in range(number)]
        )

    right, wrong = made(), made(with_quirks(name))
    assert not any(one.error for one in (*right, *wrong))
    pictures = [torch.stack([one.picture for one in found]) for found in (right, wrong)]
    assert not torch.equal(*pictures)
