"""The tables of a comparison as texts: values down, arms across."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.analysis.break_even import break_even
from align.analysis.drift import NAMES
from align.analysis.published import EXACT
from align.pages.beside_paper import beside_paper, seconds, skipped
from align.pages.document import Section, Table
from align.pages.numbers import Cell, Estimate, block, decimals, line, number, records
from align.store.columns import is_check

if TYPE_CHECKING:
    import pandas

    from align.analysis.comparison import Comparison
    from align.analysis.groups import Groups
    from align.analysis.published import Published
    from align.analysis.spread import Spread

QUALITY = "Quality (mean, 95% interval)"
FOOTNOTE = "* the method optimised this itself, so it is no evidence for the method"
Row = Mapping[str, Any]


def sections(made: Comparison) -> list[Section]:
    """All tables of a comparison; those of a printed table have the paper's numbers beside ours."""
    frame, published = made.beside_paper(), made.published
    found = [
        *(beside_paper(published, frame) if published and published.printed else [quality(made)]),
        budgets(made),
        Section(f"Win rate against {made.baseline}", _win_rates(made.pairs)),
        *(by_group(made.groups, made.baseline) if made.groups else ()),
        *(_diversity(made.spread, made.baseline) if made.spread else ()),
        _drift(made.drift, made.baseline),
        costs(made, seconds(published) if published else {}),
        *([training(made, published)] if published else ()),
        *([skipped(published)] if published else ()),
    ]
    return [section for section in found if section.rows]


def starred(made: Comparison) -> bool:
    """Whether any mean has a star, see ``FOOTNOTE``."""
    return any(arm.optimised & {str(name) for name in made.summary.columns} for arm in made.arms)


def quality(made: Comparison) -> Section:
    """Means of all values, and paired differences to the baseline."""
    most = made.pairs.groupby("arm", sort=False)["pairs"].max()
    pairs = {str(arm): f"{count} pairs" for arm, count in most.items()}
    gains: Table = ({"pictures": pairs} if pairs else {}) | _gains(made.pairs)
    title = f"Paired difference to {made.baseline}"
    return Section(QUALITY, means_table(records(made.summary)), gains, title)


def means_table(rows: Sequence[Row]) -> dict[str, Mapping[str, Cell | str]]:
    """Summary rows as a table: numbers of pictures, and of failed ones if there are any, then means."""
    found: dict[str, Mapping[str, Cell | str]] = {"pictures": {row["label"]: str(row["n"]) for row in rows}}
    if any(row["failed"] for row in rows):
        found["failed"] = {row["label"]: str(row["failed"]) for row in rows}
    return found | {value: line(cells) for value, cells in means_of(rows).items()}


def costs(made: Comparison, papers: Mapping[str, Cell | str] | None = None) -> Section:
    """Mean costs of a picture that are not zero, with their ratio to the baseline's, and the times that a paper tells."""
    cells: dict[str, Mapping[str, Cell | str]] = {}
    for name, table in made.costs.groupby("cost", sort=False):
        if table["mean"].any():
            own = records(table)
            finest = min(2, decimals(row["ratio"] for row in own))
            means = {}
            for row in own:
                ratio = "" if math.isnan(row["ratio"]) else f"({number(row['ratio'], finest)}×)"
                means[row["arm"]] = Estimate(row["mean"], behind=ratio)
            cells[str(name)] = line(means)
    more = {"seconds, paper": papers} if papers else {}
    return Section(f"Cost of a picture (mean, ratio to {made.baseline})", cells | more)


def budgets(made: Comparison) -> Section:
    """What the budgets came to, of arms that had any."""
    told = {arm.label: arm.rows["info_budget"] for arm in made.arms if "info_budget" in arm.rows}
    cells = {label: {"options": "; ".join(filter(None, rows.unique()))} for label, rows in told.items()}
    return Section("What the budget came to", cells, arms=False)


def training(made: Comparison, table: Published) -> Section:
    """Trained rows in place of guided ones: from how many pictures on they cost less, and what both gain."""
    passes = {
        one.row.label: one.row.training for one in table.lines if one.arm and one.row.training is not None
    }
    values = [*list(table.columns.values())[:1], *([EXACT] if table.toys else [])]
    gains = {
        (row["arm"], row["value"]): _estimate(row, "difference", "low", "high") for row in records(made.pairs)
    }
    cells: dict[str, dict[str, Cell | str]] = {}
    for one in break_even(passes, made.costs):
        cells[f"{one.trained} in place of {one.guided}"] = {
            "passes of the training": str(round(one.training)),
            "passes saved a picture": number(one.saved, 1),
            "cheaper from": f"{one.pictures} pictures",
        }
        for value in values:
            own = {"training": one.trained, "guidance": one.guided}
            there = {name: gains[arm, value] for name, arm in own.items() if (arm, value) in gains}
            cells[f"{one.trained} in place of {one.guided}"] |= {
                f"{value}, gain of {name}": cell for name, cell in line(there, signed=True).items()
            }
    return Section("Training in place of guidance", cells, arms=False)


