"""Judges elsewhere: what is asked, what is believed, and what happens when nothing usable comes back."""

import io
import json
import math
import sys
import threading
from itertools import count

import pytest
import torch
from PIL import Image

from align.rewards.base import Reward
from align.rewards.elsewhere import http as over_http
from align.rewards.elsewhere.cache import Scores
from align.rewards.elsewhere.http import Server
from align.rewards.elsewhere.judge import RemoteReward
from align.rewards.elsewhere.pipe import Process
from align.rewards.elsewhere.serve import BadRequest, Judge
from align.rewards.elsewhere.vlm import ChatJudge
from align.rewards.elsewhere.wire import PROTOCOLS, item_of
from align.rewards.errors import CannotJudge, RewardError
from align.semantics.endpoint import Endpoint
from rewards.judge_server import brightness, good, serving
from scripts import reward_server


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture
def waits():
    return []


@pytest.fixture
def judge(server, waits, tmp_path):
    def make(batch=16, name="http", **options):
        options = {
            "endpoint": server.url,
            "reward": "mine",
            "sleep": waits.append,
            "jitter": lambda: 1.0,
        } | options
        return RemoteReward(name, Server(**options), Scores(tmp_path / "scores", "a judge"), {}, batch)

    return make


def picture(shade):
    return Image.new("RGB", (4, 3), (shade, 0, 0))


def pictures(number):
    return [picture(shade) for shade in range(number)]


def test_pictures_and_prompts_go_out_paired_and_numbers_come_back(judge, server):
    found = judge().score_images(pictures(3), ["a", "b", "c"])
    (asked,) = server.asked
    assert [one["prompt"] for one in asked["items"]] == ["a", "b", "c"]
    assert asked["reward"] == "mine"
    assert found.tolist() == [brightness(one) for one in asked["items"]]


def test_pictures_of_a_sampler_are_judged_as_they_are_saved(judge, server):
    tensor = torch.zeros(1, 3, 3, 4)
    tensor[:, 0] = 7.4 / 255
    judge().score(tensor, ["a"])
    judge().score_images([picture(7)], ["a"])
    assert len(server.asked) == 1


def test_nothing_is_asked_twice_and_the_same_picture_once(judge, server):
    first = judge().score_images([*pictures(2), picture(0)], ["a"] * 3)
    assert [len(one["items"]) for one in server.asked] == [2]
    again = judge().score_images(pictures(4), ["a"] * 4)
    assert [len(one["items"]) for one in server.asked] == [2, 2]
    assert again[:2].tolist() == first[:2].tolist()


def test_requests_are_neither_too_many_nor_too_large(judge, server, monkeypatch):
    judge(batch=2).score_images(pictures(5), ["a"] * 5)
    assert [len(one["items"]) for one in server.asked] == [2, 2, 1]
    monkeypatch.setattr("align.rewards.elsewhere.judge.MOST_BYTES", 1)
    judge().score_images(pictures(3), ["b"] * 3)
    assert [len(one["items"]) for one in server.asked[3:]] == [1, 1, 1]


def test_what_else_is_said_is_kept(judge, server, tmp_path):
    server.usual = lambda request: good(
        request, why=[one["prompt"] * 2 for one in request["items"]], seconds=3
    )
    judge().score_images(pictures(2), ["a", "b"])
    kept = [json.loads(path.read_text()) for path in (tmp_path / "scores").rglob("*.json")]
    assert sorted(one["further"]["why"] for one in kept) == ["aa", "bb"]
    assert {one["further"]["seconds"] for one in kept} == {3}


def test_metadata_goes_along_and_is_part_of_what_is_kept(judge, server):
    one = judge()
    one.score_images([picture(1)], ["a"])
    one.know({"a": {"tag": "colors"}})
    one.score_images([picture(1)], ["a"])
    assert [asked["items"][0]["metadata"] for asked in server.asked] == [None, {"tag": "colors"}]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(status, judge, server, waits):
    server.answers = [status, "drop", status]
    assert judge().score_images([picture(0)], ["a"]).isfinite()
    assert waits == [1, 2, 4]
    assert len(server.asked) == 4


