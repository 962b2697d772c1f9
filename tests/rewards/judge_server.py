"""A server of rewards on this machine whose answers a test prepares."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def brightness(item):
    """The score that the server gives by itself: the length of the picture's text."""
    return float(len(item["image"]) % 97)


def good(request, **more):
    items = request["items"]
    return {
        "version": 1,
        "model": "m@1",
        "scores": [brightness(one) for one in items],
        "errors": [None] * len(items),
        **more,
    }


class JudgeServer:
    """Answers requests by ``answers``, one after another, and then by ``usual``.

    An answer is made of a request: an object, bytes as they are, a status, a status with headers, or an exception to the rule:
    ``"drop"`` closes the connection without a word, ``"half"`` in the middle of an answer; a function of the handler says what
    it likes.
    """

    def __init__(self):
        self.answers, self.asked, self.keys = [], [], []
        self.health = None
        self.usual = good
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.say(self, outer.health if outer.health is not None else 404)

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(request)
                outer.keys.append(self.headers.get("Authorization"))
                answer = outer.answers.pop(0) if outer.answers else outer.usual
                if callable(answer) and getattr(answer, "raw", False):
                    answer(self)
                    return
                outer.say(self, answer(request) if callable(answer) else answer)

            def log_message(self, *arguments):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *arguments):  # of clients that went away
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/score"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def say(self, handler, answer):
        headers, code = {}, 200
        if answer == "drop":
            handler.connection.close()
            return
        if isinstance(answer, tuple):
            answer, headers = answer
        if isinstance(answer, int):
            code, answer = answer, b"it is said why"
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data) + 10 * headers.get("cut", 0)))
        handler.end_headers()
        handler.wfile.write(data)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def serving():
    one = JudgeServer()
    try:
        yield one
    finally:
        one.close()
