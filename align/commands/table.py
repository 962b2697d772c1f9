"""``python -m align table NAME...``: the runs of tables, each once, then their pages: beside a paper, or at equal cost."""

from __future__ import annotations

from collections.abc import Sequence

from align.commands.parser import Parser, number_of
from align.runner.exits import DONE, INTERRUPTED

MORE = "What is finished is not run again: the same command goes on where it was stopped."
EXAMPLES = {
    "dymo_table1 --scale shapes": "all rows on the shapes world",
    "compare backbone=sdxl reward=pickscore budget.calls=200": "methods against best-of-N at equal cost, on any backbone",
    "dymo_table1 --plan": "what would be run on the published models, and why the rest is not",
    "dymo_table4 --only plain,fixed_5 --jobs 2": "two rows, side by side",
    "dymo_table1 --for alignprop backbone.lora=FILE.safetensors": "a row that needs what you have",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError, FilesMissing before any work."""
    parser = _parser()
    found = parser.read(argv)
    names = [text for text in found.words if "=" not in text and not text.startswith("~")]
    texts = [text for text in found.words if text not in names]
    if not names:
        parser.error("name one or more tables, such as dymo_table1")
    command = parser.command(found, texts)
    own: dict[str, tuple[str, ...]] = {}
    for row, text in found.own:
        if "=" not in text:
            parser.error(f"--for {row} {text}: give --for ROW OPTION=VALUE")
        own[row] = (*own.get(row, ()), text)
    from rich.console import Console

    from align.runner.paper_rows import Choice, resolve
    from align.runner.paper_runs import configs_of, make, plan_text, report_table, runs_of

    only = tuple(name for text in found.only for name in text.split(",") if name)
    choice = Choice(found.scale, command.overrides, own, only, command.config_dir)
    tables = resolve(list(dict.fromkeys(names)), choice)
    console = Console(soft_wrap=True, highlight=False)
    runs = runs_of(tables)
    console.print(plan_text(tables, runs, exact=found.plan), markup=False)
    if found.plan:
        return DONE
    if found.fetch:
        from align.runner.files import needed_by_all
        from align.runner.survey import fetch_missing

        return fetch_missing(lambda: needed_by_all(configs_of(runs)))
    code = make(runs, found.jobs, choice, console)
    if code == INTERRUPTED:
        return code
    for table in tables:
        report_table(table, console)
    return code


def _parser() -> Parser:
    parser = Parser("table", MORE, EXAMPLES)
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="NAME | OPTION=VALUE",
        help="tables (experiments), and options of every run",
    )
    add("--scale", choices=("full", "shapes"), default="full", help="models: published (default), or shapes")
    add("--only", action="append", default=[], metavar="ROW,ROW", help="run these rows alone")
    add(
        "--for",
        dest="own",
        nargs=2,
        action="append",
        default=[],
        metavar=("ROW", "OPTION=VALUE"),
        help="an option of one row",
    )
    add("--jobs", type=number_of, default=1, metavar="N", help="runs at a time (default: 1)")
    add("--plan", action="store_true", help="say what would be run, and why the rest is not")
    add("--fetch", action="store_true", help="bring the weights that the rows need, run nothing")
    parser.takes_configs(primary=False)
    return parser
