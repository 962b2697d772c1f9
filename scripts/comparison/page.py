"""The page of ``scripts/compare.py``: a table, a figure and what was not run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.analysis.arms import Arm as Results
from align.analysis.arms import load_arms
from align.analysis.paired import paired_differences
from align.analysis.spread import measure
from align.pages.numbers import number, with_interval
from align.scoring.embeddings import embeddings
from scripts.comparison.arms import Arm, Comparison

VALUES = {
    "check_all": "checker: all right",
    "shapes_pick": "`shapes_pick`*",
    "shapes_hps": "`shapes_hps`",
    "shapes_imagereward": "`shapes_imagereward`",
    "shapes_aesthetic": "`shapes_aesthetic`",
}
"""What the table tells of each arm: differences to plain sampling; the star is the reward that is followed."""
RIVAL, AGAINST = "best_of_n", ("check_all", "shapes_pick")
"""Whom each method is also compared with at its budget, and in what."""
FEATURES = "shapes_hps"
"""Embeddings of the diversity: not of the reward that is followed."""


Intervals = dict[str, tuple[float, float, float]]
"""(mean, low, high) by value or label."""


@dataclass(frozen=True)
class Found:
    """What was measured of one arm.

    Attributes:
        arm: which.
        forward, backward: network evaluations a picture, mean.
        spent: in forward passes.
        seconds: a picture, mean.
        differences: (mean, low, high) to plain sampling by value.
        against: the same to the rival at that budget; nothing for the rival.
        noises: the differences of each seed by itself, where there are several.
        pictures: how many pairs.
    """

    arm: Arm
    forward: float
    backward: float
    spent: float
    seconds: float
    differences: Intervals
    against: Intervals
    noises: dict[int, Intervals]
    pictures: int


def read(comparison: Comparison) -> tuple[list[Found], dict[str, Any]]:
    """What the folders of the arms hold, and the facts of the whole: the backward ratio and the base's means."""
    folder = comparison.folder
    there = {arm: runs for arm in comparison.arms if (runs := finished(comparison, arm))}
    loaded, _ = load_arms([run for runs in there.values() for run in runs])
    by_method = {one.method: one for one in loaded}
    base = by_method[comparison.base]
    ratio = json.loads((folder / "backward.json").read_text())["backward_over_forward"]
    found = []
    for arm in there:
        one = by_method[arm.label]
        rows = one.rows
        forward, backward = float(rows["network_forward"].mean()), float(rows["network_backward"].mean())
        rival = by_method.get(f"{RIVAL}_{arm.budget}")
        found.append(
            Found(
                arm,
                forward,
                backward,
                forward + ratio * backward,
                float(rows["seconds"].mean()),
                differences(one, base) if one is not base else {},
                differences(one, rival) if rival is not None and rival is not one else {},
                by_seed(one, base) if one is not base else {},
                len(rows),
            )
        )
    means = {value: float(base.rows[value].mean()) for value in VALUES}
    return found, {"ratio": ratio, "means": means, "pictures": len(base.rows)}


def finished(comparison: Comparison, arm: Arm) -> list[Path]:
    """Folders of an arm's runs, of those seeds that were made."""
    runs = [comparison.of_seed(seed) / arm.label for seed in comparison.seeds]
    return [run for run in runs if (run / "results.csv").is_file()]


def differences(one: Results, other: Results) -> Intervals:
    """Of the means of each value over the pictures that both have."""
    rows = paired_differences(one, other).to_dict("records")
    return {
        str(row["value"]): (float(row["difference"]), float(row["low"]), float(row["high"]))
        for row in rows
        if row["value"] in VALUES
    }


def by_seed(one: Results, other: Results) -> dict[int, Intervals]:
    """``differences`` of each seed's pictures by themselves; nothing where there is one seed."""
    seeds = sorted({int(seed) for seed in one.rows["seed"]})
    if len(seeds) == 1:
        return {}
    return {seed: differences(replace(one, rows=one.rows[one.rows["seed"] == seed]), other) for seed in seeds}


def read_diversity(arms: Sequence[Arm], folder: Path) -> tuple[Intervals, str]:
    """Distance of pictures of one prompt: of each label, as a difference to plain sampling's; and the latter in words."""
    there = [arm for arm in arms if (folder / arm.label / "results.csv").is_file()]
    loaded, _ = load_arms([folder / arm.label for arm in there])
    base = next(one for one in loaded if one.method == "none")
    figures = measure(loaded, base, embed=embeddings, features=FEATURES).figures
    distances = figures[(figures["of"] == "prompt") & (figures["value"] == "distance")]
    rows: dict[str, dict[str, Any]] = {str(row["arm"]): row for row in distances.to_dict("records")}  # type: ignore[misc]
    found: Intervals = {}
    for one in loaded:
        if one is not base:
            row = rows[one.label]
            found[one.method] = (row["difference"], row["difference_low"], row["difference_high"])
    prompts, pictures = base.rows["prompt"].nunique(), len(base.rows)
    mean = number(float(rows[base.label]["mean"]))
    return found, f"{pictures // prompts} pictures of each of {prompts} prompts, mean distance {mean}"


