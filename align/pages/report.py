"""`python -m align report FOLDERS...`: what methods gain over a baseline, and what they cost.

Every picture is compared with the baseline's of the same prompt, seed and sample. What has no partner is
counted and said. Values that a method optimised itself are marked, and stand beside those that it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.commands.parser import OneLineParser, number_of
from align.config.errors import ConfigError
from align.store.errors import ReportError

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

    from align.analysis.arms import Arm
    from align.analysis.groups import Groups
    from align.analysis.published import Published
    from align.analysis.spread import Spread
    from align.pages.document import Document, Figure

PAGES = ("report.md", "report.tex", "report.html")
TRACES = "traces.svg"
TRADEOFF = "tradeoff.svg"
DIFFERENCES = "differences.svg"
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
        drift: one row an arm, see `drift.latent_drift`; none where latents were not measured.
        prompts: one row an arm and prompt, see `compare.prompt_differences`.
        traces: one row an arm, trace and step, see `traces.traces`; none where methods left none.
        spread: diversity, where it was asked for.
        published: the printed table that the arms are rows of, if they are.
        notes: what was left out or is incomplete, one line each.
        groups: the same by a tag of the prompts, where it was asked for.
    """

    arms: list[Arm]
    baseline: str
    summary: pandas.DataFrame
    pairs: pandas.DataFrame
    costs: pandas.DataFrame
    drift: pandas.DataFrame
    prompts: pandas.DataFrame
    traces: pandas.DataFrame
    spread: Spread | None
    published: Published | None
    notes: list[str]
    groups: Groups | None = None

    def sections(self) -> dict[str, dict[str, dict[str, str]]]:
        """The tables as texts: title, row name, column name."""
        from align.analysis.drift import drift_cells

        quality, gains, wins, prices = self._compared()
        first = {
            "Quality (mean, 95% interval)": quality,
            f"Paired difference to {self.baseline}": gains,
        }
        if self.published is not None:
            first = self.published.sections(self.comparison())
            for label, time in self.published.seconds().items():
                prices.setdefault(label, {})["seconds, paper"] = time
        return {
            title: table
            for title, table in {
                **first,
                f"Win rate against {self.baseline}": wins,
                **(self.groups.sections(self.baseline) if self.groups else {}),
                **(self.spread.sections(self.baseline) if self.spread else {}),
                "Size of the finished latents, |z| / sqrt(dim)": drift_cells(self.drift, self.baseline),
                f"Cost of a picture (mean, ratio to {self.baseline})": prices,
                "Rows that are not run": self.published.skipped() if self.published else {},
            }.items()
            if table
        }

    def comparison(self) -> pandas.DataFrame:
        """Paper and ours as data, see `Published.frame`; empty where there is no printed table."""
        import pandas

        return (
            pandas.DataFrame() if self.published is None else self.published.frame(self.summary, self.pairs)
        )

    def _compared(self) -> Sequence[dict[str, dict[str, str]]]:
        """Means, paired differences, win rates and costs as texts, by arm and column."""
        from align.analysis.summary import number, summary_cells, with_interval

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
        return quality, gains, wins, prices

    def render(self) -> Group:
        """The report for the terminal."""
        from rich.console import Group
        from rich.text import Text

        from align.analysis.summary import grid
        from align.output import tame

        made = self.document()
        head = [Text(tame(line)) for line in made.lead] if self.published else []
        tables = [grid(title, rows) for title, rows in made.sections.items()]
        below = [*made.footnotes, *made.notes]
        return Group(*head, *tables, *(Text(tame(line), style="dim") for line in below))

    def document(self) -> Document:
        """The report for the page formats, its figures those that `write` draws."""
        from align.analysis.published import DOUBT
        from align.analysis.summary import FOOTNOTE
        from align.pages.document import Document

        starred = any(arm.optimised & {str(name) for name in self.summary.columns} for arm in self.arms)
        marks = [EXPLANATION, *([FOOTNOTE] if starred else [])]
        title, lead = "Report", [f"Baseline: {self.baseline}."]
        if self.published is not None:
            title = self.published.title
            lead = [*self.published.lead(self.comparison()), *lead]
            marks.append(DOUBT)
        notes = [*self.notes, *(self.published.notes() if self.published else [])]
        return Document(title, lead, self.sections(), marks, self._figures(), notes)

    def markdown(self) -> str:
        """The report as Markdown."""
        from align.pages.document import markdown

        return markdown(self.document())

    def write(self, out: Path) -> list[Path]:
        """Write report.md, .tex and .html, the tables as CSV files and the drawings into the folder `out`.

        Returns:
            Their paths, report.md first.

        Raises:
            ReportError: the folder is not writable.
        """
        from align import writing
        from align.pages import document
        from align.store.csvfile import frame_csv

        tables = {"summary.csv": self.summary, "pairs.csv": self.pairs, "costs.csv": self.costs}
        more = {
            "drift.csv": self.drift,
            "prompts.csv": self.prompts,
            "traces.csv": self.traces,
            "table.csv": self.comparison(),
        }
        tables |= {name: table for name, table in more.items() if len(table)}
        if self.spread is not None:
            tables |= {"diversity.csv": self.spread.figures, "diversity_prompts.csv": self.spread.prompts}
        if self.groups is not None:
            more = {"groups.csv": self.groups.summary, "groups_pairs.csv": self.groups.pairs}
            tables |= {name: table for name, table in more.items() if len(table)}
        made = self.document()
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                writing.write_text(out / name, frame_csv(table))
            self._draw(out)
            texts = (document.markdown(made), document.latex(made), document.html(made, out))
            for page, text in zip(PAGES, texts, strict=True):
                writing.write_text(out / page, text)
        except OSError as error:
            raise ReportError(f"cannot write to {out}: {error.strerror or error}") from error
        return [out / name for name in [*PAGES, *tables, *(figure.name for figure in made.figures)]]

    def _figures(self) -> list[Figure]:
        """The drawings that there is something for."""
        from align.pages.document import Figure

        marks = "Hollow marks: the method optimised this itself." if self.pairs["optimised"].any() else ""
        gain = Figure(TRADEOFF, "Gain and cost", f"Differences with their 95% intervals. {marks}".strip())
        single = Figure(DIFFERENCES, "Prompts", "Differences of single prompts, sorted for each method.")
        steps = Figure(TRACES, "Traces", "Mean over pictures and the range of 80% of them.")
        return [*([gain, single] if self._shown_values() else []), *([steps] if len(self.traces) else [])]

    def _draw(self, out: Path) -> None:
        """Draw them. Raises OSError."""
        from align.analysis.traces import plot_traces
        from align.pages.plots import plot_differences, plot_tradeoff

        values = self._shown_values()
        drawn = {figure.name for figure in self._figures()}
        if TRADEOFF in drawn:
            plot_tradeoff(self.pairs[self.pairs["value"].isin(values)], self.costs, out / TRADEOFF)
        if DIFFERENCES in drawn:
            plot_differences(self.prompts, values, out / DIFFERENCES)
        if TRACES in drawn:
            plot_traces(self.traces, out / TRACES)

    def _shown_values(self) -> list[str]:
        """The values that are drawn: of the checker's verdicts only the one that sums them up."""
        from align.store.columns import is_check

        names = list(dict.fromkeys(map(str, self.pairs["value"])))
        return [name for name in names if name == "check_all" or not is_check(name)]


