"""Drafts that a transformer makes with a cache, or without some of its blocks."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import diffusers
import pytest
import tiny_flow
import torch
from fakes import CPU, FakeReward
from tiny_transformers import write_flux, write_sd3

from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.checkpoints.layout import FORMS
from align.commands.parser import parse
from align.config.check_strategy import CACHED
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner import build
from align.runner.dry_run import calls_of_a_picture
from align.runner.estimate import network_evaluations
from align.sampling.batching import Calls
from align.sampling.noise import NoiseStream
from align.sampling.sampler import Request
from align.semantics.sources import no_pairs

REQUESTS = [Request(prompt, seed=5) for prompt in ("a red cat", "dogs")]
DRAFT = ("method=draft", "method.draft.candidates=3")
TAYLOR = (
    *DRAFT,
    "method.draft.cache=taylorseer",
    "method.draft.warmup=2",
    "method.draft.interval=3",
    "method.draft.last=1",
)
COMPUTED = [0, 1, 3, 5]
"""Of six steps: two, the one after the next and every third from there, and the last."""
PRESETS = {"flux": "flux_dev", "sd3": "sd35_medium"}


@cache
def config_of(*options, preset="flux_dev"):
    given = [f"backbone={preset}", "sampler=flow", "sampler.steps=6", "reward=shapes_pick", "metrics=none"]
    return jobs_of(parse([*given, *options]))[0].config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {"flux": tmp_path_factory.mktemp("flux"), "sd3": tmp_path_factory.mktemp("sd3")}
    write_flux(made["flux"], 1)
    write_sd3(made["sd3"], 1)
    return made


@pytest.fixture(scope="module")
def networks(folders):
    guidance = {"flux": "embedded", "sd3": "pair"}
    return {
        name: load(Recipe((str(folders[name]),), name, guidance=guidance[name]), CPU, 64, 64)
        for name in folders
    }


def built(networks, *options, name="flux", rows=2):
    config = config_of(*options, preset=PRESETS[name])
    return build.assemble(config, networks[name], FakeReward(), no_pairs, Calls(rows), CPU)


@contextmanager
def evaluated(network):
    """Rows that come to the attention of each block."""
    rows = Counter()
    blocks = {
        name: one
        for name, one in network.named_modules()
        if name.endswith(".attn") and name.partition(".")[0].endswith("transformer_blocks")
    }
    handles = [
        one.register_forward_hook(
            lambda *told, name=name: rows.update({name: len(told[2]["hidden_states"])}), with_kwargs=True
        )
        for name, one in blocks.items()
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def test_drafts_are_what_diffusers_own_cache_makes_of_one_picture_alone(networks):
    """A network with the cache on, asked for one picture at a time: no state is seen but that of its own calls."""
    network = networks["flux"].network
    drafts = built(networks, *TAYLOR, "method.draft.refine=none").sample(REQUESTS)
    for request, one in zip(REQUESTS, drafts, strict=True):
        plain = built(networks, "method=none", rows=1)
        plain.noise = lambda request, _, k=one.info["candidate"]: NoiseStream(5, request.prompt, 0, k)
        network.enable_cache(
            diffusers.TaylorSeerCacheConfig(
                cache_interval=3,
                disable_cache_before_step=2,
                disable_cache_after_step=5,
                taylor_factors_dtype=torch.float32,
                use_lite_mode=True,
            )
        )
        with network.cache_context("alone"):
            (alone,) = plain.sample([request])
        network.disable_cache()
        torch.testing.assert_close(one.picture, alone.picture, rtol=0, atol=2e-5)
        (whole,) = plain.sample([request])
        assert float((one.picture - whole.picture).abs().max()) > 1e-3


def test_no_call_sees_the_state_of_another(networks):
    options = (*TAYLOR, "method.draft.refine=resume")
    made = built(networks, *options).sample(REQUESTS)
    for request, one in zip(REQUESTS, made, strict=True):
        (alone,) = built(networks, *options).sample([request])
        assert torch.equal(one.picture, alone.picture)
        assert one.info == alone.info
    for one, two in zip(made, built(networks, *options, rows=3).sample(REQUESTS), strict=True):
        torch.testing.assert_close(one.picture, two.picture, rtol=0, atol=2e-5)


def test_a_rerun_leaves_nothing_of_the_cache_behind(networks):
    (one,) = built(networks, *TAYLOR).sample(REQUESTS[:1])
    plain = built(networks, "method=none")
    plain.noise = lambda request, _: NoiseStream(5, request.prompt, 0, one.info["candidate"])
    assert torch.equal(one.picture, plain.sample(REQUESTS[:1])[0].picture)
    assert not networks["flux"].network.is_cache_enabled


def test_the_ledger_counts_the_steps_at_which_blocks_are_evaluated_and_so_does_the_plan(networks):
    with evaluated(networks["flux"].network) as rows:
        made = built(networks, *TAYLOR, rows=1).sample(REQUESTS)
    assert set(rows.values()) == {sum(one.cost.network_forward for one in made)}
    config = config_of(*TAYLOR)
    assert {one.cost.network_forward for one in made} == {3 * len(COMPUTED) + 6}
    assert network_evaluations(config) == (3 * len(COMPUTED) + 6,) * 2
    schedule = networks["flux"].scheduler_config
    assert [one.cost for one in made] == [calls_of_a_picture(config, schedule)] * 2
    assert sorted(set(range(6)) - config.method.draft.cached(6)) == COMPUTED


@pytest.mark.parametrize("name", [pytest.param("flux", marks=pytest.mark.slow), "sd3"])
def test_drafts_without_a_block_are_those_of_the_network_without_it(networks, folders, name):
    skipped = (*DRAFT, "method.draft.skip=[1]", "method.draft.refine=none")
    with evaluated(networks[name].network) as rows:
        drafts = built(networks, *skipped, name=name).sample(REQUESTS)
    assert "transformer_blocks.1.attn" not in rows
    assert rows["transformer_blocks.0.attn"] > 0
    assert {one.cost.network_forward for one in drafts} == {3 * 6}
    smaller = load(
        Recipe((str(folders[name]),), name, guidance="embedded" if name == "flux" else "pair"), CPU, 64, 64
    )
    del smaller.network.transformer_blocks[1]
    best = built({name: smaller}, "method=best_of_n", "method.particles=3", name=name).sample(REQUESTS)
    for one, two in zip(drafts, best, strict=True):
        torch.testing.assert_close(one.picture, two.picture, rtol=0, atol=2e-5)


def test_layouts_with_the_switch_are_those_of_which_diffusers_network_has_it():
    kinds = {layout: getattr(diffusers, form.parts[form.network].kind) for layout, form in FORMS.items()}
    assert {layout for layout, kind in kinds.items() if hasattr(kind, "enable_cache")} == set(CACHED)


@pytest.mark.parametrize("name", [pytest.param("flux2_klein", marks=pytest.mark.slow), "qwen_image"])
def test_no_block_is_evaluated_where_the_cache_answers(name, tmp_path):
    """Qwen-Image's network is called once for each row."""
    getattr(tiny_flow, name)().save_pretrained(tmp_path)
    backbone = load(Recipe((str(tmp_path),), name, guidance="none"), CPU, 64, 64)
    config = config_of(*TAYLOR, "method.draft.refine=none", preset=name)
    config = replace(config, sampler=replace(config.sampler, guidance_scale=1.0))
    made = build.assemble(config, backbone, FakeReward(), no_pairs, Calls(2), CPU)
    with evaluated(backbone.network) as rows:
        (one,) = made.sample(REQUESTS[:1])
    assert one.error is None
    assert set(rows.values()) == {3 * len(COMPUTED)}


@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        ("sd15", ("sampler=ddim", "method.draft.skip=[1]"), "is of a transformer"),
        ("sd35_medium", ("method.draft.cache=taylorseer",), "is no switch of diffusers' network"),
        ("flux_dev", ("method.draft.warmup=2",), r"read with method\.draft\.cache=taylorseer only"),
        ("flux_dev", ("method.draft.stack=blocks",), r"read with method\.draft\.skip only"),
        ("flux_dev", ("method.draft.cache=taylorseer", "method.draft.warmup=6"), "answers none of 6 steps"),
        ("flux_dev", ("method.draft.cache=taylorseer", "backbone.compile=true"), "so does backbone.compile"),
        ("flux_dev", ("method.draft.cache=taylorseer", "method.draft.steps=7"), "is not more"),
        (
            "sd35_medium",
            ("method.draft.skip=[1]", "guider=slg", "guider.weak_stop=0.8"),
            "further pass of guider=slg",
        ),
    ],
)
def test_what_has_no_such_switch_is_refused_in_a_line(preset, options, said):
    with pytest.raises(ConfigError, match=said):
        config_of(*DRAFT, *options, preset=preset)
