"""A sampler that draws at once, weights that are only files, and child processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from forked import forked

from align.__main__ import main
from align.backbones.recipe import Recipe
from align.backbones.registry import pieces
from align.runner import build
from align.runner.measure import Measuring
from align.sampling.ledger import Cost
from align.sampling.sampler import Outcome
from align.store import store
from scripts.pull_the_plug import content as files

__all__ = ["HOSTILE", "FakeSampler", "arguments", "fake_weights", "files", "go_on", "start"]

ROOT = Path(__file__).parents[2]
HOSTILE = [
    '', ' ', '../../../etc/passwd', '..\\..\\x', '/absolute', 'a/b/c', 'C:\\x', 'CON', 'nul.png', '.',
    '..', '~', 'a\x00b', 'a\nb', 'a\r\nb', 'a\tb', '\x1b[31mred', '\u202eright to left', '\u2028line',
    '\U0001f7e5\U0001f535\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466', '\xe9',
    'e\u0301', "x" * 10_000, "word " * 300, '-rf', '--help', "=cmd|' /C calc'!A1", '+1+1', '@SUM(A1)',
    '-2+3', "'quoted", '"double"', 'a,b;c', '<script>alert(1)</script>', '{{ 7*7 }}', '${oc.env:HOME}',
    '%s%n', '\\n', '\ufeffbom', '\ud800 lone', 'a red circle', 'NaN',
]  # fmt: skip
"""Prompts that a careless program would use as a path, a formula, markup or a format."""


class FakeSampler:
    """A picture is a function of its request alone.  Hooks make it fail, wait or run out of memory."""

    def __init__(self, batch_size=8, fail=(), broken=(), most=10**9, lost=False, hook=None):
        self.batch_size = batch_size
        self.fail, self.broken, self.most, self.lost, self.hook = fail, broken, most, lost, hook
        self.calls = []

    def sample(self, requests, on_step=None):
        self.calls.append([(request.prompt, request.seed, request.sample) for request in requests])
        if self.hook is not None:
            self.hook(requests)
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self.batch_size > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate\nmore than there is")
        for request in requests:
            self.probe(request, None)
        if on_step is not None:
            on_step(0.5)
            on_step(1.0)
        return [self.outcome(request) for request in requests]

    def probe(self, request, picture):
        if request.prompt in self.fail:
            raise ValueError(f"cannot draw {request.prompt!r}")

    def outcome(self, request):
        if request.prompt in self.broken:
            return Outcome(None, Cost(25), {"rounds": 1}, "the picture is not finite", 0.5)
        text = json.dumps([request.prompt, request.negative, request.seed, request.sample])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))
        return Outcome(picture, Cost(25), {"rounds": 2, "prompt_truncated": 0, "candidate": 3}, None, 0.01)


def fake_weights(folder: Path) -> Path:
    """A folder that holds every file of a backbone, with nothing in them but a schedule."""
    for name in pieces(Recipe((str(folder),)))[0].files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    schedule = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
    }
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(schedule))
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    """A cheap run of eight prompts with fake weights."""
    return [
        f"backbone.weights={fake_weights(folder / 'weights')}",
        "metrics=checker",
        "prompts.limit=8",
        "run.batch_size=2",
        "run.in_flight=3",
        "run.gallery=false",
        f"run.folder={folder / 'run'}",
        *more,
    ]


def start(*arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command in a process of its own, whose sampler waits in every call until it is let go on (``go_on``) or nobody can.

    ``--hang`` goes before the command where its first commit shall never end, ``--die`` where it shall be killed between
    the commit of its second group and its measurement.
    """
    return forked(_command, arguments, stdin)


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a process that said ``sampling`` sample; without standard input, as after ``communicate``, none waits."""
    assert process.stdin is not None
    print(file=process.stdin, flush=True)


def _command(words: Sequence[str]) -> int:
    def announce(requests):
        print("sampling", flush=True)
        sys.stdin.readline()

    def hang(*_):
        first = signal.getsignal(signal.SIGINT)

        def told(*given):
            first(*given)
            os.write(1, b"still hanging\n")  # it may interrupt the print below

        signal.signal(signal.SIGINT, told)
        print("hanging", flush=True)
        while True:
            signal.pause()

    groups = []

    def die(*_):
        groups.append(1)
        if len(groups) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    build.build_sampler = lambda config, calls, files=None: FakeSampler(calls.most, hook=announce)
    how, *command = words if words[0] in ("--hang", "--die") else ("", *words)
    if how == "--hang":
        store.save_picture = hang
    if how == "--die":
        measure = Measuring._measure
        Measuring._measure = lambda self, items: die() or measure(self, items)
    return main(command)
