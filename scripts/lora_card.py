"""Ship a trained LoRA of the shapes world: copy it beside the weights, measure it, write its card.

    python scripts/lora_card.py dpo outputs/train-dpo-shapes-seed0

Measured is ``backbone=shapes_NAME`` against ``backbone=shapes`` on held-out test prompts: differences of the same prompt and noise with
95 % intervals over prompts, and how different the pictures of a prompt are.  Some six minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas

from align.__main__ import main as align
from align.analysis.comparison import Comparison, compare
from align.analysis.spread import measure
from align.checkpoints.reference import TRAINED, TRAINING_COST
from align.scoring.embeddings import embeddings
from scripts.shapes_training.cost import cost

KINDS = {
    "spo": ("SPO (arXiv 2406.04314)", "shapes_spm", "shapes_pick is its kin"),
    "dpo": (
        "Diffusion-DPO (arXiv 2311.12908)",
        "the world's preferences",
        "the checker is their content part",
    ),
    "kto": (
        "Diffusion-KTO (arXiv 2404.04465)",
        "the world's preferences",
        "the checker is their content part",
    ),
    "alignprop": ("AlignProp (arXiv 2310.03739)", "shapes_hps", "which is no evidence for it"),
}
"""Method, what it followed, and what that means for the figures."""
VALUES = ("check_all", "shapes_pick", "shapes_hps", "shapes_imagereward", "shapes_aesthetic")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("run", type=Path, help="folder of the training")
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("outputs/lora_card"), help="where pictures go")
    args = parser.parse_args()
    weights = TRAINED[f"shapes_{args.kind}"]
    weights.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.run / "best" / weights.name, weights)
    spent = cost(args.run)
    (weights.parent / TRAINING_COST).write_text(json.dumps(spent, indent=1) + "\n")
    folders = []
    for backbone in ("shapes", f"shapes_{args.kind}"):
        folder = args.root / backbone
        folders.append(folder)
        options = ["prompts=shapes_pair", f"prompts.limit={args.prompts}", f"samples={args.samples}"]
        code = align(
            [f"backbone={backbone}", "method=none", "metrics=shapes", *options, f"run.folder={folder}"]
        )
        if code:
            raise SystemExit(code)
    made = compare(folders, str(folders[0]), diversity=partial(measure, embed=embeddings))
    card = weights.with_name("README.md")
    card.write_text(text(args.kind, args.run, spent, made))
    print(card.read_text())


def text(kind: str, run: Path, spent: Mapping[str, float], made: Comparison) -> str:
    """The card."""
    method, followed, note = KINDS[kind]
    lines = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    looked = [line for line in lines if line["what"] == "examination"]
    best = max(line["best"] for line in looked)
    config = json.loads((run / "training.json").read_text())["config"]
    rows = [_row(name, made.summary, made.pairs) for name in VALUES if name in set(made.pairs["value"])]
    told = {
        name: config[f"training.{name}"] for name in ("learning_rate", "batch", "each", "epochs", "lora.rank")
    }
    recipe = ", ".join(f"{name} {value}" for name, value in told.items())
    return f"""---
license: apache-2.0
library_name: diffusers
tags: [text-to-image, toy, alignment, lora]
---

# {method} of the shapes world

A LoRA of the [shapes world's own model](../../README.md) (`backbone=shapes_{kind}`; `load_lora_weights` of any pipeline of it), trained by
`python -m align train {kind} backbone=shapes` ({recipe}) on captions of the training split.  It followed {followed}: {note}.

Cost: {spent["network_forward"]:,.0f} passes through the network and {spent["network_backward"]:,.0f} back ({spent["seconds"]:,.0f} seconds of learning on one
core); a pass is a guided one.  These are the weights before round {best}, which the held-out judge liked most.

## Against the model that it began from

{int(made.summary["n"].iloc[0])} pictures of held-out test prompts, 25 deterministic steps, same noise; 95 % intervals over prompts.

| | base | trained | difference |
|---|---|---|---|
{chr(10).join(rows)}
{_diversity(made)}"""


def _row(name: str, summary: pandas.DataFrame, pairs: pandas.DataFrame) -> str:
    base, trained = summary[name]
    gain = pairs[pairs["value"] == name].iloc[0]
    interval = f"{gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"| {'`' + name + '`'} | {base:.3f} | {trained:.3f} | {interval} |"


def _diversity(made: Comparison) -> str:
    if made.spread is None:
        return ""
    figures = made.spread.figures
    own = figures[(figures["of"] == "prompt") & (figures["value"] == "distance")]
    if len(own) < 2:
        return ""
    base, trained = own["mean"]
    gain: Any = own.iloc[1]
    ends = f"[{gain['difference_low']:+.3f}, {gain['difference_high']:+.3f}]"
    told = f"{gain['difference']:+.3f} {ends}"
    return f"| distance of the pictures of a prompt | {base:.3f} | {trained:.3f} | {told} |\n"


if __name__ == "__main__":
    main()
