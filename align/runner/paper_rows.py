"""From a table to its runs: which rows run at a scale and where, and why the others do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from align.config.command import Command
from align.config.compose import jobs_of, quoted
from align.config.convert import plain
from align.config.errors import ConfigError, suggestion
from align.config.places import config_folders, group_choices
from align.config.schema import Config
from align.config.table import RowConfig, TableConfig
from align.reading import read_bytes
from align.runner.default_folder import default_folder
from align.runner.files import files_of
from align.runner.graphs import reads_graphs
from align.runner.plan import identity
from align.store.manifest import digest

Scale = Literal["full", "shapes"]
"""``full``: the published models; ``shapes``: the same rows, methods and code on the shapes world."""
OF_ROWS = ("experiment", "method", "run.folder")
"""What rows choose for themselves, so that a command cannot set it for all of them; those of a paper also the backbone."""
NOT_CHOSEN = "not chosen: --only names other rows"


@dataclass(frozen=True)
class Row:
    """A row of a table at a scale: its name on the command line, in reports, and as the experiment tells it.

    ``options`` are those of its run's command, folder included, and ``config`` is its run; without them there
    is none at this scale.  ``why_not``: the reason where it is not run.
    """

    key: str
    label: str
    row: RowConfig
    options: tuple[str, ...] = ()
    config: Config | None = None
    chosen: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Table:
    """A table at a scale: its experiment's name, what that says of it, title and folder of its pages, its rows."""

    name: str
    table: TableConfig
    scale: Scale
    title: str
    folder: Path
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Choice:
    """What a command says of all its tables: ``options`` of every run, and ``own`` further ones by row.

    ``only`` names the rows to run, all if it is empty.
    """

    scale: Scale = "full"
    options: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    config_dir: Path | None = None


def resolve(names: Sequence[str], choice: Choice) -> list[Table]:
    """The tables of a command, every run composed and checked; equal runs have equal folders. Raises ConfigError."""
    tables = [_with_methods(_table_of(name, choice.config_dir), choice) for name in names]
    published = any(table.paper is not None for table in tables)
    for text in choice.options:
        key = _key(text)
        if key in OF_ROWS or (key == "backbone" and published):
            raise ConfigError(
                f"{text}: the rows of a table choose {key}; give --for ROW {text} to change one of them"
            )
    known = list(dict.fromkeys(key for table in tables for key in table.rows))
    for key in (*choice.only, *choice.own):
        if key not in known:
            raise ConfigError(f"{', '.join(names)}: there is no row {key!r}{suggestion(key, known, 'rows')}")
    return [_at_scale(name, table, choice) for name, table in zip(names, tables, strict=True)]


def run_folder(config: Config) -> Path:
    """Where a run's results go: the same for all rows whose pictures are the same, whatever they are called."""
    backbone, prompts = config.backbone, plain(config.prompts)
    places = [backbone.weights, *backbone.alternatives, backbone.unet, backbone.vae, backbone.lora]
    places += [backbone.single_file] if backbone.single_file is not None else []
    what = identity(
        config,
        "|".join(map(str, places)),
        {name: name for name in config.reward.terms},
        plain(config.semantics) if reads_graphs(config) else None,
        config.method.value.weights,
    )
    # More of the same prompts go on in the same folder; tags change no picture, and what stands at ``auto`` was not asked for.
    for name in ("limit", "offset", "tags", "tag_columns"):
        del prompts[name]
    for name in ("negative_column", "seed_column"):
        if prompts[name] == "auto":
            del prompts[name]
    # What a budget comes to is known later, and is another run for another budget.
    budget = {"budget": plain(config.budget)} if config.budget.asked else {}
    mark = digest({"pictures": what, "prompts": prompts, **budget})[:8]
    name = f"{backbone.name}-{config.method.name}-{config.prompts.name}-seed{config.seed}-{mark}"
    return Path(config.run.root) / "runs" / name


