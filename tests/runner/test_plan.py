"""Items and their keys."""

import pytest

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner.estimate import network_evaluations
from align.runner.plan import Keys, group_of, identity, make_plan
from align.runner.prepare import prepare
from align.runner.prompt_files import PromptRow
from align.runner.prompts import prompts_hash

from .helpers import fake_weights


def compose(*overrides):
    return jobs_of(parse(overrides))[0].config


def keys(*overrides, weights):
    (prepared,) = prepare([compose("metrics=none", f"backbone.weights={weights}", *overrides)])
    return {(item.prompt, item.seed, item.sample): item.key for item in prepared.items}


SAME = [
    ["run.batch_size=3"],
    ["run.in_flight=1"],
    ["run.device=cpu"],
    ["run.threads=1"],
    ["run.folder=elsewhere"],
    ["run.shared=true"],
    ["metrics=checker"],
    ["prompts.shuffle_seed=7"],
    ["prompts.sha256=null", "prompts.version=2"],
    ["reward=shapes_pick"],  # plain sampling uses none
    ["samples=3"],
    ["backbone.name=other"],
    ["sampler.name=other"],
    ["backbone.guidance_scale=9", "sampler.guidance_scale=4.0"],
    ["guider.name=other"],
]
OTHER = [
    ["sampler.steps=24"],
    ["sampler.eta=0.5"],
    ["sampler.guidance_scale=5"],
    ["backbone.guidance_scale=5"],
    ["guider=apg"],
    ["guider.stop=0.5"],
    ["backbone.dtype=bfloat16"],
    ["backbone.height=72"],
    ["negative=blurry"],
    ["method=best_of_n"],
    ["method=dymo"],
    ["method.particles=2", "method.choose=best"],
    ["method.recurrence.cap=3"],
]


@pytest.mark.parametrize("overrides", SAME)
def test_what_does_not_change_a_key(overrides, tmp_path):
    weights = fake_weights(tmp_path)
    plain, changed = keys(weights=weights), keys(*overrides, weights=weights)
    assert {one: changed[one] for one in plain} == plain


def test_a_ladder_is_what_it_comes_to(tmp_path):
    weights, das = fake_weights(tmp_path), ["method=das", "sampler.eta=1"]
    gamma = ["method.tempering.gamma=0.04", "method.tempering.full_at=null"]
    assert keys(*das, weights=weights) == keys(*das, *gamma, weights=weights)
    few = "sampler.steps=10"
    assert not set(keys(*das, few, weights=weights).values()) & set(
        keys(*das, few, *gamma, weights=weights).values()
    )


@pytest.mark.parametrize("overrides", OTHER)
def test_what_changes_every_key(overrides, tmp_path):
    weights = fake_weights(tmp_path)
    plain, changed = keys(weights=weights), keys(*overrides, weights=weights)
    assert plain.keys() == changed.keys()
    assert not set(plain.values()) & set(changed.values())


def test_weights_change_keys_and_their_place_does_not(tmp_path):
    here, there, other = (fake_weights(tmp_path / name) for name in ("here", "there", "other"))
    (there / "README.md").write_text("a model card")
    (other / "vae" / "config.json").write_text("{ }")
    assert keys(weights=here) == keys(weights=there)
    assert not set(keys(weights=here).values()) & set(keys(weights=other).values())


def test_the_reward_counts_where_it_is_used():
    config = compose("method=best_of_n", "reward=sum", "reward.terms.shapes_pick=1")
    files = {"shapes_pick": "a", "shapes_hps": "b"}
    one = identity(config, "w", files)
    assert one == identity(
        compose("method=best_of_n", "reward=sum", "reward.terms.shapes_pick=1.0"), "w", files
    )
    assert one != identity(config, "w", files | {"shapes_pick": "c"})
    assert one == identity(config, "w", files | {"shapes_hps": "c"})
    assert one != identity(
        compose("method=best_of_n", "reward=sum", "reward.terms.shapes_pick=2"), "w", files
    )


@pytest.mark.parametrize(
    ("method", "section", "later", "option"),
    [
        ("fk", "steering", {"growth"}, "method.steering.growth=0.2"),
        ("svdd", "search", {"until", "threshold"}, "method.search.until=better"),
    ],
)
def test_a_later_option_of_a_method_leaves_the_keys_of_those_that_do_without_it(
    method, section, later, option
):
    usual, other = (
        identity(compose(f"method={method}", "sampler.eta=1", *more), "w", {"shapes_pick": "a"})["method"]
        for more in ([], [option])
    )
    assert not later & usual[section].keys()
    assert not {"backtracking", "tree_search"} & usual.keys()
    assert usual != other


