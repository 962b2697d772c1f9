"""The runs of tables: each once, several at a time if wanted, then the pages of each table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from align.analysis.break_even import PASSES
from align.checkpoints.reference import TRAINED, TRAINING_COST
from align.config.errors import ConfigError
from align.config.schema import Config
from align.reading import read_json
from align.runner.children import Children
from align.runner.estimate import cost_line, network_evaluations
from align.runner.exits import DONE
from align.runner.paper_rows import Choice, Row, Table
from align.store.errors import ReportError
from align.store.table_plan import FileRow, TableFile, relative

GALLERY_ROWS = 48
"""Prompts in a table's gallery, which has a picture for each of its rows."""


def runs_of(tables: Sequence[Table]) -> dict[str, Row]:
    """The runs that are to be made, by folder; rows of any table that are the same run share one."""
    rows = [row for table in tables for row in table.rows]
    return {str(row.config.run.folder): row for row in rows if row.config is not None and row.chosen}


def plan_text(tables: Sequence[Table], runs: Mapping[str, Row], *, exact: bool = False) -> str:
    """What a command will do: each table's rows, with the reason of those that are not run, then the runs.

    ``exact``: with what their budgets come to, which takes a moment.  Raises ConfigError: one is too small.
    """
    lines = []
    for table in tables:
        scale = "" if table.table.paper is None else f" ({table.scale})"
        lines.append(f"{table.name}: {table.title}{scale}")
        for row in table.rows:
            run = Path(str(row.config.run.folder)).name if row.config and row.chosen else ""
            where = run or f"not run: {row.why_not}"
            lines.append(f"  {row.key:<14} {row.label}: {where}")
    lines.append(f"{len(runs)} runs")
    for folder, row in runs.items():
        if row.config is not None:
            lines.append(f"  {Path(folder).name}: {_cost(row.config, exact=exact)}")
    return "\n".join(lines)


def _cost(config: Config, *, exact: bool) -> str:
    if not config.budget.asked:
        return cost_line(config, 1).partition(";")[0]
    if not exact:
        return f"{config.budget.label} a picture"
    from align.runner.budget import told_before
    from align.runner.files import Files
    from align.runner.prepare import check_backbone

    files = Files(config)
    return told_before(files, lambda one: check_backbone(Files(one, files)))


def make(runs: Mapping[str, Row], jobs: int, choice: Choice, console: Console) -> int:
    """Make all runs that are not finished; returns the worst exit code. Raises ConfigError, FilesMissing before any."""
    from align.runner.launch import run_all
    from align.runner.prepare import prepare

    configs = configs_of(runs)
    if not configs:
        return DONE
    if jobs > 1 and any(config.budget.seconds is not None for config in configs):
        raise ConfigError(
            f"--jobs {jobs}: budget.seconds is measured while nothing else runs: leave --jobs out, or give budget.calls"
        )
    if jobs == 1:
        return run_all(configs)
    prepare(configs)
    more = [f"--config-dir={choice.config_dir}"] if choice.config_dir else []
    if not any(text.lstrip("+").startswith("run.threads=") for text in choice.options):
        more.append(f"run.threads={max(1, (os.cpu_count() or 1) // jobs)}")
    return Children(console).run(
        {folder: [*more, *runs[folder].options] for folder in longest_first(runs)}, jobs
    )


def configs_of(runs: Mapping[str, Row]) -> list[Config]:
    """The configurations of runs."""
    return [row.config for row in runs.values() if row.config is not None]


def longest_first(runs: Mapping[str, Row]) -> list[str]:
    """The folders of runs in the order in which several at a time take them, so that none is left alone at the end."""

    def cost(row: Row) -> float:
        assert row.config is not None
        return network_evaluations(row.config)[1] * (1 + row.config.method.differentiates)

    return sorted(runs, key=lambda folder: cost(runs[folder]), reverse=True)


def report_table(table: Table, console: Console) -> None:
    """Write a table's ``table.json``, report and gallery into its folder, and print the report."""
    from align.analysis.comparison import compare
    from align.pages.gallery import write_gallery
    from align.pages.report import write_report
    from align.pages.terminal import show_report

    folder = table.folder
    try:
        table_file(table).write(folder)
        made = compare([folder])
        write_report(made, folder)
        gallery = write_gallery(made, folder / "gallery.html", limit=GALLERY_ROWS)
        console.print()
        console.print(show_report(made))
    except (ReportError, OSError) as error:
        console.print(f"{table.name}: {error}", markup=False)
        return
    for page in (folder / "report.html", gallery):
        console.print(str(page), markup=False)


def table_file(table: Table) -> TableFile:
    """What the folder of a table says of it."""
    rows = tuple(_file_row(table, row) for row in table.rows)
    head = table.table
    return TableFile(table.name, head.paper, head.number, table.title, table.scale, head.baseline, rows)


def _file_row(table: Table, row: Row) -> FileRow:
    """A row of it; its run counts if there are results, by whichever command they were made."""
    folder = Path(str(row.config.run.folder)) if row.config else None
    there = folder is not None and (folder / "results.csv").is_file()
    return FileRow(
        key=row.key,
        label=row.label,
        paper=row.row.paper,
        of_table=row.row.of_table or table.table.number,
        folder=relative(folder, table.folder) if folder is not None and there else None,
        why_not="" if there else row.why_not or "its run gave no results",
        note=row.row.note,
        training=training_passes(row.row.trained) if table.scale == "shapes" and row.row.trained else None,
    )


def training_passes(weights: str) -> int | None:
    """Passes through the network that the training of embedded weights took, by the file beside them."""
    path = TRAINED[weights].with_name(TRAINING_COST)
    if not path.is_file():
        return None
    cost = read_json(path)
    return sum(int(cost[name]) for name in PASSES)
