"""What a training of the shapes world cost, from its folder: passes through the network, and seconds.

A pass is a guided evaluation; what goes through without the negative half counts half.  The held-out pictures that examinations look at
are not counted, nor the seconds in which pairs were drawn.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any


def cost(run: Path) -> dict[str, int]:
    """``network_forward``, ``network_backward`` and ``seconds``."""
    config = json.loads((run / "training.json").read_text())["config"]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["what"] == "round"]
    examples = sum(line["examples"] for line in rounds)
    forward, back = passes(config, examples, len(rounds))
    return {
        "network_forward": round(forward),
        "network_backward": round(back),
        "seconds": round(seconds([line["seconds"] for line in rounds])),
    }


def seconds(marks: list[float]) -> float:
    """Of the sessions together, whose clocks each began at 0."""
    last = [now for now, coming in pairwise(marks) if coming < now]
    return sum(last) + marks[-1]


def passes(config: dict[str, Any], examples: int, rounds: int) -> tuple[float, float]:
    """Forward and back, by what the kind of training does with each example."""
    kind, steps = config["training.kind"], config["sampler.steps"]
    if kind == "spo":
        first, inner, number = (config[f"training.spo.{name}"] for name in ("first", "inner", "candidates"))
        walked = steps - first - 1
        sampling = rounds * config["training.each"] * (first + 1 + walked * number)
        assert inner == 0
        return sampling + 2 * examples, examples
    if kind == "alignprop":
        most = min(config["training.alignprop.most"] or steps, steps)
        back = (config["training.alignprop.least"] + most) / 2
        return examples * (steps + back), examples * back
    number = config["prompts.number"] if config["prompts.limit"] is None else config["prompts.limit"]
    drawn = number * config["training.pairs.each"] * steps
    # Without the negative half: policy and reference of two pictures; of one, and once more for the reference point.
    forward, back = (2.0, 1.0) if kind == "dpo" else (1.5, 0.5)
    return drawn + examples * forward, examples * back
