"""Tables and figures of ``docs/toy.md``, of what was measured."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from align.toy.problems import DENSITIES
from align.toy.target import tilted
from scripts.toys.measure import METHODS, MODES, PROBLEMS, SHOWN, SWEEP
from scripts.toys.runs import reward_of

TITLES = {
    "gaussian": "`toy_gaussian`: one Gaussian, reward x − y/2",
    "gmm": "`toy_gmm`: nine Gaussians on a grid, reward −x²/100 − y²",
    "gmm2": "`toy_gmm2`: eight Gaussians on a circle, reward −x² − (y−1)²/10",
    "swiss_roll": "`toy_swiss_roll`: reward −(x²+y²)/100 − z²",
}
PUBLISHED = {
    "target": "target (samples)",
    "none": "pretrained",
    "gradient, step 1": "approximate guidance",
    "das_released": "DAS (SMC)",
    "RL (DDPO)": "RL (DDPO)",
    "direct backpropagation": "direct backpropagation",
}
"""Names in the published figures of what is measured here; the last two are not."""
COLOURS = {
    "smc": "#1f77b4",
    "das": "#d62728",
    "best_of_n": "#2ca02c",
    "gradient": "#9467bd",
    "none": "#7f7f7f",
    "tds": "#ff7f0e",
}


def published(path: Path, problem: str, name: str) -> str:
    """A cell: mean reward, and EMD where somebody tells it; second-hand figures are marked."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["problem"], row["method"]) == (problem, name)]
    first: dict[str, str] = {}
    for row in rows:
        mark = "†" if row["source"].startswith("second-hand") else ""
        first.setdefault(row["quantity"], f"{float(row['value']):.2f}".replace("-", "−") + mark)
    cells = [first.get("mean_reward", "")]
    if "emd" in first:
        cells.append(f"EMD {first['emd']}")
    return ", ".join(cells)


def tables(results: dict[str, Any], source: Path) -> str:
    """A table of each problem, in Markdown."""
    return "\n".join(line for problem in PROBLEMS for line in _table(results, source, problem))


def _table(results: dict[str, Any], source: Path, problem: str) -> Iterator[str]:
    truth = results[f"exact/{problem}"]
    error = "masses, L1" if problem in MODES else "mean, L1"
    yield f"\n**{TITLES[problem]}**\n"
    yield f"| | mean reward | {error} | evidence / exact | EMD | network forward / backward | published |"
    yield "|---|---|---|---|---|---|---|"
    emd = _with(truth["floor"][0], truth["floor"][1], 2)
    reward, of_target = truth["reward"], published(source, problem, PUBLISHED["target"])
    yield f"| exact, tilted chain | {_number(reward)} | 0 | 1 | {emd} (floor) | | {of_target} |".replace(
        "|  |", "| |"
    )
    for method in METHODS:
        row = results[f"table/{problem}/{method}"]
        evidence = ""
        if "evidence" in row:
            evidence = _ratio(row["evidence"], row["evidence_error"])
        cells = [
            f"`{method}`",
            _with(row["reward"], row["reward_error"]),
            _number(row["l1"]),
            evidence,
            _with(row["emd"], row["emd_error"], digits=2),
            f"{row['forward']:.0f} / {row['backward']:.0f}",
            published(source, problem, PUBLISHED.get(method, "")),
        ]
        yield f"| {' | '.join(cells)} |"
    for other in list(PUBLISHED)[-2:]:
        if beside := published(source, problem, other):
            yield f"| {other}, not here | | | | | | {beside} |"


def evidence_table(results: dict[str, Any]) -> str:
    """Mean evidence over the exact one against the number of particles."""
    lines = ["| | P | runs | evidence / exact | a run's mean reward, rms error | masses, L1 |"]
    lines.append("|---|---|---|---|---|---|")
    for problem in MODES:
        for method in ("smc", "das"):
            for particles in SWEEP:
                row = results[f"sweep/{problem}/{method}/{particles}"]
                ratio = _ratio(row["evidence"], row["evidence_error"])
                lines.append(
                    f"| `toy_{problem}`, `{method}` | {particles} | {row['runs']} | {ratio} | "
                    f"{_number(row['rms_reward'])} | {_number(row['l1'])} |"
                )
    return "\n".join(lines)


def _number(value: float, digits: int = 3) -> str:
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.4g}"
    return text.replace("-", "−")


def _with(value: float, error: float, digits: int = 3) -> str:
    return f"{_number(value, digits)} ± {_number(error, digits)}"


def _ratio(value: float, error: float) -> str:
    return _with(value, error, 4 if error < 0.005 else 2) if value < 1000 else f"{value:.0e} ± {error:.0e}"


def samples(results: dict[str, Any], path: Path) -> None:
    """What methods return, as points."""
    columns = ("target", *SHOWN)
    figure, grid = plt.subplots(
        len(MODES), len(columns), figsize=(2.0 * len(columns), 4.5), sharex=True, sharey=True
    )
    for axes, problem in zip(grid, MODES, strict=True):
        for ax, method in zip(axes, columns, strict=True):
            truth = results[f"exact/{problem}"]
            if method == "target":
                density = tilted(DENSITIES[problem](), reward_of(problem)).density
                points = density.sample(300, torch.Generator().manual_seed(0)).numpy()
                reward, emd = truth["continuous_reward"], truth["floor"][0]
            else:
                row = results[f"table/{problem}/{method}"]
                points, reward, emd = torch.tensor(row["points"]).numpy(), row["reward"], row["emd"]
            ax.scatter(
                points[:, 0],
                points[:, 1],
                s=5,
                alpha=0.5,
                linewidths=0,
                color="black" if method == "target" else COLOURS.get(method, "#8c564b"),
            )
            ax.set(xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), aspect="equal", xticks=(-4, 0, 4), yticks=(-4, 0, 4))
            ax.set_title(f"{method}\nreward {reward:.2f}, EMD {emd:.2f}", fontsize=8)
            ax.tick_params(labelsize=7)
        axes[0].set_ylabel(f"toy_{problem}", fontsize=9)
    _save(figure, path)


