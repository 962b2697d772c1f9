"""Values of registered metrics for pictures that are there already: what is asked for, the folder, the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from align import writing
from align.checkpoints.needed import missing_text
from align.config.convert import plain
from align.config.errors import ConfigError
from align.config.schema import Config
from align.rewards.registry import REWARDS
from align.runner.devices import check_device
from align.runner.exits import DONE, FAILED, FilesMissing
from align.runner.files import Files
from align.runner.finish import show_results
from align.runner.interrupts import Interrupts
from align.runner.judges import check_packages, check_prompts
from align.runner.progress import Meter
from align.runner.record import machine, versions
from align.runner.run import GOES_ON, ended, in_folder, open_store, outcome, print_lines
from align.scoring.items import Hashes, Scorable, make_items
from align.scoring.options import Options, default_folder
from align.scoring.runs import Made, is_run, items_of_run, of_run
from align.scoring.sources import Source, find, some
from align.store.errors import StoreError
from align.store.manifest import Manifest, read_run
from align.store.store import Store
from align.version import git_state

HASHES = "hashes.json"
"""In a score's folder: the hashes that its pictures had when it was last opened."""


@dataclass(frozen=True)
class Score:
    """A score that can start.

    Attributes:
        told: what is scored, for people, by the name of the line.
        metrics: fingerprint of what measures, by metric.
        label: what stands for the method of pictures that no run made.
        own: whether the folder is that of the run that made the pictures.
        hashes: of pictures that come from elsewhere.
        reads: files that are the user's own: pictures and their table.
    """

    config: Config
    told: Mapping[str, str]
    manifest: Manifest
    items: Sequence[Scorable | Made]
    metrics: Mapping[str, str]
    label: str = ""
    own: bool = False
    hashes: Hashes | None = None
    reads: Sequence[Path] = ()


def prepared(options: Options) -> Score:
    """What a command line asks for, looked at. Raises ConfigError, FilesMissing."""
    check_device(options.config.run.device)
    check_packages(options.config.metrics.rewards)
    here = is_run(options.pictures)
    for flag, value in {"--prompts": options.prompts, "--label": options.label}.items():
        if here and value is not None:
            raise ConfigError(f"{flag} {value}: the rows of a run keep their own, leave it out")
    wanted = options.config.run.folder
    own = here and (wanted is None or Path(wanted).resolve() == options.pictures.resolve())
    source = None if own else of_run(options.pictures) if here else _find(options)
    files = Files(options.config)
    if text := missing_text(files.measuring):
        raise FilesMissing(text)
    score = _in_place(options, files) if source is None else _apart(options, source, files)
    rows = [(item.prompt, item.tags) for item in score.items]
    check_prompts(options.config.metrics.rewards, options.config.judges, rows)
    if options.out is not None:
        _check_out(options.out, score)
    return score


def score(options: Options) -> int:
    """Measure; returns the exit code. Raises ConfigError, FilesMissing before any work."""
    ready = prepared(options)
    console = Console(soft_wrap=False)
    code = in_folder(
        lambda: _open(ready, console),
        lambda store, interrupts: _work(ready, store, console, interrupts),
        lambda store: show_results(ready.config, store, console),
    )
    if options.out is not None:
        _copy(Path(str(ready.config.run.folder), "results.csv"), options.out)
    return code


def _find(options: Options) -> Source:
    """The pictures of a folder or table. Raises ConfigError: also where a metric reads prompts and there are none."""
    source = find(options.pictures, options.prompts, options.config.prompts)
    metrics = options.config.metrics
    reading = [name for name in metrics.rewards if REWARDS[name].reads_prompt] + ["checker"] * metrics.checker
    without = [one.name for one in source.asked if one.prompt is None]
    if reading and without:
        raise ConfigError(
            f"{some(without, 'pictures')} without a prompt, which {', '.join(reading)} read: give --prompts TABLE with the "
            "columns image and prompt, a .txt file beside each picture, or metrics that read none, "
            "such as metrics.rewards=[aesthetic]"
        )
    return source


def _in_place(options: Options, files: Files) -> Score:
    """A run whose own results gain the metrics. Raises ConfigError."""
    try:
        run = read_run(options.pictures)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    assert run is not None
    items = items_of_run(options.pictures)
    record = run.get("record", {})
    new = _record(files)
    new["fingerprints"] = record.get("fingerprints", {}) | new["fingerprints"]
    new["sources"] = record.get("sources", {}) | new["sources"]
    config = _with_folder(options.config, options.pictures)
    told = {"pictures": f"{len(items)} of the run {options.pictures}, which gains the metrics"}
    manifest = Manifest(run["identity"], record | new)
    return Score(config, told, manifest, items, files.metric_fingerprints(), own=True)