def table(found: Sequence[Found], budget: int, diversity: Intervals) -> list[str]:
    """Markdown rows of one budget, the best by the checker first; diversity where it was measured."""
    some = [one for one in found if one.arm.budget == budget and one.differences]
    some.sort(key=lambda one: -one.differences["check_all"][0])
    measured = any(one.arm.label in diversity for one in some)
    head = [
        "method",
        *VALUES.values(),
        *["diversity"] * measured,
        *(f"{VALUES[name]} against `{RIVAL}`" for name in AGAINST),
        "network forward / backward",
        "in forward passes",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in some:
        cells = [f"`{one.arm.name}`"]
        cells += [with_interval(*one.differences[name], signed=True) for name in VALUES]
        if measured:
            cells.append(with_interval(*diversity[one.arm.label], signed=True))
        cells += [with_interval(*one.against[name], signed=True) if one.against else "" for name in AGAINST]
        cells += [f"{number(one.forward)} / {number(one.backward)}", f"{one.spent:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def noise_table(found: Sequence[Found], budget: int) -> list[str]:
    """Markdown rows of one budget's arms by seed; nothing where there is one seed."""
    rows = [
        (one.arm.name, seed, differences)
        for one in found
        if one.arm.budget == budget
        for seed, differences in one.noises.items()
    ]
    if not rows:
        return []
    lines = ["Each noise by itself:", "", "| method | seed | " + " | ".join(VALUES.values()) + " |"]
    lines.append("|" + "---|" * (2 + len(VALUES)))
    for name, seed, differences in rows:
        cells = (with_interval(*differences[value], signed=True) for value in VALUES)
        lines.append(f"| `{name}` | {seed} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def draw(found: Sequence[Found], out: Path) -> None:
    """Gain of the followed reward and of exact accuracy against cost, and the one against the other, as SVG."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    from align import writing

    names = list(dict.fromkeys(one.arm.name for one in found if one.arm.budget))
    panels_of = (
        ("shapes_pick", "gain of the reward that is followed"),
        ("check_all", "gain of exact accuracy (never optimised)"),
    )
    with matplotlib.rc_context(
        {"svg.hashsalt": "align", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, 3)
        for place, name in enumerate(names):
            some = sorted((one for one in found if one.arm.name == name), key=lambda one: one.spent)
            colour, marker = f"C{place % 10}", "os^vD<>Px*"[place % 10]
            for panel, (value, label) in zip(panels, panels_of, strict=False):
                at = [one.spent * (1 + 0.012 * (place - len(names) / 2)) for one in some]
                means, low, high = zip(*(one.differences[value] for one in some), strict=True)
                errors = [
                    [mean - bound for mean, bound in zip(means, low, strict=True)],
                    [bound - mean for mean, bound in zip(means, high, strict=True)],
                ]
                style = {
                    "color": colour,
                    "marker": marker,
                    "markersize": 5,
                    "linewidth": 1.2,
                    "elinewidth": 0.6,
                }
                panel.errorbar(at, means, yerr=errors, label=name, **style)
                panel.set_ylabel(label)
            both = [(one.differences["shapes_pick"][0], one.differences["check_all"][0]) for one in some]
            panels[2].plot(*zip(*both, strict=True), color=colour, marker=marker, markersize=5, linewidth=1.2)
        for panel in panels[:2]:
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(FixedLocator(range(20, 200, 20)))
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xlabel("cost of a picture, network forward passes")
            panel.axhline(0, color="0.7", linewidth=0.8)
        panels[2].axhline(0, color="0.7", linewidth=0.8)
        panels[2].set_xlabel("gain of the reward that is followed")
        panels[2].set_ylabel("gain of exact accuracy")
        panels[2].legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize="small", ncols=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    writing.write_bytes(out, buffer.getvalue())


def write_page(comparison: Comparison, docs: Path) -> None:
    """Write the figure of a comparison and its tables, which stand between two marks of ``compare.md``."""
    found, facts = read(comparison)
    diversity: Intervals = {}
    told = ", ".join(f"{label} {number(facts['means'][name])}" for name, label in VALUES.items())
    base = "Plain sampling" if comparison.base == "none" else f"`{comparison.base}`"
    first = f"{base}, {facts['pictures']} pictures: {told}."
    if comparison.diversity:
        diversity, measured = read_diversity(comparison.several, comparison.folder / "diversity")
        first += f" Diversity: {measured}."
    if comparison.figure:
        draw(found, docs / comparison.figure)
    if any(one.backward for one in found):
        first += f" A backward pass of the network took {facts['ratio']:.2f} forward passes."
    lines = [first, ""]
    for budget in sorted({one.arm.budget for one in found} - {0}):
        fewer = {one.pictures for one in found if one.arm.budget == budget} - {facts["pictures"]}
        told = f", {min(fewer)} pictures" if fewer else ""
        lines += [
            f"**{comparison.title(budget)}{told}**",
            "",
            *table(found, budget, diversity),
            "",
            *noise_table(found, budget),
        ]
    if several := _line(found):
        lines += [f"Without a budget: {several}", ""]
    page = docs / "compare.md"
    before, mark, rest = page.read_text(encoding="utf-8").partition(f"<!-- {comparison.name} -->")
    _, end, after = rest.partition(f"<!-- end of {comparison.name} -->")
    assert end, f"{page} has no place for {comparison.name}"
    page.write_text(f"{before}{mark}\n\n" + "\n".join(lines) + f"\n{end}{after}", encoding="utf-8")


def _line(found: Sequence[Found]) -> str:
    """The plain baselines beside the one that others are compared with."""
    some = [one for one in found if not one.arm.budget and one.differences]
    parts = [
        f"`{one.arm.name}` "
        + ", ".join(
            f"{label} {with_interval(*one.differences[name], signed=True)}" for name, label in VALUES.items()
        )
        for one in some
    ]
    return "; ".join(parts)
