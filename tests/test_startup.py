"""A quick start and end lose nothing."""

import gc
import subprocess
import sys

from align import startup

END = """
import atexit, sys, threading, time
from pathlib import Path
from align.startup import leave
folder = Path(sys.argv[1])
class Talks:
    def __getattribute__(self, name):
        print("asked for", name)
talks = [Talks()]
never_closed = (folder / "file").open("w")
never_closed.write("all of it")
go = threading.Event()
def thread():
    go.wait()
    (folder / "thread").write_text("waited for")
threading.Thread(target=thread).start()
threading._register_atexit(go.set)
atexit.register((folder / "atexit").write_text, "called")
print("said")
leave(3)
"""


def test_files_threads_and_last_calls_are_seen_to_before_a_quick_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", END, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {"file": "all of it", "thread": "waited for", "atexit": "called"}


def test_nothing_is_frozen_in_a_process_that_is_not_the_commands(monkeypatch):
    frozen = gc.get_freeze_count()
    startup.settle()
    assert gc.get_freeze_count() == frozen
