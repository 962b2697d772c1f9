"""Which prompts a round asks about, from which noise, and what commands are refused."""

from collections import Counter
from dataclasses import replace

import pytest

from align.__main__ import main
from align.commands.online import read_online
from align.config.command import Command
from align.config.schema import RewardConfig
from align.online.rounds import in_turn

REWARD = RewardConfig("surrogate", {"surrogate": 1.0})


@pytest.fixture(scope="module")
def online():
    return read_online(Command(("blackbox=jpeg_compressibility", "seed=3", "run.folder=x")))


def texts(config):
    return config.prompts.text


def test_the_first_round_is_plain_and_the_others_follow_the_surrogate(online):
    first, later = online.round(0, None), online.round(1, REWARD)
    assert (first.method.name, later.method.name) == ("none", "best_of_n")
    assert later.reward == REWARD
    assert first.metrics.rewards == later.metrics.rewards == ("jpeg_compressibility",)
    assert [len(texts(one)) for one in (first, later)] == [16, 16]


def test_every_prompt_is_asked_about_once_in_each_turn_and_none_that_is_held_out(online):
    rounds = [online.round(number, REWARD) for number in range(9)]
    assert all(Counter(texts(one)) == Counter(online.asked) for one in rounds)
    assert texts(rounds[1]) != texts(rounds[2])
    evaluated = set(texts(online.evaluation(REWARD)))
    assert evaluated == set(online.evaluated)
    assert not evaluated & set(online.asked)


def test_a_prompt_that_is_asked_about_again_is_drawn_from_other_noise(online):
    seeds = [online.round(number, REWARD).seed for number in range(9)]
    assert len({*seeds, online.evaluation(None).seed, online.beside().seed}) == 11
    other = replace(online, config=replace(online.config, seed=4))
    assert other.round(1, REWARD).seed != seeds[1]


def test_the_evaluations_are_paired_and_what_is_beside_has_as_many_answers(online):
    guided, plain = online.evaluation(REWARD), online.evaluation(None)
    assert (guided.seed, texts(guided)) == (plain.seed, texts(plain))
    beside = online.beside()
    assert beside.samples * len(texts(beside)) == 16 + 8 * 16


def test_a_turn_goes_on_where_the_last_round_ended(online):
    noise, rounds = online.noise("prompts"), online.rounds
    whole = in_turn("abcde", 0, 12, noise, rounds)
    assert in_turn("abcde", 0, 4, noise, rounds) + in_turn("abcde", 4, 8, noise, rounds) == whole
    assert Counter(whole[:10]) == Counter("abcde" * 2)


def test_a_share_of_the_prompts_stands_in_the_template(online):
    rounds = replace(online.rounds, template="{} on paper", template_share=0.25)
    inside = [text.endswith(" on paper") for text in in_turn("ab", 0, 400, online.noise("prompts"), rounds)]
    assert 0.18 < sum(inside) / 400 < 0.32


def test_more_rounds_begin_as_fewer_do(online):
    more = replace(online, rounds=replace(online.rounds, number=20))
    assert [more.round(one, REWARD) for one in range(9)] == [online.round(one, REWARD) for one in range(9)]


REFUSED = {
    (): "blackbox=NAME",
    ("blackbox=jpeg_compressability",): "did you mean jpeg_compressibility",
    ("blackbox=jpeg_compressibility", "method=none"): "follows no reward",
    ("blackbox=jpeg_compressibility", "reward=shapes_pick"): "the surrogate is the reward",
    ("blackbox=jpeg_compressibility", "samples=3"): "rounds.first=16 is no multiple of samples=3",
    ("blackbox=jpeg_compressibility", "rounds.held_out=32"): "leaves none to ask about",
    ("blackbox=jpeg_compressibility", "rounds.template=x"): "has no {}",
    (
        "blackbox=jpeg_compressibility",
        "surrogate.heads=8",
    ): "surrogate.heads is not read by surrogate.kind=ridge",
    ("blackbox=jpeg_compressibility", "surrogate=ucb", "surrogate.ridge=null"): "surrogate.ridge=null",
    ("blackbox=jpeg_compressibility", "surrogate.featurs=x"): "did you mean surrogate.features",
    (
        "blackbox=jpeg_compressibility",
        "surrogate.features=x",
    ): "surrogate.features=x: there are no such features",
    ("blackbox=jpeg_compressibility", "rounds.number=0"): "out of range",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_cannot_be_is_refused_in_one_line_before_any_work(words, tmp_path, capsys):
    assert main(["online", *words, f"run.root={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert REFUSED[words] in err
    assert not list(tmp_path.iterdir())


def test_an_ordinary_run_reads_none_of_it(tmp_path, capsys):
    assert main(["blackbox=jpeg_compressibility", f"run.root={tmp_path}"]) == 2
    assert "python -m align online" in capsys.readouterr().err