def means_of(rows: Iterable[Row]) -> dict[str, dict[str, Estimate]]:
    """The means of summary rows by value and label; what was optimised has a star."""
    found: dict[str, dict[str, Estimate]] = {}
    for row in rows:
        optimised = str(row.get("optimised") or "").split(";")
        for name in row:
            if f"{name}_low" in row and not math.isnan(row[name]):
                mark, ends = "*" if name in optimised else "", (row[f"{name}_low"], row[f"{name}_high"])
                found.setdefault(name, {})[row["label"]] = Estimate(row[name], *ends, mark)
    return found


def _gains(pairs: pandas.DataFrame) -> dict[str, Mapping[str, Cell | str]]:
    found: dict[str, dict[str, Estimate]] = {}
    for row in records(pairs):
        found.setdefault(row["value"], {})[row["arm"]] = _estimate(row, "difference", "low", "high")
    return {value: line(cells, signed=True) for value, cells in found.items()}


def _win_rates(pairs: pandas.DataFrame) -> Table:
    found: dict[str, dict[str, Estimate]] = {}
    for row in records(pairs):
        ties = f"({row['ties']} tie{'s' * (row['ties'] > 1)})" if row["ties"] else ""
        rate = _estimate(row, "win_rate", "win_low", "win_high", ties)
        found.setdefault(row["value"], {})[row["arm"]] = rate
    return block(found)


def by_group(groups: Groups, baseline: str) -> list[Section]:
    """Groups down, for each value; of the checker's verdicts their sum alone."""
    counts: dict[str, dict[str, str]] = {}
    means: dict[str, dict[str, dict[str, Estimate]]] = {}
    gains: dict[str, dict[str, dict[str, Estimate]]] = {}
    for row in records(groups.summary):
        counts.setdefault(row["group"], {})[row["label"]] = str(row["n"])
        for value, cells in means_of([row]).items():
            means.setdefault(value, {}).setdefault(row["group"], {}).update(cells)
    for row in records(groups.pairs):
        gain = _estimate(row, "difference", "low", "high", f"(n={row['pairs']})")
        gains.setdefault(row["value"], {}).setdefault(row["group"], {})[row["arm"]] = gain
    found = [Section(f"Pictures by {groups.name}", counts)]
    for value, table in means.items():
        if not is_check(value) or value == "check_all":
            if len(table) > 1 and (over := _over_groups(list(table.values()))):
                table["mean of groups"] = over
            title = f"{value} by {groups.name}"
            gain_table = block(gains.get(value, {}), signed=True)
            head = f"{title} (mean, 95% interval)"
            found.append(Section(head, block(table), gain_table, f"{title}: paired difference to {baseline}"))
    return found


def _over_groups(groups: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The mean over groups of each arm that is in all of them, however many pictures a group has: what GenEval calls overall."""
    arms = [arm for arm in groups[0] if all(arm in cells for cells in groups)]
    return {arm: Estimate(sum(cells[arm].mean for cells in groups) / len(groups)) for arm in arms}


def _diversity(spread: Spread, baseline: str) -> list[Section]:
    found = []
    for of, title in {"prompt": "Diversity within a prompt", "run": "Diversity of all pictures"}.items():
        rows = [row for row in records(spread.figures) if row["of"] == of]
        values: dict[str, Mapping[str, Cell | str]] = {
            "features": {row["arm"]: row["features"] for row in rows},
            "pictures": {row["arm"]: number(row["pictures"]) for row in rows},
            "K": {row["arm"]: number(row["dimensions"]) for row in rows if row["value"] == "entropy"},
        }
        if of == "prompt":
            values["prompts"] = {
                row["arm"]: number(row["groups"]) for row in rows if row["value"] == "distance"
            }
        gains: dict[str, dict[str, Cell]] = {}
        for value in ("distance", "entropy"):
            own = {row["arm"]: row for row in rows if row["value"] == value}
            means, differences = (
                {arm: Estimate(*(row[end] for end in ends)) for arm, row in own.items()}
                for ends in (("mean", "low", "high"), ("difference", "difference_low", "difference_high"))
            )
            values[value] = line(means)
            others = {arm: one for arm, one in differences.items() if arm != baseline}
            gains |= {value: line(others, signed=True)} if others else {}
        if rows:
            found.append(Section(title, values, gains, f"{title}: difference to {baseline}"))
    return found


def _drift(drift: pandas.DataFrame, baseline: str) -> Section:
    title = "Size of the finished latents, |z| / √dim"
    rows = records(drift)
    norm, difference, size = (
        {row["arm"]: _estimate(row, name, f"{name}_low", f"{name}_high") for row in rows} for name in NAMES
    )
    if not rows:
        return Section(title, {})
    apart = {arm: one for arm, one in size.items() if not math.isnan(one.mean)}
    known = {arm: one for arm, one in difference.items() if arm in apart}
    cells = {"mean": line(norm)} | ({"mean |difference|": line(apart)} if apart else {})
    gains = {"mean": line(known, signed=True)} if known else {}
    return Section(title, cells, gains, f"{title}: paired difference to {baseline}")


def _estimate(row: Row, mean: str, low: str, high: str, behind: str = "") -> Estimate:
    return Estimate(row[mean], row[low], row[high], "*" if row.get("optimised") else "", behind)
