"""All methods at equal compute on the shapes world: ``python scripts/compare.py run`` and ``... page``.

``tune`` tries the settings that say how hard a method follows the reward, on validation prompts; ``run`` makes every method's
pictures at each budget (a run that was stopped goes on where it was), ``diversity`` several of a prompt; ``page`` reads the
folders and writes docs/compare.md with its figure.  A budget is in network evaluations a picture; a backward pass counts as
many as it takes as long as, measured on the device that makes the pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ROOT_FOLDER = Path("outputs/shapes_compare")
DIVERSITY_FOLDER = Path("outputs/shapes_compare_diversity")
TUNE_FOLDER = Path("outputs/shapes_compare_tune")
ETA_0 = "sampler.eta=0"


@dataclass(frozen=True)
class Arm:
    """One method at one budget.

    Attributes:
        name: of the method in tables.
        budget: network evaluations a picture, about; 0 for the plain baselines.
        options: of the command line.
    """

    name: str
    budget: int
    options: tuple[str, ...]

    @property
    def label(self) -> str:
        """Of its folder and rows."""
        return f"{self.name}_{self.budget}" if self.budget else self.name


# What decides how hard a method follows the reward; chosen by the reward that is followed, on validation prompts (tune).
FK = "method.steering.rate=1"
SMC = "method.tempering.alpha=0.1"
DAS = ("method.tempering.alpha=0.1", "method.guidance.coefficient=0.1")
DYMO_SMC = ("method.tempering.alpha=0.1", "method.guidance.strength=0.03")
DIVERSITY = ("prompts.limit=12", "samples=4")
"""Of the runs whose diversity is measured: at the smallest budget, several pictures of each of fewer prompts."""


def arms() -> list[Arm]:
    """All of them; with 15 steps a particle costs 15 evaluations, not quite twice that with backward passes."""
    found = [
        Arm("none", 0, ("method=none",)),
        Arm("none_eta0", 0, ("method=none", ETA_0)),
    ]
    # Particles without gradients and with; candidates of SVDD; particles and candidates of DSearch and of DSearch-R.
    for budget, plain, guided, candidates, start, tree, several, each in (
        (60, 4, 2, 4, 2, 2, 2, 2),
        (120, 8, 4, 8, 4, 2, 4, 2),
    ):
        found += [
            Arm("best_of_n", budget, ("method=best_of_n", f"method.particles={plain}")),
            Arm("svdd", budget, ("method=svdd", f"method.search.candidates={candidates}")),
            Arm(
                "dsearch",
                budget,
                ("method=dsearch", f"method.particles={start}", f"method.search.candidates={tree}"),
            ),
            Arm(
                "dsearch_r",
                budget,
                (
                    "method=dsearch_r",
                    f"method.particles={several}",
                    "method.returned=1",
                    "method.choose=best",
                    f"method.search.replace={1 / several}",
                    f"method.search.candidates={each}",
                ),
            ),
            Arm("fk", budget, ("method=fk", f"method.particles={plain}", FK)),
            Arm("smc", budget, ("method=smc", f"method.particles={plain}", SMC)),
            Arm("das", budget, ("method=das", f"method.particles={guided}", *DAS)),
            Arm("dymo_smc", budget, ("method=dymo_smc", f"method.particles={guided}", *DYMO_SMC)),
            Arm("dymo", budget, ("method=dymo", f"method.particles={guided}", "method.choose=best", ETA_0)),
            Arm(
                "freedom",
                budget,
                # It repeats some steps, and so takes fewer.
                ("method=freedom", f"method.particles={guided}", "method.choose=best", "sampler.steps=11"),
            ),
        ]
    return found


def for_diversity() -> list[Arm]:
    """The smallest budget's arms and plain sampling."""
    every = arms()
    least = min(arm.budget for arm in every if arm.budget)
    return [arm for arm in every if arm.budget in (0, least)]