def test_compiled_blocks_are_another_backbone():
    usual, compiled = (
        identity(compose("method=none", *more), "w", {}) for more in ([], ["backbone.compile=true"])
    )
    assert "compile" not in usual["backbone"]
    assert usual != compiled


def test_the_numbers_of_a_reward_count_where_it_is_used_and_are_not_float32(tmp_path):
    weights, best = fake_weights(tmp_path), ["method=best_of_n"]
    usual, shorter = keys(*best, weights=weights), ["reward.dtype=bfloat16"]
    assert keys(*best, "reward.dtype=float32", weights=weights) == usual
    assert not set(keys(*best, *shorter, weights=weights).values()) & set(usual.values())
    assert keys(*shorter, weights=weights) == keys(weights=weights)  # plain sampling uses none


def test_duplicates_get_samples_of_their_own():
    plan = make_plan({}, [PromptRow(text) for text in "abaa"], seed=5, samples=2, negative="")
    assert [(item.prompt, item.sample) for item in plan] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5),
    ]  # fmt: skip
    assert len({item.key for item in plan}) == 8
    assert [item.index for item in plan] == list(range(8))
    assert {item.seed for item in plan} == {5}


def plan(*rows, whole=(), seed=5, samples=2, negative=""):
    made = make_plan({"negative": negative}, rows, seed, samples, negative, whole)
    assert len({(item.prompt, item.seed, item.sample) for item in made}) == len(made)
    return {(item.prompt, item.negative, item.seed, item.sample): item.key for item in made}


def test_a_rows_own_negative_and_seed_make_what_those_of_a_run_make():
    own = plan(PromptRow("a", negative="x"), PromptRow("b", seed=7), PromptRow("c"), samples=1)
    for text, negative, seed in (("a", "x", 5), ("b", "", 7), ("c", "", 5)):
        (made,) = plan(PromptRow(text), seed=seed, negative=negative, samples=1).items()
        assert made in own.items()
    assert plan(PromptRow("a", negative="x", seed=5)) == plan(PromptRow("a"), negative="x")


def test_one_prompt_with_several_negatives_has_the_same_pictures_in_any_order_and_part():
    rows = [PromptRow("a", negative="x"), PromptRow("a"), PromptRow("a", seed=5), PromptRow("a", seed=6)]
    whole = plan(*rows, whole=rows)
    assert [sample for _, _, _, sample in whole] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert plan(*rows[::-1], whole=rows) == whole
    for row in rows:
        assert plan(row, whole=rows).items() <= whole.items()


def test_particles_of_one_group_have_one_negative():
    one, other = make_plan({}, [PromptRow("a", negative="x"), PromptRow("a")], 0, 1, "")
    assert group_of(one, 4) != group_of(other, 4)


def test_any_text_has_a_key():
    texts = ["", "\ud800", "\x00", "a\nb", "é", "e\u0301", "x" * 10_000]
    assert len({Keys({}).key(text, 0, 0) for text in texts}) == len(texts)
    assert len({prompts_hash([text]) for text in texts}) == len(texts)
    assert prompts_hash(["a", "b"]) != prompts_hash(["a,b"])


def test_estimates():
    assert network_evaluations(compose()) == (25, 25)
    assert network_evaluations(compose("method=best_of_n", "method.particles=4")) == (100, 100)
    least, most = network_evaluations(
        compose("method=dymo", "method.recurrence.rule=gradient_norm", "method.recurrence.cap=4")
    )
    assert (least, most) == (25, 125)


def test_a_key_is_the_hash_of_its_parts_as_sorted_json():
    """Spelt out, as folders of finished runs depend on it."""
    import hashlib
    import json

    parts = {
        "identity": {"b": [1, 2.5], "a": {"é": None}},
        "prompt": 'a "red" \ud800 circle',
        "seed": 7,
        "sample": 3,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    key = Keys(parts["identity"]).key(parts["prompt"], parts["seed"], parts["sample"])
    assert key == hashlib.sha256(text.encode("ascii")).hexdigest()


def test_what_is_known_of_a_prompt_counts_where_the_reward_reads_it():
    rows = [PromptRow("a", tags={"include": "x"}), PromptRow("b")]
    told, untold = (
        [one.key for one in make_plan({}, rows, 0, 1, "", metadata=reads)] for reads in (True, False)
    )
    assert untold == [one.key for one in make_plan({}, [PromptRow("a"), PromptRow("b")], 0, 1, "")]
    assert told[0] != untold[0]
    assert told[1] == untold[1]