def errors(results: dict[str, Any], path: Path) -> None:
    """How errors fall with particles and with compute."""
    figure, grid = plt.subplots(len(MODES), 4, figsize=(14, 6.4))
    for (one, two, three, four), problem in zip(grid, MODES, strict=True):
        _by_particles(one, results, problem)
        _masses(two, results, problem)
        _rewards(three, results, problem)
        _evidence(four, results, problem)
    labels: dict[str, Any] = {}
    for ax in grid.flat:
        ax.tick_params(which="both", labelsize=7)
        ax.grid(alpha=0.25)
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(labels.values(), labels.keys(), loc="lower center", ncol=len(labels), fontsize=8)
    _save(figure, path, below=0.05)


def _curve(results: dict[str, Any], problem: str, method: str, name: str) -> tuple[list[float], list[float]]:
    rows = [results[f"sweep/{problem}/{method}/{particles}"] for particles in SWEEP]
    return [row["forward"] + row["backward"] for row in rows], [row[name] for row in rows]


def _by_particles(ax: Axes, results: dict[str, Any], problem: str) -> None:
    for method in ("smc", "das"):
        values = _curve(results, problem, method, "rms_reward")[1]
        ax.loglog(list(SWEEP), values, "o-", color=COLOURS[method], label=method)
    start = _curve(results, problem, "smc", "rms_reward")[1][-1] * list(SWEEP)[-1] ** 0.5
    ax.loglog(list(SWEEP), [start / p**0.5 for p in SWEEP], "k--", lw=1, label="P$^{-1/2}$ (first column)")
    ax.set_title(f"toy_{problem}: a run's mean reward, rms error", fontsize=8)
    ax.set_xlabel("particles P", fontsize=8)


def _masses(ax: Axes, results: dict[str, Any], problem: str) -> None:
    for method in ("smc", "das", "best_of_n"):
        costs, values = _curve(results, problem, method, "l1")
        ax.loglog(costs, values, "o-", color=COLOURS[method], label=method)
    for method in ("none", "gradient", "tds"):
        row = results[f"table/{problem}/{method}"]
        ax.loglog([row["forward"] + row["backward"]], [row["l1"]], "s", color=COLOURS[method], label=method)
    costs, values = _curve(results, problem, "smc", "l1")
    ax.loglog(
        costs,
        [values[0] * costs[0] / cost for cost in costs],
        "k:",
        lw=1,
        label="1 / evaluations (second column)",
    )
    ax.set_ylim(min(3e-3, *values), 3)
    ax.set_title("masses of the modes over all runs, L1 error", fontsize=8)
    ax.set_xlabel("network evaluations of a run, forward + backward", fontsize=8)


def _rewards(ax: Axes, results: dict[str, Any], problem: str) -> None:
    for method in ("smc", "das", "best_of_n"):
        costs, values = _curve(results, problem, method, "reward")
        ax.plot(costs, values, "o-", color=COLOURS[method], label=method)
    row = results[f"table/{problem}/gradient"]
    ax.plot(
        [row["forward"] + row["backward"]], [row["reward"]], "s", color=COLOURS["gradient"], label="gradient"
    )
    ax.axhline(results[f"exact/{problem}"]["reward"], color="black", lw=1, label="exact")
    ax.set_xscale("log")
    ax.set_ylim(-3 if problem == "gmm2" else -1, 0.1)
    ax.set_title("mean reward of what is returned (above exact: over-optimised)", fontsize=8)
    ax.set_xlabel("network evaluations of a run, forward + backward", fontsize=8)


def _evidence(ax: Axes, results: dict[str, Any], problem: str) -> None:
    for method, shift in (("smc", 0.95), ("das", 1.05)):
        errors = _curve(results, problem, method, "evidence_error")[1]
        values = _curve(results, problem, method, "evidence")[1]
        places = [shift * particles for particles in SWEEP]
        ax.errorbar(places, values, yerr=errors, fmt="o", capsize=3, color=COLOURS[method], label=method)
    ax.axhline(1, color="black", lw=1)
    ax.set_xscale("log")
    ax.set_title("mean evidence over the exact one, ± standard error", fontsize=8)
    ax.set_xlabel("particles P", fontsize=8)


def _save(figure: Any, path: Path, below: float = 0.0) -> None:
    figure.tight_layout(rect=(0, below, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def write(results: dict[str, Any], folder: Path) -> None:
    """Figures, and the tables between their marks in ``toy.md``."""
    samples(results, folder / "toy_samples.png")
    errors(results, folder / "toy_errors.png")
    page = folder / "toy.md"
    text = page.read_text()
    for name, made in (
        ("methods", tables(results, folder / "toy_published.csv")),
        ("particles", evidence_table(results)),
    ):
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        after = rest.split(f"<!-- end of {name} -->", 1)[1]
        text = f"{before}<!-- {name} -->\n{made}\n<!-- end of {name} -->{after}"
    page.write_text(text)
