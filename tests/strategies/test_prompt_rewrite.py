"""Rewritten prompts: drawn from the same noise, judged for the user's own, the better kept; or drawn alone."""

from dataclasses import replace

import pytest
import torch

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner.estimate import network_evaluations
from align.runner.plan import Keys, identity
from align.runner.prepare import prepare
from align.runner.rewriting import rewrite_identity
from align.sampling.sampler import Request
from align.semantics.graph import GraphError
from align.strategies.prompt_rewrite import PromptRewrite, Rewritten
from tests.semantics.test_local_chat import save

from .helpers import sampler

CAT = Request("red cat", "ugly", seed=3)


def in_oil(prompt):
    return f"{prompt} in oil"


def test_the_better_of_both_pictures_is_kept_and_its_words_told():
    plain, kept = sampler(), set()
    for seed in range(8):
        request = replace(CAT, seed=seed)
        other = replace(request, prompt="red cat in oil", noise_key="red cat")
        both = plain.sample([request, other])
        values = [float(plain.score(one.picture[None], ["red cat"])[0]) for one in both]
        (outcome,) = PromptRewrite(plain, in_oil).sample([request])
        assert outcome.info["value"] == pytest.approx(max(values), abs=1e-5)
        drawn = "red cat" if values[0] >= values[1] else "red cat in oil"
        assert (outcome.info["drawn_prompt"], outcome.info["drawn_negative"]) == (drawn, "ugly")
        assert outcome.cost.network_forward == 2 * 3
        kept.add(drawn)
    assert len(kept) == 2


def test_a_prompt_that_stays_as_it_is_is_drawn_once():
    (outcome,) = PromptRewrite(sampler(), lambda prompt: prompt).sample([CAT])
    (plain,) = sampler().sample([CAT])
    assert torch.equal(outcome.picture, plain.picture)
    assert outcome.cost.network_forward == plain.cost.network_forward


def test_without_a_reward_the_rewritten_prompt_is_drawn_from_the_users_noise():
    (outcome,) = Rewritten(sampler(), in_oil).sample([CAT])
    (other,) = sampler().sample([replace(CAT, prompt="red cat in oil", noise_key="red cat")])
    assert torch.equal(outcome.picture, other.picture)
    assert outcome.info["drawn_prompt"] == "red cat in oil"
    assert outcome.cost.reward_forward == 0


def test_a_probe_finds_a_prompt_that_cannot_be_rewritten():
    def refuse(prompt):
        raise GraphError("no answer")

    for kind in (PromptRewrite, Rewritten):
        with pytest.raises(GraphError, match="no answer"):
            kind(sampler(), refuse).probe(CAT, torch.zeros(1, 3, 8, 8))


def config_of(*options):
    return jobs_of(parse(["method=promptist", "prompts=text", 'prompts.text=["a red circle"]', *options]))[
        0
    ].config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["method.prompt_rewrite.by=chat"], "give semantics=llm with semantics.endpoint=URL"),
        (["method.prompt_rewrite.by=chat", "semantics=llm"], "needs one model: give semantics.endpoint=URL"),
        (["method.prompt_rewrite.model=null"], "give method.prompt_rewrite.model=FOLDER"),
        (["method.prompt_search.budget=4"], "two strategies"),
    ],
)
def test_who_writes_has_to_be_there(options, message):
    with pytest.raises(ConfigError, match=message):
        config_of(*options)


def test_the_plan_tells_the_samplings():
    assert network_evaluations(config_of()) == (50, 50)
    alone = config_of("method.prompt_rewrite.keep=rewrite")
    assert network_evaluations(alone) == (25, 25)
    assert not alone.method.uses_reward


def test_prompts_are_rewritten_before_any_work_and_the_model_is_part_of_the_identity(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    save(tmp_path / "model", None)
    options = [f"method.prompt_rewrite.model={tmp_path / 'model'}", "method.prompt_rewrite.tokenizer=null"]
    config = config_of(*options, "method.prompt_rewrite.tokens=4")
    (prepared,) = prepare([config])
    assert "having 1 prompts rewritten" in capsys.readouterr().err
    assert len(list((tmp_path / "home/align/rewrites").iterdir())) == 1
    (again,) = prepare([config])
    assert "rewritten" not in capsys.readouterr().err
    assert again.identity == prepared.identity
    told = prepared.identity["method"]["prompt_rewrite"]
    assert told["keep"] == "better"
    assert str(tmp_path) not in str(told)

    def key(config):
        return Keys(identity(config, "", {"shapes_pick": ""}, rewriting=rewrite_identity(config))).key(
            "a", 0, 0
        )

    more = config_of(*options, "method.prompt_rewrite.tokens=5")
    assert len({key(config), key(more), key(config_of(*options, "method.prompt_rewrite.keep=rewrite"))}) == 3
