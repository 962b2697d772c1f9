"""`python -m align table NAME...`: the runs of published tables, each once, then paper and ours side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from align.commands.parser import OneLineParser, number_of
from align.config.errors import ConfigError
from align.config.schema import Config
from align.runner.estimate import cost_line, network_evaluations
from align.runner.exits import DONE, INTERRUPTED
from align.runner.interrupts import Interrupts
from align.runner.paper_rows import Choice, Row, Table, resolve
from align.store.errors import ReportError
from align.store.table_plan import FileRow, TableFile, relative

GALLERY_ROWS = 48
"""Prompts in a table's gallery, which has a picture for each of its rows."""


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code. Raises ConfigError, MissingWeights before any work."""
    options = _parser().parse_intermixed_args(list(argv))
    names = [text for text in options.what if "=" not in text and not text.startswith("~")]
    if not names:
        raise ConfigError("table: name one or more tables, such as dymo_table1")
    if options.config_dir is not None and not options.config_dir.is_dir():
        raise ConfigError(
            f"--config-dir {options.config_dir} is not a folder: give one that holds config groups"
        )
    own: dict[str, tuple[str, ...]] = {}
    for row, text in options.own:
        if "=" not in text:
            raise ConfigError(f"--for {row} {text}: give --for ROW OPTION=VALUE")
        own[row] = (*own.get(row, ()), text)
    texts = tuple(text for text in options.what if text not in names)
    choice = Choice(
        options.scale,
        texts,
        own,
        tuple(name for text in options.only for name in text.split(",") if name),
        options.config_dir,
    )
    tables = resolve(list(dict.fromkeys(names)), choice)
    console = Console(soft_wrap=True, highlight=False)
    runs = runs_of(tables)
    console.print(plan_text(tables, runs), markup=False)
    if options.plan:
        return DONE
    if options.fetch:
        return fetch(runs)
    code = make(runs, options.jobs, choice, console)
    if code == INTERRUPTED:
        return code
    for table in tables:
        report_table(table, console)
    return code


def runs_of(tables: Sequence[Table]) -> dict[str, Row]:
    """The runs that are to be made, by folder; rows of any table that are the same run share one."""
    rows = [row for table in tables for row in table.rows]
    return {str(row.config.run.folder): row for row in rows if row.config is not None and row.chosen}


def plan_text(tables: Sequence[Table], runs: Mapping[str, Row]) -> str:
    """What a command will do: each table's rows, with the reason of those that are not run, then the runs."""
    lines = []
    for table in tables:
        lines.append(f"{table.name}: {table.table.title} ({table.scale})")
        for row in table.rows:
            run = Path(str(row.config.run.folder)).name if row.config and row.chosen else ""
            where = run or f"not run: {row.why_not}"
            lines.append(f"  {row.key:<14} {row.label}: {where}")
    lines.append(f"{len(runs)} runs")
    for folder, row in runs.items():
        if row.config is not None:
            cost = cost_line(row.config, 1).partition(";")[0]
            lines.append(f"  {Path(folder).name}: {cost}")
    return "\n".join(lines)


def fetch(runs: Mapping[str, Row]) -> int:
    """Fetch what the runs need and the net has; returns 0 if nothing is missing afterwards, else 3."""
    from align.commands.doctor import fetch_missing
    from align.runner.weights import needed_by_all

    return fetch_missing(lambda: needed_by_all(_configs(runs)))


def make(runs: Mapping[str, Row], jobs: int, choice: Choice, console: Console) -> int:
    """Make all runs; what an earlier call has finished is not made again. Returns the worst exit code.

    Raises:
        ConfigError, MissingWeights: before any of them starts.
    """
    from align.commands.run import run_all
    from align.runner.prepare import prepare

    configs = _configs(runs)
    if not configs:
        return DONE
    if jobs == 1:
        return run_all(configs)
    prepare(configs)
    more = [f"--config-dir={choice.config_dir}"] if choice.config_dir else []
    if not any(text.lstrip("+").startswith("run.threads=") for text in choice.options):
        more.append(f"run.threads={max(1, (os.cpu_count() or 1) // jobs)}")
    return _Children(console).run(
        {folder: [*more, *runs[folder].options] for folder in _longest_first(runs)}, jobs
    )


