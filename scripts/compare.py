"""Methods with settings of their own at equal compute on the shapes world: ``python scripts/compare.py run`` and ``... page``.

On any backbone, and with numbers that are found for a budget: ``python -m align table compare``.

``--of`` says which comparison: of methods on the UNet, on the flow transformer.  ``tune`` tries the settings that say how hard a method follows the reward, on validation prompts; ``run`` makes every method's
pictures at each budget (a run that was stopped goes on where it was), ``diversity`` several of a prompt; ``page`` reads the
folders and writes docs/compare.md with its figure.  A budget is in network evaluations a picture; a backward pass counts as
many as it takes as long as, measured on the device that makes the pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from align.runner.children import Children  # noqa: E402
from scripts.comparison.arms import COMPARISONS, DIVERSITY, Arm, tuned  # noqa: E402

TUNE_FOLDER = Path("outputs/shapes_compare_tune")


def make(some: Sequence[Arm], folders: Mapping[int, Path], experiment: list[str], jobs: int) -> int:
    """Run the arms with the noise of each seed, ``jobs`` at a time, each of which prints a line when it is done; returns the worst exit code."""
    commands = {}
    for seed, folder in folders.items():
        for arm in some:
            place = str(folder / arm.label)
            named = (f"seed={seed}", f"method.name={arm.label}", f"run.folder={place}")
            commands[place] = [*experiment, *arm.options, *named]
    return Children(Console()).run(commands, jobs)


def backward_cost(options: list[str], batch: int) -> float:
    """Seconds of the network's backward pass over those of its forward pass, of a configuration."""
    import torch

    from align.backbones.base import Conditioning
    from align.commands.parser import parse
    from align.config.compose import jobs_of
    from align.runner.build import build_sampler
    from align.sampling.batching import Calls
    from align.sampling.sampler import Sampler

    (job,) = jobs_of(parse([*options, "method=none"]))
    sampler = build_sampler(job.config, Calls(batch))
    assert isinstance(sampler, Sampler)
    backbone, guider, where = sampler.parts.predict.backbone, sampler.parts.predict.guider, sampler.device
    step = sampler.parts.process.steps[len(sampler.parts.process.steps) // 2]
    read = Conditioning.of([backbone.encode("a red circle above a blue square", "")] * batch)
    z = torch.randn(batch, *backbone.latent_shape(), device=where)

    def seconds(*, back: bool) -> float:
        best = float("inf")
        for _ in range(6):
            if where.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            leaf = z.clone().requires_grad_(back)
            with torch.set_grad_enabled(back):
                found = backbone.predict(leaf, step, read, guider).x0
            if back:
                torch.autograd.grad(found.sum(), leaf)
            if where.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
        return best

    plain = seconds(back=False)
    return seconds(back=True) / plain - 1


def main() -> int:
    """Tune, run, or write the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tune", "run", "diversity", "page"))
    parser.add_argument("--of", choices=COMPARISONS, default="unet", help="which comparison")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", nargs="*", help="labels of arms")
    parser.add_argument(
        "--with", nargs="*", default=[], dest="more", help="options of runs: run.batch_size=256"
    )
    args = parser.parse_args()
    chosen = COMPARISONS[args.of]
    if args.what == "page":
        from scripts.comparison.page import write_page

        write_page(chosen, ROOT / "docs")
        return 0
    some, folders, options = {
        "tune": (tuned(), {0: TUNE_FOLDER}, ("prompts=shapes_val_pair", "prompts.limit=32")),
        "run": (chosen.arms, {seed: chosen.of_seed(seed) for seed in chosen.seeds}, chosen.options),
        "diversity": (chosen.several, {0: chosen.folder / "diversity"}, (*chosen.options, *DIVERSITY)),
    }[args.what]
    if args.only:
        if unknown := set(args.only) - {arm.label for arm in some}:
            parser.error(
                f"no such arms: {', '.join(sorted(unknown))}; there are {', '.join(arm.label for arm in some)}"
            )
        some = [arm for arm in some if arm.label in args.only]
    experiment = ["experiment=shapes_compare", *options, *args.more]
    ratio = backward_cost(experiment, 64)
    folders[0].mkdir(parents=True, exist_ok=True)
    (folders[0] / "backward.json").write_text(json.dumps({"backward_over_forward": ratio}) + "\n")
    print(f"a backward pass of the network takes {ratio:.2f} times as long as a forward pass", flush=True)
    return make(some, folders, experiment, args.jobs)


if __name__ == "__main__":
    sys.exit(main())
