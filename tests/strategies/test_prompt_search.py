"""Prompt search: the user's own words first, one noise for all candidates, judged for the user's prompt, the budget exactly."""

import json
from dataclasses import replace

import pytest
import torch
from fakes import FakeReward

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.runner.estimate import network_evaluations
from align.runner.plan import Keys, identity
from align.runner.strategies import samplings
from align.runner.words import words_of
from align.sampling.evolution import Sizes
from align.sampling.noise import NoiseStream
from align.sampling.sampler import Request
from align.strategies.prompt_search import PromptSearch
from align.strategies.words import SHIPPED, Words, WordsError, load_words, shipped

from .helpers import sampler

WORDS = Words(
    suffix=(("", "sharp", "in oil"), ("", "warm", "cold")),
    negative=(("", "blurry", "dull", "odd"), ("", "text")),
)
SIZES = Sizes(budget=9, population=4, parents=2, mutants=2, children=2, rate=0.3)
CAT, DOG = Request("red cat", "ugly", seed=3), Request("blue dog", seed=4, sample=1)


class Watched(FakeReward):
    """Remembers what it was asked."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def score(self, pictures, prompts, step=None):
        self.asked += list(prompts)
        return super().score(pictures, prompts, step)


def search(reward=None, sizes=SIZES, images=1, words=WORDS, size=4):
    return PromptSearch(sampler(reward, size), words, sizes, images)


@pytest.fixture
def noises(monkeypatch):
    """Keys of all noise that is drawn for latents."""
    drawn, normal = [], NoiseStream.normal

    def spy(stream, purpose, step, round, shape):
        drawn.append((stream, purpose, step))
        return normal(stream, purpose, step, round, shape)

    monkeypatch.setattr(NoiseStream, "normal", spy)
    return drawn


def test_a_budget_of_one_is_the_users_own_picture():
    made = search(sizes=replace(SIZES, budget=1)).sample([CAT, DOG])
    plain = sampler().sample([CAT, DOG])
    for one, two, request in zip(made, plain, (CAT, DOG), strict=True):
        assert torch.equal(one.picture, two.picture)
        assert (one.info["drawn_prompt"], one.info["drawn_negative"]) == (request.prompt, request.negative)


def test_the_followed_reward_never_falls_and_the_row_tells_the_words():
    plain, better = sampler(), 0
    for seed in range(6):
        requests = [replace(CAT, seed=seed), replace(DOG, seed=seed)]
        own = [one.picture for one in plain.sample(requests)]
        for outcome, mine, request in zip(search().sample(requests), own, requests, strict=True):
            value = float(plain.score(mine[None], [request.prompt])[0])
            assert outcome.info["value"] >= value - 1e-6
            better += outcome.info["value"] > value + 1e-6
            # Drawn again with these words, it is the same picture.
            words = outcome.info["drawn_prompt"], outcome.info["drawn_negative"]
            again = plain.sample(
                [replace(request, prompt=words[0], negative=words[1], noise_key=request.prompt)]
            )
            assert float((again[0].picture - outcome.picture).abs().max()) < 1e-5
    assert better > 6


def test_the_budget_is_what_is_paid():
    reward = Watched()
    for images in (1, 3):
        method = search(reward, images=images)
        (outcome,) = method.sample([CAT])
        assert method.samplings == 9 * images
        assert outcome.cost.decoder_forward == outcome.cost.reward_forward == 9 * images
        assert outcome.cost.network_forward == 3 * 9 * images
        assert len(outcome.info["values"].split()) == 9
    assert reward.counts["reward_forward"] == 9 + 27


def test_every_candidate_is_judged_for_the_users_prompt():
    reward = Watched()
    search(reward).sample([CAT, DOG])
    assert set(reward.asked) == {"red cat", "blue dog"}


def test_all_candidates_have_the_same_noise(noises):
    search(images=2).sample([CAT])
    assert {stream for stream, _, _ in noises} == {NoiseStream(3, "red cat", 0, image) for image in (0, 1)}


def test_neither_company_nor_order_changes_a_byte():
    both = search().sample([CAT, DOG])
    for request, together in zip((CAT, DOG), both, strict=True):
        (alone,) = search().sample([request])
        assert torch.equal(alone.picture, together.picture)
        assert (alone.info, alone.cost) == (together.info, together.cost)


def test_a_candidate_without_a_finite_reward_never_wins():
    class Picky(FakeReward):
        """Has no value for the best pictures."""

        def score(self, pictures, prompts, step=None):
            found = super().score(pictures, prompts, step)
            return torch.where(found > limit, torch.nan, found)

    (sound,) = search().sample([CAT])
    limit = sorted(map(float, sound.info["values"].split()))[-2]
    (outcome,) = search(Picky()).sample([CAT])
    assert outcome.picture is not None
    assert outcome.info["value"] <= limit
    assert "nan" in outcome.info["values"]


def test_words_stand_behind_the_users_own_and_empty_ones_leave_nothing():
    assert WORDS.spoken("a cat", "ugly", (1, 0, 2, 1)) == ("a cat, sharp", "ugly, dull, text")
    assert WORDS.spoken("a cat", "", (0, 2, 0, 1)) == ("a cat, cold", "text")
    assert WORDS.spoken("a cat", "", (0, 0, 0, 0)) == ("a cat", "")
    assert replace(WORDS, separator=" ").spoken("", "", (1, 1, 0, 0)) == ("sharp warm", "")


def config_of(*options):
    return jobs_of(parse(["method=promptopt", *options]))[0].config


def test_a_backbone_without_a_negative_half_gets_no_negative_words():
    both, alone = words_of(config_of()), words_of(config_of("sampler.guidance_scale=1"))
    assert both.negative
    assert alone == Words(both.suffix, (), both.separator)


@pytest.mark.parametrize("name", shipped())
def test_our_tables_offer_nothing_first_and_no_word_twice(name):
    words = load_words(name)
    for position in (*words.suffix, *words.negative):
        assert position[0] == ""
        assert len(position) == len(set(position)) > 1


def test_the_text_encoder_of_the_shapes_world_knows_all_words_of_its_table():
    from transformers import AutoTokenizer

    from align.checkpoints.reference import EMBEDDED

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["shapes"] / "tokenizer")
    words = load_words("shapes")
    for text in {text for position in (*words.suffix, *words.negative) for text in position}:
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == len(text.split())


def write(folder, text):
    path = folder / "words.yaml"
    path.write_text(text)
    return str(path)


def test_a_table_of_the_users_own_in_yaml_or_json(tmp_path):
    table = {"suffix": [["sharp", ""]], "negative": [["blurry", "odd", "odd "]], "separator": " "}
    made = load_words(write(tmp_path, json.dumps(table)))
    assert made == Words((("", "sharp"),), (("", "blurry", "odd"),), " ")
    same = load_words(write(tmp_path, "negative: [[blurry, odd]]\nsuffix:\n- [sharp]\nseparator: ' '\n"))
    assert same.fingerprint() == made.fingerprint()
    other = load_words(write(tmp_path, "negative: [[blurry, odd]]\nsuffix:\n- [soft]\nseparator: ' '\n"))
    assert other.fingerprint() != made.fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suffix: [[sharp]", "line 1 is neither YAML nor JSON"),
        ("- sharp", "holds no mapping"),
        ("suffixes: [[sharp]]", "'suffixes' is not read: give suffix, negative, separator"),
        ("suffix: [sharp]", r"suffix\[0\] is no list of 1 to 4096 words"),
        ("suffix: [[sharp], [no]]", r"suffix\[1\] has False, which is no text.*put it in quotes"),
        ("negative: [[]]", r"negative\[0\] is no list"),
        ("separator: ', '", "has no word"),
        ('suffix: [["a\\nb"]]', "no text of one line"),
        ("suffix: [[sharp]]\nseparator: 3", "separator=3 is no short text"),
    ],
)
def test_a_broken_table_is_one_line(text, message, tmp_path):
    with pytest.raises(WordsError, match=message) as caught:
        load_words(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["method.prompt_search.words=none.yaml"],
            "there is no such file; give one, or a table of ours: pictures, shapes",
        ),
        (
            ["method.prompt_search.words=WORDS"],
            r"budget=16 is more than the 3 candidates .* give at most that",
        ),
        (
            ["method.guidance.rule=constant", "method.objective.preference=1"],
            "guidance would follow these: give method.guidance.rule=none",
        ),
        (["backbone=toy_gmm"], "backbone=toy_gmm does not read"),
        (["method.noise_search.rounds=1"], "two strategies"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(options, message, tmp_path):
    small = write(tmp_path, "suffix: [[sharp, soft]]")
    with pytest.raises(ConfigError, match=message):
        words_of(config_of(*(option.replace("WORDS", small) for option in options)))


def test_the_words_are_part_of_a_pictures_identity_and_their_place_is_not(tmp_path):
    def key(*options):
        config = config_of(*options)
        what = identity(config, "", {"shapes_pick": ""}, words=words_of(config).fingerprint())
        return Keys(what).key("a cat", 0, 0)

    copy = write(tmp_path, (SHIPPED / "shapes.yaml").read_text())
    assert key() == key(f"method.prompt_search.words={copy}") == key("method.prompt_search.words=shapes")
    assert key() != key("method.prompt_search.words=pictures")
    assert key() != key("method.prompt_search.images=2")


def test_the_plan_tells_the_samplings():
    config = config_of("method.prompt_search.images=3")
    assert samplings(config) == (48, 0)
    assert network_evaluations(config) == (48 * 25, 48 * 25)