def tuned() -> list[Arm]:
    """What ``tune`` tries, at the larger budget."""
    found = [Arm("none", 0, ("method=none",))]
    for rate in (0.5, 1, 2, 4):
        found.append(
            Arm(f"fk_rate{rate}", 180, ("method=fk", "method.particles=12", f"method.steering.rate={rate}"))
        )
    for alpha in (0.1, 0.25, 0.5, 1, 2):
        scale = f"method.tempering.alpha={alpha}"
        found.append(Arm(f"smc_alpha{alpha}", 180, ("method=smc", "method.particles=12", scale)))
    # The coefficient: how much of the target's tilt the proposals take on; weights correct for the rest.
    for alpha, coefficient in ((0.1, 0.03), (0.1, 0.1), (0.25, 1), (0.5, 1), (1, 1)):
        options = (f"method.tempering.alpha={alpha}", f"method.guidance.coefficient={coefficient}")
        name = f"das_alpha{alpha}_coefficient{coefficient}"
        found.append(Arm(name, 180, ("method=das", "method.particles=7", *options)))
    for strength in (0.03, 0.1):
        options = ("method.tempering.alpha=0.1", f"method.guidance.strength={strength}")
        found.append(
            Arm(f"dymo_smc_strength{strength}", 180, ("method=dymo_smc", "method.particles=7", *options))
        )
    return found


def make(some: list[Arm], folder: Path, experiment: list[str], jobs: int, more: list[str]) -> None:
    """Run the arms, ``jobs`` at a time; each prints a line when it is done."""

    def one(arm: Arm) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-m", "align", *experiment, *arm.options, f"method.name={arm.label}"]
        command += [f"run.folder={folder / arm.label}", *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = "" if done.returncode == 0 else f": exit {done.returncode}, {done.stderr.strip()[-300:]}"
        print(f"{arm.label:<24} {time.perf_counter() - began:6.1f} s{said}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, some))


def backward_cost(device: str, batch: int) -> float:
    """Seconds of the network's backward pass over those of its forward pass."""
    import torch

    from align.backbones.base import Conditioning
    from align.backbones.registry import load_folder
    from align.processes.ddim import ddim
    from align.runner.build import torch_device

    where = torch_device(device)
    weights = ROOT / "align/shapes/weights"
    backbone = load_folder(weights, where)
    step = ddim(backbone.scheduler_config, 25, 1.0).steps[10]
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
                found = backbone.predict(leaf, step, read, 4.0).x0
            if back:
                torch.autograd.grad(found.sum(), leaf)
            if where.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
        return best

    plain = seconds(back=False)
    return seconds(back=True) / plain - 1


def main() -> None:
    """Tune, run, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tune", "run", "diversity", "page"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", nargs="*", help="labels of arms")
    parser.add_argument(
        "--with", nargs="*", default=[], dest="more", help="options of runs: run.batch_size=256"
    )
    args = parser.parse_args()
    if args.what == "page":
        from scripts.comparison import write_page

        write_page(arms(), ROOT_FOLDER, for_diversity(), DIVERSITY_FOLDER, ROOT / "docs")
        return
    some, folder, experiment = {
        "tune": (tuned(), TUNE_FOLDER, ("prompts=shapes_val_pair", "prompts.limit=32")),
        "run": (arms(), ROOT_FOLDER, ()),
        "diversity": (for_diversity(), DIVERSITY_FOLDER, DIVERSITY),
    }[args.what]
    if args.only:
        if unknown := set(args.only) - {arm.label for arm in some}:
            parser.error(
                f"no such arms: {', '.join(sorted(unknown))}; there are {', '.join(arm.label for arm in some)}"
            )
        some = [arm for arm in some if arm.label in args.only]
    device = next((one.partition("=")[2] for one in args.more if one.startswith("run.device=")), "auto")
    ratio = backward_cost(device, 64)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backward.json").write_text(json.dumps({"backward_over_forward": ratio}) + "\n")
    print(f"a backward pass of the network takes {ratio:.2f} times as long as a forward pass", flush=True)
    make(some, folder, ["experiment=shapes_compare", *experiment], args.jobs, args.more)


if __name__ == "__main__":
    main()