def _apart(options: Options, source: Source, files: Files) -> Score:
    """Pictures whose scores have a folder of their own. Raises ConfigError."""
    label = options.label or source.name
    where = [str(options.pictures.resolve()), str(source.table.resolve() if source.table else "")]
    folder = Path(
        options.config.run.folder or default_folder(options.config.run.root, label, [*where, label])
    )
    if folder.resolve() == options.pictures.resolve():
        raise ConfigError(
            f"run.folder={folder} is the folder of the pictures: leave it out, or give another, such as {folder}-scores"
        )
    hashes = Hashes(folder / HASHES, trust=options.config.run.verify == "quick")
    items = make_items(source.asked, hashes.of([one.path for one in source.asked]))
    identity = {"score": {"pictures": where[0], "prompts": where[1], "label": label}}
    record = {"config": {"metrics": plain(options.config.metrics)}, **_record(files)}
    prompts = str(len({item.prompt for item in items})) + (f" of {source.table}" if source.table else "")
    told = {"pictures": f"{len(items)} of {source.name}, {source.kind}", "prompts": prompts}
    if source.left:
        told["left out"] = source.left
    reads = [one.path for one in source.asked] + ([source.table] if source.table else [])
    config, manifest = _with_folder(options.config, folder), Manifest(identity, record)
    return Score(
        config, told, manifest, items, files.metric_fingerprints(), label, hashes=hashes, reads=reads
    )


def _with_folder(config: Config, folder: Path) -> Config:
    return replace(config, run=replace(config.run, folder=str(folder)))


def _record(files: Files) -> dict[str, Any]:
    """What ``run.json`` tells of a session of scoring."""
    return {
        **files.record(files.measuring, files.config.metrics.rewards),
        "versions": versions(),
        "git": git_state(),
        "machine": machine(files.config.run.threads),
    }


def _open(score: Score, console: Console) -> Store:
    options = score.config.run
    foreign = score.own or options.extend
    store = open_store(options, score.manifest, score.items, console, foreign=foreign, guest=score.own)
    if score.hashes is not None:
        score.hashes.save()
    return store


def _work(score: Score, store: Store, console: Console, interrupts: Interrupts) -> int:
    """Say the plan and work; returns the exit code."""
    wanted = score.metrics
    pending, backlog = store.pending(), store.unmeasured(wanted)
    new = 0 if score.own else len(pending)
    done, due = len(score.items) - len(pending) - len(backlog), new + len(backlog)
    work = [f"{due} to measure"] * bool(due) + [f"{done} measured already"] * bool(done)
    if score.own and pending:
        work.append(f"{len(pending)} without a picture, which the run's own command makes")
    plan = {"metrics": ", ".join(wanted), "items": ", ".join(work), "folder": str(store.folder)}
    print_lines({**score.told, **plan}, console)
    if not new and not backlog:
        return FAILED if pending else DONE
    from align.runner.failures import CannotGoOn, DeviceLost
    from align.scoring.work import Scoring

    with Meter(console, len(score.items), len(score.items) - new, len(backlog)) as meter:
        try:
            scoring = Scoring(score.config, score.label, wanted, store, meter, interrupts)
            scoring.run([] if score.own else pending)  # type: ignore[arg-type]
        except DeviceLost as error:
            return ended(store, f"the device is lost ({error}){GOES_ON}")
        except CannotGoOn as error:
            return ended(store, str(error))
    code = outcome(store, wanted, "the run's own command" if score.own else "the same command")
    return FAILED if pending and score.own else code


def _check_out(out: Path, score: Score) -> None:
    """Refuse a place where no table can be put, or where something stands that this command reads. Raises ConfigError."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: give the path of a file, such as {out / 'scores.csv'}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}, make it first")
    if out.resolve().is_relative_to(Path(str(score.config.run.folder)).resolve()):
        raise ConfigError(
            f"--out {out} is in {score.config.run.folder}, whose results.csv is the table: leave it out"
        )
    if out.exists() and out.resolve() in {one.resolve() for one in score.reads}:
        raise ConfigError(f"--out {out} would replace what is read: give another name")


def _copy(table: Path, out: Path) -> None:
    """Put a copy of the table where it was asked for. Raises ConfigError."""
    try:
        writing.write_bytes(out, table.read_bytes())
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}; the table is {table}") from error
