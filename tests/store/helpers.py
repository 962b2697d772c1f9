"""Items, pictures and child processes for the tests of the store."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from align.store.manifest import Manifest
from align.store.measured import Result
from align.store.store import Store

MANIFEST = Manifest({"method": {"name": "none"}, "protocol": {"steps": 25}}, {"versions": {"align": "0"}})


@dataclass(frozen=True)
class Item:
    key: str
    prompt: str
    seed: int
    sample: int = 0


def make_item(prompt: str, seed: int = 0, sample: int = 0, salt: str = "") -> Item:
    text = json.dumps([prompt, seed, sample, salt])
    return Item(hashlib.sha256(text.encode()).hexdigest(), prompt, seed, sample)


def make_plan(size: int, salt: str = "") -> list[Item]:
    return [make_item(f"prompt {number // 2}", number % 2, salt=salt) for number in range(size)]


def make_png(item: Item) -> bytes:
    colour = tuple(bytes.fromhex(item.key[:6]))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_row(item: Item, **more: Any) -> dict[str, Any]:
    value = int(item.key[:8], 16) / 7
    return {"prompt": item.prompt, "method": "none", "clip": value, "check_all": value > 1e8, **more}


def commit(store: Store, item: Item, **more: Any) -> None:
    store.commit(item, make_png(item), make_row(item, **more))


def fill(folder: Path, plan: list[Item], **options: Any) -> None:
    """Do all that is left of a plan."""
    with Store(folder, MANIFEST, plan, **options) as store:
        for item in store.pending():
            commit(store, item)


WEIGHTS = {"pick": "weights"}


def measure(store: Store, items: list[Item]) -> None:
    store.measured({item.key: {"pick": Result({"pick": int(item.key[:4], 16)})} for item in items}, WEIGHTS)


def fill_and_measure(folder: Path, plan: list[Item]) -> None:
    """Do all that is left of a plan, and measure what is not measured."""
    fill(folder, plan)
    with Store(folder, MANIFEST, plan) as store:
        measure(store, store.unmeasured(WEIGHTS))


def csv_bytes(folder: Path) -> bytes:
    """The table without the column that tells the sessions of a run apart."""
    rows = list(csv.reader((folder / "results.csv").read_text().splitlines()))
    place = rows[0].index("session")
    return "\n".join(json.dumps(row[:place] + row[place + 1 :]) for row in rows).encode()


def picture_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


def work_shared(folder: str, size: int) -> None:
    """A process of a shared run; says on stdout which items it did, and waits before the first and after it."""
    plan = make_plan(size)
    order = plan if os.getpid() % 2 else plan[::-1]
    with Store(folder, MANIFEST, plan, shared=True, csv_every=0.02) as store:
        print("open", flush=True)
        sys.stdin.readline()
        for number, item in enumerate(item for item in order if store.claim(item)):
            commit(store, item)
            print(item.key, flush=True)
            if number == 0:
                sys.stdin.readline()


def work_until_told(folder: str, size: int, shared: int) -> None:
    """A process that claims the first item and then waits."""
    plan = make_plan(size)
    with Store(folder, MANIFEST, plan, shared=bool(shared)) as store:
        assert store.claim(plan[0])
        print("open", flush=True)
        sys.stdin.readline()


def work_until_killed(folder: str, size: int, commits: int) -> None:
    """A process that is killed by itself after some commits, at any system call of the next one."""
    plan = make_plan(size)
    store = Store(folder, MANIFEST, plan, csv_every=0.0)
    todo = store.pending()
    for item in todo[:commits]:
        commit(store, item)
        measure(store, [item])
    calls = 0
    deadly = int.from_bytes(os.urandom(1), "big") % 24

    def trace(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in {"open", "os.rename", "os.remove", "os.chmod", "fcntl.flock", "os.truncate"}:
            calls += 1
            if calls > deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(trace)
    measure(store, store.unmeasured(WEIGHTS))
    for item in todo[commits:]:
        commit(store, item)
        measure(store, [item])


if __name__ == "__main__":
    task, folder, *numbers = sys.argv[1:]
    globals()[task](folder, *map(int, numbers))