def report(
    folders: Sequence[Path],
    baseline: str | None = None,
    out: Path | None = None,
    *,
    diversity: bool = False,
    features: str | None = None,
    by: str | None = None,
) -> Report:
    """Compare the runs in `folders`.

    Args:
        folders: run folders, or folders of run folders; or the one folder of a published table.
        baseline: label, method or folder to compare with (of a table: row); by default the table's, or the method
            "none", else the first.
        out: folder for the files of `Report.write`; None writes nothing.
        diversity: measure how much the saved pictures differ; reads them all.
        features: name of the image embeddings for that, see `spread.usual_features`.
        by: also compare within each group of this tag, see `groups.group`.

    Raises:
        ReportError: a folder is missing or holds no results, the baseline or `by` is unknown, `out` is not
        writable, or features are unknown or without weights.
    """
    import pandas

    from align.analysis.arms import load_arms
    from align.analysis.compare import (
        choose_baseline,
        costs,
        independence_notes,
        paired_differences,
        pairing_notes,
        prompt_differences,
    )
    from align.analysis.drift import latent_drift
    from align.analysis.groups import group
    from align.analysis.published import load_published
    from align.analysis.spread import measure
    from align.analysis.summary import summarise
    from align.analysis.traces import traces
    from align.store.table_plan import read_table

    published = None
    file = read_table(Path(folders[0])) if len(folders) == 1 else None
    if file is not None:
        published, arms, notes = load_published(Path(folders[0]), file, baseline)
        base = arms[0]
    else:
        arms, notes = load_arms(folders)
        base = choose_baseline(arms, baseline)
    arms = [base, *(arm for arm in arms if arm is not base)]
    groups = group(arms, base, by) if by is not None else None
    rows = []
    for arm in arms:
        head = {"label": arm.label, "method": arm.method, "backbone": arm.backbone, "reward": arm.reward}
        more = {"failed": arm.failed, "optimised": ";".join(sorted(arm.optimised))}
        rows.append(head | summarise(arm.rows) | more)
    others = [arm for arm in arms if arm is not base]
    tables = [paired_differences(arm, base) for arm in others]
    single = [prompt_differences(arm, base) for arm in others]
    spread = measure(arms, base, features) if diversity else None
    result = Report(
        arms=arms,
        baseline=base.label,
        summary=pandas.DataFrame(rows),
        pairs=pandas.concat(tables, ignore_index=True) if tables else paired_differences(base, base).iloc[:0],
        costs=costs(arms, base),
        drift=latent_drift(arms, base),
        prompts=pandas.concat(single, ignore_index=True) if single else pandas.DataFrame(),
        traces=traces(arms),
        spread=spread,
        published=published,
        notes=[
            *independence_notes(arms),
            *notes,
            *pairing_notes(arms, base),
            *(spread.notes if spread else []),
        ],
        groups=groups,
    )
    if out is not None:
        result.write(Path(out))
    return result


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="align report",
        description="Compare runs, picture by picture, with a baseline.",
        epilog=EXPLANATION,
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="run folder, a folder of them, or the folder of a published table",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="method, label, folder or row to compare with (default: the table's, the method 'none', else the first)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write report.md, .tex and .html, CSV files and drawings there",
    )
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="also compare within each group: a tag of the prompts such as Category, or seed, method, backbone, reward",
    )
    parser.add_argument(
        "--diversity",
        action="store_true",
        help="also measure how much the pictures of a prompt, and of a run, differ (reads all pictures)",
    )
    parser.add_argument(
        "--features",
        metavar="NAME",
        help="image embeddings to measure that in (default: shapes_pick or clip_vit_l14, by the backbone)",
    )
    parser.add_argument(
        "--gallery", action="store_true", help="also write gallery.html and contact_sheet.png (needs --out)"
    )
    parser.add_argument(
        "--limit",
        type=number_of,
        default=400,
        metavar="N",
        help="rows of pictures in the gallery (default: 400)",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """The command `report`; returns its exit code. Raises ConfigError."""
    options = _parser().parse_args(argv)
    if options.gallery and options.out is None:
        raise ConfigError("report: --gallery needs --out FOLDER")
    if options.features is not None and not options.diversity:
        raise ConfigError("report: --features needs --diversity")
    try:
        made = report(
            options.folders,
            options.baseline,
            options.out,
            diversity=options.diversity,
            features=options.features,
            by=options.by,
        )
        written = [*PAGES, *(figure.name for figure in made.document().figures)] if options.out else []
        if options.gallery:
            from align.pages.contact_sheet import write_contact_sheet
            from align.pages.gallery import write_gallery

            page, sheet = options.out / "gallery.html", options.out / "contact_sheet.png"
            write_gallery(options.folders, page, options.baseline, limit=options.limit)
            write_contact_sheet(options.folders, sheet, options.baseline)
            written += [page.name, sheet.name]
    except ReportError as error:
        raise ConfigError(f"report: {error}") from error
    from rich.console import Console

    console = Console()
    console.print(made.render())
    for name in written:
        console.print(str(options.out / name), markup=False, highlight=False, soft_wrap=True)
    return 0
