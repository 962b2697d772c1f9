import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from align.semantics.endpoint import Endpoint
from align.semantics.graph import GraphError, RefusedError
from align.semantics.knowledge import Knowledge
from align.semantics.llm import AskedGraphs, Lazily, answers_folder
from align.semantics.prompting import EXAMPLES, messages, read_answer, template_hash
from align.web import address_fault, key_fault

PROMPT = "a red cat"
GRAPH = Knowledge((("cat", ("red",)),))
GOOD = json.dumps(GRAPH.to_json(PROMPT))


class Server:
    """An OpenAI-like endpoint that gives prepared answers: a text, a status code, seconds to sleep, or raw bytes.

    A status and a place to go to is a redirect; a list of bytes is sent over and over, one every hundredth of a second.
    """

    def __init__(self):
        self.answers, self.asked, self.reason, self.over = [], [], None, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, self.headers.get("Authorization"), body))
                answer = outer.answers.pop(0)
                if isinstance(answer, float):
                    time.sleep(answer)
                    answer = GOOD
                if isinstance(answer, str):
                    answer = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
                try:
                    code, place = answer if isinstance(answer, tuple) else (answer, None)
                    self.send_response(code if isinstance(code, int) else 200, outer.reason)
                    if place:
                        self.send_header("Location", place)
                    self.end_headers()
                    while isinstance(answer, list) and not outer.over.wait(0.01):
                        self.wfile.write(answer[0])
                    if isinstance(answer, list | tuple):
                        return
                    self.wfile.write(b"{}" if isinstance(answer, int) else answer)
                except OSError:  # the client gave up waiting
                    pass

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server():
    one = Server()
    yield one
    one.over.set()
    one.http.shutdown()
    one.http.server_close()


def asking(server, folder, retries=2, **options):
    return AskedGraphs(Endpoint(server.url, "tiny", **options), "tiny", folder, retries, wait=0)


def test_one_question_then_the_disk(server, tmp_path):
    server.answers = [GOOD]
    graphs = asking(server, tmp_path / "new", key="secret")
    assert graphs(PROMPT) == GRAPH
    ((path, key, body),) = server.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["temperature"]) == ("tiny", 0)
    assert body["messages"][-1] == {"role": "user", "content": PROMPT}
    assert asking(server, tmp_path / "new")(PROMPT) == GRAPH
    assert len(server.asked) == 1
    (kept,) = (tmp_path / "new").iterdir()
    assert "secret" not in kept.read_text()
    assert json.loads(kept.read_text())["model"] == "tiny"


def test_another_prompt_or_model_is_asked_anew(server, tmp_path):
    server.answers = [GOOD] * 3
    asking(server, tmp_path)(PROMPT)
    asking(server, tmp_path)(PROMPT + "!")
    AskedGraphs(Endpoint(server.url, "big"), "big", tmp_path)(PROMPT)
    assert len(server.asked) == 3


def test_a_spoilt_file_is_asked_anew(server, tmp_path):
    server.answers = [GOOD, GOOD]
    asking(server, tmp_path)(PROMPT)
    next(tmp_path.iterdir()).write_text('{"know')
    assert asking(server, tmp_path)(PROMPT) == GRAPH
    assert len(server.asked) == 2


def test_garbage_first_then_good(server, tmp_path):
    server.answers = ["Sorry, I cannot.", GOOD]
    assert asking(server, tmp_path)(PROMPT) == GRAPH
    again = server.asked[1][2]["messages"]
    assert again[-2] == {"role": "assistant", "content": "Sorry, I cannot."}
    assert "no JSON object" in again[-1]["content"]


def test_a_failing_server_first_then_good(server, tmp_path):
    server.answers = [500, b"no json", b'{"choices": []}', GOOD]
    assert asking(server, tmp_path, retries=3)(PROMPT) == GRAPH
    assert server.asked[0][2] == server.asked[3][2]


def test_garbage_only(server, tmp_path):
    server.answers = ["no"] * 3
    with pytest.raises(
        GraphError, match="no graph of 'a red cat' from tiny in 3 tries: the answer is no graph"
    ):
        asking(server, tmp_path)(PROMPT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("code", "words"), [(401, "semantics.key_variable"), (404, "semantics.model")])
def test_a_refusal_is_not_repeated(server, tmp_path, code, words):
    server.answers = [code]
    with pytest.raises(RefusedError, match=f"answers {code} .*{words}"):
        asking(server, tmp_path, key="secret")(PROMPT)
    assert len(server.asked) == 1


def test_timeout(server, tmp_path):
    server.answers = [60.0]
    with pytest.raises(GraphError, match=r"does not answer in 0\.1 s"):
        asking(server, tmp_path, retries=0, timeout=0.1)(PROMPT)