def _configs(runs: Mapping[str, Row]) -> list[Config]:
    return [row.config for row in runs.values() if row.config is not None]


def _longest_first(runs: Mapping[str, Row]) -> list[str]:
    """The folders of runs in the order in which several at a time take them, so that none is left alone at the end."""

    def cost(row: Row) -> float:
        assert row.config is not None
        return network_evaluations(row.config)[1] * (1 + row.config.method.guided)

    return sorted(runs, key=lambda folder: cost(runs[folder]), reverse=True)


class _Children:
    """Runs in processes of their own, several at a time; an interruption reaches all of them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.living: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def run(self, commands: Mapping[str, Sequence[str]], jobs: int) -> int:
        """Run ``python -m align`` with some arguments for each folder; returns the worst exit code."""
        with Interrupts(), ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(self._one, folder, command) for folder, command in commands.items()]
            try:
                codes = [one.result() for one in waiting]
            except KeyboardInterrupt:
                self._stop()
                return INTERRUPTED
        return max(codes, default=DONE)

    def _one(self, folder: str, command: Sequence[str]) -> int:
        began = time.perf_counter()
        with self.lock:
            if self.stopped:
                return INTERRUPTED
            # In a session of its own, so that Ctrl-C is told to it once, by us.
            child = subprocess.Popen(
                [sys.executable, "-m", "align", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                start_new_session=True,
            )
            self.living.add(child)
        _, said = child.communicate()
        with self.lock:
            self.living.discard(child)
        code = child.returncode if child.returncode >= 0 else 1
        last = (said.strip().splitlines() or [f"ended by signal {-child.returncode}"])[-1]
        end = "" if code == DONE else f": exit {code}, {last}"
        self.console.print(f"{Path(folder).name}  {time.perf_counter() - began:.0f} s{end}", markup=False)
        return code

    def _stop(self) -> None:
        """Let nothing more start, and tell what runs to end after its commit."""
        with self.lock:
            self.stopped = True
            for child in self.living:
                child.send_signal(signal.SIGINT)


def report_table(table: Table, console: Console) -> None:
    """Write a table's `table.json`, report and gallery into its folder, and print the report."""
    from align.analysis.comparison import compare
    from align.pages.gallery import write_gallery
    from align.pages.report import write_report
    from align.pages.terminal import show_report

    folder = table.root / table.name
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
    return TableFile(table.name, head.paper, head.number, head.title, table.scale, head.baseline, rows)


def _file_row(table: Table, row: Row) -> FileRow:
    """A row of it; its run counts if there are results, by whichever command they were made."""
    folder = Path(str(row.config.run.folder)) if row.config else None
    there = folder is not None and (folder / "results.csv").is_file()
    return FileRow(
        key=row.key,
        label=row.label,
        paper=row.row.paper,
        of_table=row.row.of_table or table.table.number,
        folder=relative(folder, table.root / table.name) if folder is not None and there else None,
        why_not="" if there else row.why_not or "its run gave no results",
        note=row.row.note,
    )


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="align table",
        description="Run the rows of published tables, each once, and set the paper's numbers beside them.",
        epilog="What is finished is not run again: the same command goes on where it was stopped.",
    )
    parser.add_argument(
        "what", nargs="*", metavar="NAME|OPTION=VALUE", help="tables (experiments), and options of every run"
    )
    parser.add_argument(
        "--scale", choices=("full", "shapes"), default="full", help="models: published, or shapes"
    )
    parser.add_argument("--only", action="append", default=[], metavar="ROW,ROW", help="run these rows alone")
    parser.add_argument(
        "--for",
        dest="own",
        nargs=2,
        action="append",
        default=[],
        metavar=("ROW", "OPTION=VALUE"),
        help="an option of one row",
    )
    parser.add_argument("--jobs", type=number_of, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--plan", action="store_true", help="say what would be run, and why the rest is not")
    parser.add_argument(
        "--fetch", action="store_true", help="bring the weights that the rows need, run nothing"
    )
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="further folder of config groups")
    return parser
