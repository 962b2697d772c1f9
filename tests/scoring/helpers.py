"""A judge whose values tell whose they are, pictures with prompts, and the command in a process of its own."""

from __future__ import annotations

import csv
import time

import torch
from forked import forked
from PIL import Image

from align.__main__ import main
from align.rewards.base import Reward
from align.runner import build
from align.store.csvfile import read_csv


class Judge(Reward):
    """A hundred times the length of the prompt, and the mean colour.

    Args:
        wait: seconds of a call, before which it prints a line.
    """

    name = "shapes_pick"

    def __init__(self, wait=None):
        self.fingerprint = {}
        self.wait = wait
        self.seen = []

    def score(self, pictures, prompts, step=None):
        if self.wait is not None:
            print("judging", flush=True)
            time.sleep(self.wait)
        self.seen += prompts
        return torch.tensor([100.0 * len(prompt) for prompt in prompts]) + pictures.mean((1, 2, 3))


def write(path, rows, header=("image", "prompt")):
    """A table."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def many(folder, number):
    """Small pictures of two sizes with a table of prompts."""
    folder.mkdir(parents=True)
    for k in range(number):
        Image.new("RGB", (8 + k % 2, 8), (k % 256, k // 256, 7)).save(folder / f"{k}.png")
    write(folder / "prompts.csv", [(f"{k}.png", f"picture {k}") for k in range(number)])
    return folder


def arguments(pictures, folder):
    """A cheap score."""
    options = [f"run.folder={folder}", "run.gallery=false", "run.threads=1", "metrics.rewards=[shapes_pick]"]
    return ["score", str(pictures), *options]


def table(folder):
    """The rows of a score without what tells processes apart."""
    return read_csv(folder / "results.csv").drop(columns=["seconds", "peak_memory_mb", "session"])


def start(*arguments):
    """The command in a process of its own, with a judge that takes 50 ms a call and prints a line."""
    return forked(_command, arguments)


def _command(words):
    judge = Judge(wait=0.05)
    build.load_reward = lambda name, device: judge
    build.check_reward = lambda name, device: None
    return main(words)
