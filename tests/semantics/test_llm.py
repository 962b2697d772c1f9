import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from align.semantics.errors import GraphError, RefusedError
from align.semantics.knowledge import Knowledge
from align.semantics.llm import AskedGraphs, Endpoint, Lazily, answers_folder
from align.semantics.prompting import EXAMPLES, messages, read_answer, template_hash

PROMPT = "a red cat"
GRAPH = Knowledge((("cat", ("red",)),))
GOOD = json.dumps(GRAPH.to_json(PROMPT))


class Server:
    """An OpenAI-like endpoint that gives prepared answers: a text, a status code, seconds to sleep, or raw bytes."""

    def __init__(self):
        self.answers, self.asked = [], []
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
                    self.send_response(answer if isinstance(answer, int) else 200)
                    self.end_headers()
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