def _table_of(name: str, config_dir: Path | None) -> TableConfig:
    if name not in group_choices("experiment", config_dir):
        raise ConfigError(f"{name}: there is no such table{suggestion(name, _known(config_dir), 'tables')}")
    table = _compose((f"experiment={name}",), config_dir).table
    if table is None:
        raise ConfigError(
            f"experiment {name} is no table, but a protocol for runs of your own: python -m align experiment={name}; "
            f"tables: {', '.join(_known(config_dir))}"
        )
    if (table.paper is None) != (table.number is None):
        raise ConfigError(f"experiment {name}: give both of table.paper and table.number, or neither")
    if table.baseline not in table.rows:
        raise ConfigError(
            f"experiment {name}: table.baseline={table.baseline} is no row{suggestion(table.baseline, table.rows)}"
        )
    return table


def _with_methods(table: TableConfig, choice: Choice) -> TableConfig:
    """Of no paper: with a row for each method that the command names beside its rows."""
    methods = group_choices("method", choice.config_dir) if table.paper is None else ()
    more = {key: RowConfig(full=(f"method={key}",)) for key in choice.only if key in methods}
    return replace(table, rows=table.rows | {key: row for key, row in more.items() if key not in table.rows})


def _known(config_dir: Path | None) -> list[str]:
    """Names of the experiments that are tables, by their files alone."""
    files = [path for folder in config_folders(config_dir) for path in (folder / "experiment").glob("*.yaml")]
    return sorted({path.stem for path in files if re.search(rb"^table:", _content(path), re.MULTILINE)})


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError:
        return b""


def _at_scale(name: str, table: TableConfig, choice: Choice) -> Table:
    protocol = name if choice.scale == "full" else table.shapes
    if protocol is None:
        raise ConfigError(f"{name} has no --scale {choice.scale}: leave it out, and give backbone=shapes")
    if table.paper is None:
        return _comparison(name, table, protocol, choice)
    rows = tuple(_row(key, row, protocol, choice) for key, row in table.rows.items())
    root = _compose((f"experiment={protocol}", *choice.options), choice.config_dir).run.root
    return Table(name, table, choice.scale, table.title, Path(root) / name, rows)


def _comparison(name: str, table: TableConfig, protocol: str, choice: Choice) -> Table:
    """A table of no paper: where the command's backbone cannot have a row it says why, and pages have a folder for each backbone,
    set of prompts and budget.
    """
    rows = []
    for key, row in table.rows.items():
        try:
            rows.append(_row(key, row, protocol, choice))
        except ConfigError as error:
            if key in (table.baseline, *choice.only, *choice.own):
                raise
            rows.append(Row(key, row.label or key, row, why_not=str(error)))
    first = sorted(rows, key=lambda row: row.key != table.baseline)
    shared = next((row.config for row in first if row.config is not None), None)
    if shared is None:
        raise ConfigError(f"{name}: none of its rows can be run")
    budget = f", {shared.budget.label} a picture" if shared.budget.asked else ""
    title = f"{table.title}: {shared.backbone.name}, {shared.prompts.name}{budget}"
    named = replace(shared, method=replace(shared.method, name=name))
    folder = Path(default_folder(files_of([named])[0], choice.options))
    return Table(name, table, choice.scale, title, folder, tuple(rows))


def _row(key: str, row: RowConfig, protocol: str, choice: Choice) -> Row:
    made = Row(key, row.label or row.paper or key, row)
    own = choice.own.get(key, ())
    options = row.full if choice.scale == "full" else row.shapes
    needs = row.needs if choice.scale == "full" else ()
    if options is None or not set(needs) <= {_key(text) for text in own}:
        return replace(made, why_not=row.why_not or "there is no such run at this scale")
    for text in options:
        if re.match(r"[+~]*hydra\b", text):
            raise ConfigError(
                f"table.rows.{key}: {text} may not come from a config file: give it on the command line"
            )
    told, asked = (f"experiment={protocol}", *options), (*choice.options, *own)
    texts = (*told, *asked)
    config = _compose(asked, choice.config_dir, told)
    folder = str(run_folder(config))
    config = replace(config, run=replace(config.run, folder=folder))
    chosen = not choice.only or key in choice.only
    made = replace(made, options=(*texts, f"run.folder={quoted(folder)}"), config=config)
    return replace(made, chosen=chosen, why_not="" if chosen else NOT_CHOSEN)


@lru_cache(
    maxsize=256
)  # rows of several tables are the same run, and composing is most of what this module costs
def _compose(texts: tuple[str, ...], config_dir: Path | None, told: tuple[str, ...] = ()) -> Config:
    return jobs_of(Command(texts, config_dir=config_dir, told=told))[0].config


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]