def test_waits_are_bounded_and_not_all_alike(judge, server, waits):
    server.usual = 503
    with pytest.raises(CannotJudge, match="503"):
        judge(retries=8, jitter=lambda: 0.0).score_images([picture(0)], ["a"])
    assert waits == [0.5, 1, 2, 4, 8, 15, 15, 15]


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7),
        ("1e9", 600),
        ("nan", 1),
        ("soon", 1),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30),
    ],
)
def test_a_server_may_say_when_to_come_back(said, waited, judge, server, waits):
    server.answers = [(503, {"Retry-After": said, "Date": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    server.say = _without_own_date(server.say)
    judge().score_images([picture(0)], ["a"])
    assert waits == [waited]


def _without_own_date(say):
    def said(handler, answer):
        handler.date_time_string = lambda timestamp=None: "Wed, 21 Oct 2015 07:28:00 GMT"
        say(handler, answer)

    return said


def test_an_internal_error_is_asked_about_once_more(judge, server, waits):
    server.answers = [500]
    assert judge().score_images([picture(0)], ["a"]).isfinite()
    server.answers = [500, 500, 500]
    with pytest.raises(CannotJudge, match="answers 500 Internal Server Error: it is said why"):
        judge().score_images([picture(1)], ["a"])
    assert len(server.answers) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (400, "answers 400 Bad Request: it is said why"),
        (401, r"401 Unauthorized: check the key in judges\.http\.key_variable"),
        ((302, {"Location": "http://elsewhere.example"}), "302 Found: redirects are not followed"),
        (b"<html>no</html>", "what is no JSON: <html>no</html>"),
        (b"[" * 100_000, "what is no JSON"),
        (b"", r"what is no JSON: \(nothing\)"),
        ([1.0], "without a list 'scores'"),
        ({"scores": "0.5"}, "without a list 'scores'"),
        ({"scores": [1, 2]}, "answers 2 scores for 1 pictures: nothing of it is taken"),
        ({"scores": ["0.5"]}, "gives '0.5' as a score"),
        ({"scores": [True]}, "gives 'True' as a score"),
        ({"scores": [1], "errors": []}, "answers 0 errors for 1 pictures"),
        ({"scores": [1], "version": 2}, "speaks version '2'"),
        (b" " * (2 << 20), "answers more than 1 MB"),
    ],
)
def test_what_is_no_answer_fails_at_once_and_is_not_kept(answer, words, judge, server, waits, tmp_path):
    server.answers = [answer]
    with pytest.raises(CannotJudge, match=words) as caught:
        judge(retries=0).score_images([picture(0)], ["a"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))
    assert judge().score_images([picture(0)], ["a"]).isfinite()


def test_half_an_answer_is_none(judge, server, waits):
    whole = json.dumps(good({"items": [{"image": ""}]})).encode()
    server.answers = [(whole, {"cut": 1})]
    assert judge().score_images([picture(0)], ["a"]).isfinite()
    assert waits == [1]


def test_a_server_that_drips_has_no_longer_than_a_silent_one(judge, server, waits):
    """The time is up after the first byte, by the clock that is asked; nobody waits."""
    now = count(step=100)

    def drips(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b" ")

    drips.raw = True
    server.answers = [drips]
    with pytest.raises(CannotJudge, match=r"does not answer in 120 s"):
        judge(retries=0, clock=lambda: next(now)).score_images([picture(0)], ["a"])


def test_the_rows_that_fail_are_told_and_the_others_kept(judge, server):
    def bad(request):
        return good(request) | {
            "scores": [math.nan if one["prompt"] == "b" else 1.0 for one in request["items"]],
            "errors": ["out of memory" if one["prompt"] == "c" else None for one in request["items"]],
        }

    server.usual = bad
    with pytest.raises(RewardError, match="http: the score is nan"):
        judge().score_images(pictures(3), ["a", "b", "c"])
    with pytest.raises(RewardError, match="http: out of memory"):
        judge().score_images([picture(2)], ["c"])
    assert judge().score_images([picture(0)], ["a"]).tolist() == [1.0]
    assert len(server.asked) == 2
    guiding = judge().score(torch.zeros(2, 3, 3, 4), ["a", "b"])
    assert guiding[0] == 1.0
    assert guiding[1].isnan()


def test_another_model_in_mid_run_is_refused(judge, server):
    one = judge()
    one.score_images([picture(0)], ["a"])
    server.usual = lambda request: good(request, model="m@2")
    with pytest.raises(CannotJudge, match="the judge was 'm@1' and is 'm@2' now"):
        one.score_images([picture(1)], ["a"])


def test_a_key_is_sent_and_never_told(judge, server):
    server.answers = [(b"I know secret", {})]
    one = judge(key="secret")
    with pytest.raises(CannotJudge, match=r"I know \*\*\*"):
        one.score_images([picture(0)], ["a"])
    assert server.keys == ["Bearer secret"]
    assert "secret" not in repr(one.asking)
    with pytest.raises(CannotJudge, match="in the clear"):
        judge(endpoint="http://far.example/score", key="secret").score_images([picture(0)], ["a"])


def test_health_is_what_the_server_says_if_it_says_anything(server):
    ask = Server(server.url, "mine").health
    assert ask() == {}
    server.health = {"model": "m", "version": 3, "more": []}
    assert ask() == {"model": "m", "version": "3"}
    server.health = b"no json"
    assert ask() == {}


def test_unirls_service(judge, server):
    server.answers = [
        lambda request: {
            "results": [{"mine": {"score": 0.5, "part": 1}}, {"mine": None}],
            "errors": [{}, {"mine": "no face"}],
        }
    ]
    one = judge(protocol="unirl", endpoint=server.url.removesuffix("/score"))
    assert one.score(torch.rand(2, 3, 3, 4), ["a", "b"]).nan_to_num(-1).tolist() == [0.5, -1]
    (asked,) = server.asked
    assert asked["requests"][0]["history"][0]["text"] == "a"
    assert asked["requests"][0]["required_rewards"] == ["mine"]
    server.answers = [{"results": [{"mine": {"x": 1, "y": 2}}]}]
    with pytest.raises(CannotJudge, match="gives x, y for mine, and none of them is the score"):
        one.score(torch.rand(1, 3, 3, 4), ["a"])


def test_flow_factorys_server(judge, server):
    server.answers = [{"rewards": [0.5, None]}, 500, {"rewards": [0.5]}]
    one = judge(protocol="flow_factory")
    assert one.score(torch.rand(2, 3, 3, 4), ["a", "b"]).nan_to_num(-1).tolist() == [0.5, -1]
    assert sorted(server.asked[0]) == ["image", "prompt"]
    one.score(torch.rand(1, 3, 3, 4), ["c"])


CHILD = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "health" in asked:
        said = {"model": "child", "version": 2}
    elif any(one["prompt"] == "die" for one in asked["items"]):
        sys.exit(3)
    elif any(one["prompt"] == "babble" for one in asked["items"]):
        print("loading...", flush=True)
        continue
    else:
        said = {"version": 1, "model": "child", "scores": [float(len(one["prompt"])) for one in asked["items"]]}
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def process(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    one = Process([sys.executable, str(path)], "mine")
    yield RemoteReward("process", one, Scores(tmp_path / "scores", "a child"), {})
    one.close()


def test_another_interpreter_judges(process):
    assert process.asking.health() == {"model": "child", "version": "2"}
    assert process.score_images(pictures(2), ["a", "bb"]).tolist() == [1.0, 2.0]


def test_a_process_that_ends_is_started_once_more_and_then_told(process):
    with pytest.raises(CannotJudge, match="it ended with 3 before it answered"):
        process.score_images([picture(0)], ["die"])
    assert process.score_images([picture(0)], ["abc"]).tolist() == [3.0]


def test_a_process_that_prints_something_else(process):
    with pytest.raises(CannotJudge, match="answers what is no JSON: loading"):
        process.score_images([picture(0)], ["babble"])


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(CannotJudge, match="No such file"):
        Process([str(tmp_path / "no")], "mine").health()


def chat(content, tokens=None, model="tiny"):
    told = [{"top_logprobs": [{"token": token, "logprob": value} for token, value in tokens or ()]}]
    logprobs = None if tokens is None else {"content": told}
    return {"model": model, "choices": [{"message": {"content": content}, "logprobs": logprobs}]}


@pytest.fixture
def vlm(server, waits, tmp_path):
    def make(question='Does this figure show "{prompt}"?', key="", **options):
        endpoint = Endpoint(server.url, "tiny", key, group="judges.vlm")
        asking = ChatJudge(endpoint, question, sleep=waits.append, jitter=lambda: 1.0, **options)
        return RemoteReward("vlm", asking, Scores(tmp_path / "scores", "a vlm"), {}, batch=1)

    return make


def test_a_model_is_asked_about_the_picture_first_and_the_form_last(vlm, server, tmp_path):
    server.usual = chat("Yes", [("Yes", -0.1), ("No", -3.0)])
    assert vlm().score_images([picture(0)], ['a "red"\ncat']).item() == pytest.approx(math.exp(-0.1))
    (asked,) = server.asked
    (message,) = asked["messages"]
    assert [one["type"] for one in message["content"]] == ["image_url", "text"]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    asked_text = message["content"][1]["text"]
    assert asked_text == "Does this figure show \"a 'red' cat\"? Please answer Yes or No."
    same = ("temperature", "max_tokens", "logprobs", "top_logprobs", "repetition_penalty")
    assert [asked[name] for name in same] == [0, 1, True, 20, 1.0]
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text())["further"]["answer"] == "Yes"


def test_fields_that_a_server_does_not_know_are_given_up(vlm, server):
    refusals = [(400, "repetition_penalty"), (400, "max_tokens"), (422, "seed")]
    server.answers = [_refusing(*one) for one in refusals] + [chat("Yes", [("Yes", 0.0)])]
    one = vlm()
    one.score_images([picture(0)], ["a"])
    last = server.asked[-1]
    assert "max_completion_tokens" in last
    assert not {"repetition_penalty", "max_tokens", "seed"} & set(last)
    server.usual = chat("Yes", [("Yes", 0.0)])
    one.score_images([picture(1)], ["a"])
    assert len(server.asked) == 5


def _refusing(code, name):
    def refuse(handler):
        handler.send_response(code)
        handler.end_headers()
        handler.wfile.write(json.dumps({"error": f"unknown field {name}"}).encode())

    refuse.raw = True
    return refuse


def test_a_server_that_refuses_everything_is_told(vlm, server):
    server.usual = 400
    with pytest.raises(CannotJudge, match="answers 400 Bad Request: it is said why"):
        vlm().score_images([picture(0)], ["a"])
    assert len(server.asked) == 5


def test_without_probabilities_the_first_word_counts(vlm, server):
    server.answers = [chat("**No**, it does not."), chat("Well")]
    assert vlm().score_images([picture(0)], ["a"]).item() == 0
    with pytest.raises(RewardError, match="neither yes nor no: 'Well'"):
        vlm().score_images([picture(1)], ["a"])


def test_a_number_is_asked_for_and_read(vlm, server):
    server.usual = chat("I give 2 reasons.\nScore: 4")
    one = vlm('Rate "{prompt}".', mode="number")
    assert one.score_images([picture(0)], ["a"]).item() == 4
    assert server.asked[0]["messages"][0]["content"][1]["text"] == (
        "Rate \"a\". End your answer with a line 'Score: <number>' with a number from 1 to 5."
    )
    assert server.asked[0]["max_tokens"] == 512
    assert "logprobs" not in server.asked[0]


def test_a_key_that_is_repeated_is_not_kept(vlm, server, tmp_path):
    server.usual = chat("Yes, secret", [("Yes", 0.0)])
    with pytest.raises(CannotJudge, match="repeats the key"):
        vlm(key="secret").score_images([picture(0)], ["a"])
    assert not list(tmp_path.rglob("*.json"))


def test_a_refusal_holds_no_more_than_its_beginning(server):
    server.usual = lambda request: b"x" * 10_000
    with pytest.raises(CannotJudge) as caught:
        Server(server.url, "mine")([])
    assert len(str(caught.value)) < over_http.SAID + 200


class Brightness(Reward):
    """The mean of a picture; it cannot read the prompt ``bad``, and knows what it was told of prompts."""

    name = "brightness"
    fingerprint = {}  # noqa: RUF012

    def score(self, pictures, prompts, step=None):
        if "bad" in prompts:
            raise ValueError("cannot read it")
        return pictures.flatten(1).mean(1)


@pytest.fixture
def ours():
    """The script's server of a reward, and its judge."""
    judge = Judge(Brightness(), "brightness@1")
    with reward_server.server(judge, "127.0.0.1", 0, "secret") as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield judge, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_our_own_server_answers_our_own_client(ours, tmp_path):
    judge, url = ours
    server = Server(url, "default", key="secret")
    assert server.health() == {"model": "brightness@1", "version": "1"}
    remote = RemoteReward("http", server, Scores(tmp_path, "ours"), {})
    remote.know({"a": {"tag": "x"}})
    some = [Image.new("RGB", (9, 7), (shade,) * 3) for shade in (0, 51)]
    assert remote.score_images(some, ["a", "b"]).tolist() == pytest.approx([0, 0.2])
    assert judge.reward.metadata == {"a": {"tag": "x"}}
    guiding = remote.score(torch.zeros(3, 3, 8, 8), ["a", "bad", "c"])
    assert guiding.isnan().tolist() == [False, True, False]
    with pytest.raises(RewardError, match="ValueError: cannot read it"):
        remote.score_images(some[:1], ["bad"])


def test_our_own_server_lets_nobody_in_without_the_key(ours):
    with pytest.raises(CannotJudge, match="401 Unauthorized: check the key"):
        Server(ours[1], "default").health()
    with pytest.raises(CannotJudge, match="there is no reward 'other' here, but brightness"):
        Server(ours[1], "other", key="secret")([item_of(picture(0), "a")])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"image": "no base64!"}, "the picture is no base64"),
        ({"image": "aGVsbG8="}, "no picture that Pillow can read"),
        ({"id": "0" * 64}, "the id is not that of the picture and the prompt"),
        ({"prompt": 3}, 'an item has a text "prompt"'),
        ({"metadata": [1]}, "metadata is an object or null"),
    ],
)
def test_an_item_that_is_none_costs_no_other_its_score(spoil, words):
    request = PROTOCOLS["align"].body("default", [item_of(picture(k), "a") for k in (0, 255)])
    request["items"][0] |= spoil
    if "image" in spoil:
        del request["items"][0]["id"]
    said = Judge(Brightness(), "m").answer(json.loads(json.dumps(request)))
    assert said["scores"] == [None, pytest.approx(1 / 3)]
    assert words in said["errors"][0]
    assert said["errors"][1] is None


@pytest.mark.parametrize(
    "request_", [None, [], {}, {"version": 2}, {"version": 1, "reward": "default", "items": 3}]
)
def test_what_is_no_request_is_refused(request_):
    with pytest.raises(BadRequest):
        Judge(Brightness(), "m").answer(request_)


def test_lines_on_a_pipe_are_answered_one_by_one():
    said = io.BytesIO()
    reward_server.pipe(Judge(Brightness(), "m"), [b'{"version": 1, "health": true}', b"no json"], said)
    told = [json.loads(line) for line in said.getvalue().splitlines()]
    assert told[0] == {"model": "m", "version": "1"}
    assert "error" in told[1]
