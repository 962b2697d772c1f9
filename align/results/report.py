"""`python -m align report FOLDERS...`: what methods gain over a baseline, and what they cost.

Every picture is compared with the baseline's of the same prompt, seed and sample. What has no partner is
counted and said. Values that a method optimised itself are marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.results.errors import ReportError

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

    from align.results.arms import Arm

EXPLANATION = (
    "Intervals are 95% bootstrap intervals over prompts (10,000 resamples, seeded). "
    "A win is a higher value than the baseline's on the same prompt, seed and sample; a tie counts half."
)


@dataclass
class Report:
    """A finished comparison.

    Attributes:
        arms: the configurations compared, the baseline first.
        baseline: label of the one that others are compared with.
        summary: one row an arm: `label` and the columns of `tables.summary`.
        pairs: one row an arm and value, see `compare.paired_differences`.
        costs: one row an arm and cost: arm, cost, mean, ratio.
        notes: what was left out or is incomplete, one line each.
    """

    arms: list[Arm]
    baseline: str
    summary: pandas.DataFrame
    pairs: pandas.DataFrame
    costs: pandas.DataFrame
    notes: list[str]

    def sections(self) -> dict[str, dict[str, dict[str, str]]]:
        """The tables as texts: title, row name, column name."""
        from align.results.tables import number, summary_cells, with_interval

        records = [{str(name): cell for name, cell in row.items()} for row in self.summary.to_dict("records")]
        quality = {
            str(row["label"]): {"n": str(row["n"]), "failed": str(row["failed"])} | summary_cells(row)
            for row in records
        }
        gains: dict[str, dict[str, str]] = {}
        wins: dict[str, dict[str, str]] = {}
        for row in self.pairs.to_dict("records"):
            arm, name, star = str(row["arm"]), str(row["value"]), "*" if row["optimised"] else ""
            pairs = self.pairs[self.pairs["arm"] == arm]["pairs"].max()
            gain = with_interval(row["difference"], row["low"], row["high"], star, signed=True)
            gains.setdefault(arm, {"pairs": str(pairs)})[name] = gain
            rate = with_interval(row["win_rate"], row["win_low"], row["win_high"], star)
            ties = f" ({row['ties']} ties)" if row["ties"] else ""
            wins.setdefault(arm, {})[name] = rate + ties
        prices: dict[str, dict[str, str]] = {}
        for row in self.costs.to_dict("records"):
            ratio = f" ({row['ratio']:.3g}×)" if row["ratio"] == row["ratio"] else ""
            prices.setdefault(str(row["arm"]), {})[str(row["cost"])] = number(row["mean"]) + ratio
        return {
            title: table
            for title, table in {
                "Quality (mean, 95% interval)": quality,
                f"Paired difference to {self.baseline}": gains,
                f"Win rate against {self.baseline}": wins,
                f"Cost of a picture (mean, ratio to {self.baseline})": prices,
            }.items()
            if table
        }

    def render(self) -> Group:
        """The report for the terminal."""
        from rich.console import Group
        from rich.text import Text

        from align.results.tables import grid

        tables = [grid(title, rows) for title, rows in self.sections().items()]
        return Group(*tables, *(Text(line, style="dim") for line in [*self._footnotes(), *self.notes]))

    def markdown(self) -> str:
        """The report as Markdown."""
        lines = ["# Report", "", f"Baseline: **{_cell(self.baseline)}**. {EXPLANATION}", ""]
        for title, rows in self.sections().items():
            lines += [f"## {_cell(title)}", "", *_markdown_table(rows), ""]
        lines += [line.replace("*", "\\*") + "\n" for line in self._footnotes()[1:]]
        if self.notes:
            lines += ["## Notes", "", *(f"- {_cell(note)}" for note in self.notes), ""]
        return "\n".join(lines)

    def write(self, out: Path) -> list[Path]:
        """Write report.md, pairs.csv, costs.csv and summary.csv into the folder `out`; returns their paths.

        Raises:
            ReportError: the folder is not writable.
        """
        from align.results import atomic

        texts = {
            "report.md": self.markdown(),
            "summary.csv": self.summary.to_csv(index=False, lineterminator="\n"),
            "pairs.csv": self.pairs.to_csv(index=False, lineterminator="\n"),
            "costs.csv": self.costs.to_csv(index=False, lineterminator="\n"),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                atomic.write_text(out / name, text)
        except OSError as error:
            raise ReportError(f"cannot write to {out}: {error.strerror or error}") from error
        return [out / name for name in texts]

    def _footnotes(self) -> list[str]:
        from align.results.tables import FOOTNOTE

        starred = any(arm.optimised & {str(name) for name in self.summary.columns} for arm in self.arms)
        return [EXPLANATION, *([FOOTNOTE] if starred else [])]


def report(folders: Sequence[Path], baseline: str | None = None, out: Path | None = None) -> Report:
    """Compare the runs in `folders`.

    Args:
        folders: run folders, or folders of run folders.
        baseline: label, method or folder to compare with; by default the method "none", else the first.
        out: folder for the files of `Report.write`; None writes nothing.

    Raises:
        ReportError: a folder is missing or holds no results, the baseline is unknown, or `out` is not
        writable.
    """
    import pandas

    from align.results.arms import load_arms
    from align.results.compare import choose_baseline, costs, paired_differences, pairing_notes
    from align.results.tables import summarise

    arms, notes = load_arms(folders)
    base = choose_baseline(arms, baseline)
    arms = [base, *(arm for arm in arms if arm is not base)]
    rows = []
    for arm in arms:
        head = {"label": arm.label, "method": arm.method, "backbone": arm.backbone, "reward": arm.reward}
        more = {"failed": arm.failed, "optimised": ";".join(sorted(arm.optimised))}
        rows.append(head | summarise(arm.rows) | more)
    tables = [paired_differences(arm, base) for arm in arms if arm is not base]
    result = Report(
        arms=arms,
        baseline=base.label,
        summary=pandas.DataFrame(rows),
        pairs=pandas.concat(tables, ignore_index=True) if tables else paired_differences(base, base).iloc[:0],
        costs=costs(arms, base),
        notes=notes + pairing_notes(arms, base),
    )
    if out is not None:
        result.write(Path(out))
    return result


def _cell(text: str) -> str:
    for special in "\\|*_[":
        text = text.replace(special, f"\\{special}")
    return text.replace("\n", " ").replace("<", "&lt;")


def _markdown_table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    lines = [f"| | {' | '.join(map(_cell, columns))} |", f"|---|{'---:|' * len(columns)}"]
    for label, cells in rows.items():
        lines.append(f"| {_cell(label)} | {' | '.join(_cell(cells.get(name, '–')) for name in columns)} |")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align report",
        description="Compare runs, picture by picture, with a baseline.",
        epilog=EXPLANATION,
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, or a folder of them"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="method, label or folder to compare with (default: the method 'none', else the first)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write report.md and CSV files there")
    parser.add_argument(
        "--gallery", action="store_true", help="also write gallery.html and contact_sheet.png (needs --out)"
    )
    parser.add_argument(
        "--limit", type=int, default=400, metavar="N", help="rows of pictures in the gallery (default: 400)"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """The command `report`; returns its exit code: 0, or 2 for bad input with one line on stderr."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.gallery and options.out is None:
        print("align report: --gallery needs --out FOLDER", file=sys.stderr)
        return 2
    try:
        made = report(options.folders, options.baseline, options.out)
        written = ["report.md"] if options.out else []
        if options.gallery:
            from align.results.contact_sheet import write_contact_sheet
            from align.results.gallery import write_gallery

            page, sheet = options.out / "gallery.html", options.out / "contact_sheet.png"
            write_gallery(options.folders, page, options.baseline, limit=options.limit)
            write_contact_sheet(options.folders, sheet, options.baseline)
            written += [page.name, sheet.name]
    except ReportError as error:
        print(f"align report: {error}", file=sys.stderr)
        return 2
    from rich.console import Console

    console = Console()
    console.print(made.render())
    for name in written:
        console.print(str(options.out / name), markup=False, highlight=False, soft_wrap=True)
    return 0