def test_a_dripping_server_has_no_longer_than_a_silent_one(server, tmp_path):
    server.answers = [[b" "]]
    with pytest.raises(GraphError, match=r"does not answer in 0\.2 s"):
        asking(server, tmp_path, retries=0, timeout=0.2)(PROMPT)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(code, server, tmp_path):
    server.answers = [(code, f"{server.url}/elsewhere"), GOOD]
    with pytest.raises(RefusedError, match=f"answers {code} .*: redirects are not followed"):
        asking(server, tmp_path, key="secret")(PROMPT)
    assert len(server.asked) == 1


def test_no_proxy_is_told_the_key_in_the_clear(server, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers = [GOOD]
    assert asking(server, tmp_path, key="secret")(PROMPT) == GRAPH


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b" " * (2 << 20), "answers more than 1 MB"),
        (b"[" * 100_000, "answers what is no JSON"),
        (b"\x1f\x8b\x08\x00rest", "answers what is no JSON"),
        (b"<html>secret</html>", "answers what is no JSON"),
        (b'{"error": "secret"}', "answers without a message"),
        ("x" * 100_000, "answers with a message of 100000 characters"),
        ("I was told secret", "repeats the key"),
    ],
)
def test_odd_answers_are_one_line_without_the_key(answer, words, server, tmp_path):
    server.answers = [answer]
    with pytest.raises(GraphError, match=words) as caught:
        asking(server, tmp_path, retries=0, key="secret")(PROMPT)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_a_server_says_of_its_status_is_not_repeated(server, tmp_path):
    server.reason, server.answers = "Bad secret", [400]
    with pytest.raises(GraphError, match=r"answers 400 Bad Request$"):
        asking(server, tmp_path, retries=0, key="secret")(PROMPT)
    assert "secret" not in repr(asking(server, tmp_path, key="secret"))


@pytest.mark.parametrize("key", ["secret\n", "sec\rret", "secrét", "secret key"])
def test_a_key_that_cannot_be_one_is_refused_and_not_told(key, server, tmp_path):
    with pytest.raises(RefusedError, match=r"the key in semantics\.key_variable") as caught:
        asking(server, tmp_path, key=key)(PROMPT)
    assert key not in str(caught.value)
    assert not server.asked


@pytest.mark.parametrize(
    "url",
    [
        "http://own.example/v1",
        "http://10.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://0x7f000001",
        "http://127.1",
    ],
)
def test_a_key_leaves_the_machine_encrypted_or_not_at_all(url):
    assert "in the clear" in key_fault(url, "secret", "semantics")
    assert key_fault(url, "", "semantics") is None
    for good in (
        url.replace("http:", "https:"),
        "http://127.8.9.1:80/v1",
        "http://[::1]:8000",
        "http://localhost/v1",
    ):
        assert key_fault(good, "secret", "semantics") is None


@pytest.mark.parametrize(
    "url",
    [
        "https://me:pass@own.example/v1",
        "https://own.example/v1?key=pass",
        "http://localhost\\@pass.example",
        "me:pass@own.example",
    ],
)
def test_an_address_holds_no_password(url):
    assert "pass" not in address_fault(url, "semantics").replace("password", "")


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "file:///etc/passwd", "http:///v1", "http://x:99999/", "http://a b/", "x"]
)
def test_what_is_no_address(url):
    assert "is no URL" in address_fault(url, "semantics")


def test_nobody_listens(tmp_path):
    graphs = AskedGraphs(Endpoint("http://127.0.0.1:9/v1", "tiny"), "tiny", tmp_path, 0)
    with pytest.raises(
        GraphError, match=r"semantics\.endpoint=http://127.0.0.1:9/v1 cannot be used"
    ) as caught:
        graphs(PROMPT)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    server.answers = [GOOD]
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphError, match="set HF_HOME"):
        asking(server, tmp_path / "file" / "graphs")(PROMPT)


def test_where_answers_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert answers_folder() == tmp_path / "align" / "graphs"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"Here you are:\n```json\n{GOOD}\n```\nAnything else?",
        f'Think: {{not json}} and {{"a": 1}}. {GOOD}',
        '{"knowledge": {"cat": ["red"]}}',
        '{"prompt": "x", "knowledge": [{"cat": "red"}], "global": null}',
    ],
)
def test_tolerant_reading(answer):
    assert read_answer(answer) == GRAPH


@pytest.mark.parametrize("answer", ["", "[]", "{", '{"knowledge": "cat"}', "{" * 5000])
def test_what_is_no_graph(answer):
    with pytest.raises(GraphError):
        read_answer(answer)


def test_the_examples_are_graphs_of_their_prompts():
    for prompt, graph in EXAMPLES:
        words = {word for noun, more in graph.objects for word in (noun, *more)} | set(graph.style)
        assert words <= set(prompt.split())
    assert messages("x")[-1]["content"] == "x"
    assert template_hash() == template_hash()


def test_a_heavy_chat_is_loaded_late_and_given_up():
    loaded = []

    def load():
        loaded.append(1)
        return lambda chat: GOOD

    chat = Lazily(load)
    assert not loaded
    assert chat([]) == chat([]) == GOOD
    chat.close()
    chat([])
    assert len(loaded) == 2
