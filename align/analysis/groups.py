"""A report's groups: pictures by a tag of their prompts (a benchmark's categories, say) or by another text of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from align.analysis.arms import Arm
from align.analysis.compare import paired_differences
from align.analysis.summary import summarise, summary_cells, with_interval
from align.config.errors import suggestion
from align.store.columns import is_check, is_tag, tag_column
from align.store.errors import ReportError

if TYPE_CHECKING:
    import pandas

OTHERS = ("method", "backbone", "reward", "negative", "seed")
"""What rows are grouped by beside tags."""


@dataclass(frozen=True)
class Groups:
    """Arms by group.

    Attributes:
        name: of what they are grouped by, as people call it.
        summary: one row a group and arm: `by`, `group`, `label`, and the columns of `tables.summary`.
        pairs: one row a group, arm and value: `by`, `group`, and the columns of `compare.paired_differences`.
    """

    name: str
    summary: pandas.DataFrame
    pairs: pandas.DataFrame

    def sections(self, baseline: str) -> dict[str, dict[str, dict[str, str]]]:
        """Tables of texts by title: arms down, groups across, for each value; of the checker's verdicts their sum alone."""
        counts: dict[str, dict[str, str]] = {}
        means: dict[str, dict[str, dict[str, str]]] = {}
        for row in self.summary.to_dict("records"):
            label, group = str(row["label"]), str(row["group"])
            counts.setdefault(label, {})[group] = str(row["n"])
            for value, text in summary_cells({str(key): cell for key, cell in row.items()}).items():
                means.setdefault(value, {}).setdefault(label, {})[group] = text
        gains: dict[str, dict[str, dict[str, str]]] = {}
        for row in self.pairs.to_dict("records"):
            mark = "*" if row["optimised"] else ""
            text = with_interval(row["difference"], row["low"], row["high"], mark, signed=True)
            cells = gains.setdefault(str(row["value"]), {}).setdefault(str(row["arm"]), {})
            cells[str(row["group"])] = f"{text} (n={row['pairs']})"
        made = {f"Pictures by {self.name}": counts}
        for value, table in means.items():
            if is_check(value) and value != "check_all":
                continue
            made[f"{value} by {self.name} (mean, 95% interval)"] = table
            if value in gains:
                made[f"{value} by {self.name}: paired difference to {baseline}"] = gains[value]
        return made


def group(arms: Sequence[Arm], base: Arm, wanted: str) -> Groups:
    """Group the rows of arms.

    Args:
        arms: the baseline first.
        base: the baseline.
        wanted: a tag, by the name of its column in the prompt file or in `results.csv`; or one of `OTHERS`.

    Raises:
        ReportError: no row has such a column.
    """
    import pandas

    column = _column(arms, wanted)
    name = column.removeprefix(tag_column(""))
    texts = _texts(arms, column, f"(no {name})")
    summary: list[dict[str, Any]] = []
    pairs: list[pandas.DataFrame] = []
    for text in dict.fromkeys(text for own in texts for text in own):
        for arm, own in zip(arms, texts, strict=True):
            rows = arm.rows[[other == text for other in own]]
            if rows.empty:
                continue
            found = summarise(rows)
            del found["failed"]  # these rows are the finished ones
            found["optimised"] = ";".join(sorted(arm.optimised))
            summary.append({"by": name, "group": text, "label": arm.label} | found)
            if arm is not base:
                table = paired_differences(replace(arm, rows=rows.reset_index(drop=True)), base)
                table.insert(0, "group", text)
                table.insert(0, "by", name)
                pairs.append(table)
    return Groups(name, pandas.DataFrame(summary), pandas.concat(pairs) if pairs else pandas.DataFrame())


def _column(arms: Sequence[Arm], wanted: str) -> str:
    """The column of `results.csv` that a name stands for."""
    there = dict.fromkeys(str(name) for arm in arms for name in arm.rows.columns)
    tags = [name for name in there if is_tag(name)]
    for name in (wanted, tag_column(wanted)):
        if name in tags:
            return name
    if wanted in OTHERS and wanted in there:
        return wanted
    known = [
        *(name.removeprefix(tag_column("")) for name in tags),
        *(name for name in OTHERS if name in there),
    ]
    without = "" if tags else "; no prompt has a tag: give prompts whose file has further columns"
    raise ReportError(
        f"--by {wanted}: no row has such a column{without}{suggestion(wanted, known, 'columns')}"
    )


def _texts(arms: Sequence[Arm], column: str, none: str) -> list[list[str]]:
    """The group of each row.

    A row that was made before its prompts had tags has the tag that another arm's row of its prompt has.
    """
    cells = [
        [str(cell) if cell == cell and cell is not None else "" for cell in arm.rows[column]]
        if column in arm.rows
        else [""] * len(arm.rows)
        for arm in arms
    ]
    known: dict[str, str] = {}
    if is_tag(column):
        for arm, own in zip(arms, cells, strict=True):
            for prompt, text in zip(arm.rows["prompt"], own, strict=True):
                if text:
                    known.setdefault(str(prompt), text)
    return [
        [text or known.get(str(prompt), none) for prompt, text in zip(arm.rows["prompt"], own, strict=True)]
        for arm, own in zip(arms, cells, strict=True)
    ]
