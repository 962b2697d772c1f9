"""One run: open its folder, say what will be done, do it, show what came of it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from align.config.errors import ConfigError
from align.config.schema import RunConfig
from align.errors import WeightsError
from align.output import tame
from align.runner.estimate import cost_line
from align.runner.exits import DONE, FAILED, INTERRUPTED, MISSING_WEIGHTS
from align.runner.failures import NAME as LOG
from align.runner.finish import show_results
from align.runner.interrupts import Interrupts
from align.runner.memory import memory_line
from align.runner.prepare import Prepared
from align.runner.progress import Meter
from align.runner.prompts import PromptSet
from align.runner.record import run_record
from align.runner.syntax import syntax_line
from align.store.errors import StoreError
from align.store.manifest import Manifest, other_versions
from align.store.run_file import PlannedItem
from align.store.store import Store

GOES_ON = "; what is finished is kept, the same command goes on"


def run(prepared: Prepared, console: Console) -> int:
    """Do what is left of a run; returns its exit code. Raises ConfigError: its folder cannot be used."""
    runner = prepared.config.runner.kind
    return in_folder(
        lambda: open_store(
            prepared.config.run,
            Manifest(prepared.identity, run_record(prepared)),
            prepared.items,
            console,
            shared=runner == "ray",
        ),
        lambda store, interrupts: _work(prepared, store, console, interrupts),
        lambda store: show_results(prepared.config, store, console),
    )


def in_folder(
    opened: Callable[[], Store], work: Callable[[Store, Interrupts], int], show: Callable[[Store], None]
) -> int:
    """Open a folder, work in it, leave it and show what is there, whatever happens; returns the exit code.

    Raises ConfigError, as ``opened`` does.
    """
    with Interrupts() as interrupts:
        try:
            store = opened()
        except KeyboardInterrupt:
            _say("align: interrupted before any work")
            return INTERRUPTED
        try:
            with store:
                code = work(store, interrupts)
                with interrupts.finishing():
                    store.close()
            show(store)
            return code
        except KeyboardInterrupt:
            _close(store)
            counts = store.counts()
            _say(
                f"align: interrupted; {counts['done']} of {counts['planned']} done, "
                f"the same command goes on ({store.folder})"
            )
            return INTERRUPTED
        except StoreError as error:
            _say(f"align: {error}")
            return FAILED
        except WeightsError as error:
            _close(store)
            _say(f"align: {error}")
            return MISSING_WEIGHTS


def open_store(
    options: RunConfig,
    manifest: Manifest,
    items: Sequence[PlannedItem],
    console: Console,
    *,
    shared: bool = False,
    foreign: bool = True,
    guest: bool = False,
) -> Store:
    """The store of a folder, opened as its options say; what is odd about it is told. Raises ConfigError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store = Store(
                Path(str(options.folder)),
                manifest,
                items,
                extend=options.extend,
                shared=options.shared or shared,
                verify=options.verify,
                foreign=foreign,
                guest=guest,
            )
        except StoreError as error:
            raise ConfigError(str(error)) from error
    for one in caught:
        console.print(str(one.message), markup=False, highlight=False, soft_wrap=True)
    return store


def _work(prepared: Prepared, store: Store, console: Console, interrupts: Interrupts) -> int:
    pending, backlog = len(store.pending()), len(store.unmeasured(prepared.metrics))
    _print_plan(prepared, store, pending, backlog, console)
    if not pending and not backlog:
        return DONE
    from align.runner.failures import CannotGoOn, DeviceLost
    from align.runner.workers import WorkersLost

    with Meter(console, len(prepared.items), len(prepared.items) - pending, backlog) as meter:
        try:
            if prepared.config.runner.kind == "ray":
                from align.runner import workers

                workers.work(prepared, store, meter)
            else:
                from align.runner.work import Work

                Work(prepared, store, meter, interrupts).run()
        except DeviceLost as error:
            return ended(store, f"the device is lost ({error}){GOES_ON}")
        except WorkersLost as error:
            return ended(store, f"too many workers died ({error}){GOES_ON}")
        except CannotGoOn as error:
            return ended(store, str(error))
    return outcome(store, prepared.metrics)


def outcome(store: Store, wanted: Mapping[str, str], makes: str = "the same command") -> int:
    """The exit code of work that came to its end; says what lacks a metric's value, and what ``makes`` again what failed."""
    store.refresh()
    # Others may still be measuring what they made.
    if unmeasured := len(store.without_value(wanted)):
        _say(
            f"align: {unmeasured} of {len(store.done)} pictures lack a metric's value, as their status says; "
            f"the same command measures them again{_log(store)}"
        )
    failed = len(store.failed)
    if failed:
        _say(
            f"align: {failed} of {store.counts()['planned']} items failed, as their status says; "
            f"{makes} tries them again{_log(store)}"
        )
    return FAILED if failed or unmeasured else DONE


def _log(store: Store) -> str:
    path = store.folder / LOG
    return f"; tracebacks are in {path}" if path.exists() else ""


def ended(store: Store, why: str) -> int:
    """The exit code of work that had to stop; says why."""
    _close(store)
    _say(f"align: {why}")
    return FAILED


def _print_plan(prepared: Prepared, store: Store, pending: int, backlog: int, console: Console) -> None:
    config, prompts = prepared.config, prepared.prompts
    done = len(prepared.items) - pending
    method = config.method.name + (f", reward {config.reward_label}" if config.reward_label else "")
    process = (
        f"{config.sampler.steps} steps, eta {config.sampler.eta:g}, scale {config.sampler.guidance_scale:g}"
    ) + ("" if config.guider.name == "cfg" else f", guider {config.guider.name}")
    if store.unclosed:
        left = f"going on with {pending} items left" + (f", {backlog} pictures to measure" if backlog else "")
        _print(console, f"an earlier session ended without closing; {left}")
    if done and (others := other_versions(store.sessions)):
        _print(
            console, f"earlier sessions ran {', '.join(others)}; the column session tells their rows apart"
        )
    unread = f"sampler={config.sampler.name} takes the steps; not read of the checkpoint's scheduler"
    unsafe = f"{prompts.dropped} of {len(prompts.whole)} prompts left out by a word list (prompts.unsafe=keep takes all)"
    negatives = {row.negative for row in prompts.rows if row.negative is not None}
    together = "a commit every five minutes of work, 32 pictures at most"
    if config.run.in_flight is not None:
        together = f"{config.run.in_flight} pictures to a commit"
    lines = {
        "model": f"{config.backbone.name} ({config.backbone.width}x{config.backbone.height}), {process}",
        "process": f"{unread}: {', '.join(prepared.unread)}" if prepared.unread else "",
        "method": method,
        "budget": prepared.budget,
        "prompts": f"{len(prompts.rows)} of {prompts.name}, {config.samples} each, seed {config.seed}",
        "rows": _rows_line(prompts),
        "syntax": syntax_line([*prompts.prompts, *sorted(negatives | {config.negative})]) or "",
        "unsafe": "" if prompts.dropped is None else unsafe,
        "items": _items_line(len(prepared.items), done, backlog),
        "cost": _cost_line(prepared, store, pending, backlog),
        "memory": memory_line(prepared.files) if pending else "",
        "calls": f"at most {prepared.calls.most} rows; {together}" if pending else "",
        "folder": str(store.folder),
    }
    print_lines(lines, console)


def print_lines(lines: Mapping[str, str], console: Console) -> None:
    """What will be done, a line for each part of it that has one."""
    for name, text in lines.items():
        if text:
            _print(console, f"{name:<8} {text}")


def _print(console: Console, text: str) -> None:
    console.print(tame(text), markup=False, highlight=False, soft_wrap=True)


def _items_line(items: int, done: int, backlog: int) -> str:
    if not done:
        return str(items)
    parts = [f"{items}", f"{done} done already"]
    if done < items or backlog:
        parts += [f"{items - done} to make", f"{backlog} of those done to measure"]
    return ", ".join(parts)


def _cost_line(prepared: Prepared, store: Store, pending: int, backlog: int) -> str:
    if pending:
        return cost_line(prepared.config, pending)
    if not backlog:
        return "nothing is left to do"
    items = store.unmeasured(prepared.metrics)
    lacking = {metric for item in items for metric in store.lacking(item, prepared.metrics)}
    return f"nothing is left to make; to measure: {', '.join(sorted(lacking))}"


def _rows_line(prompts: PromptSet) -> str:
    """What the rows of a prompt file say beside the prompt, and what is made of it; empty if nothing."""
    seeds = sum(row.seed is not None for row in prompts.rows)
    negatives = sum(row.negative is not None for row in prompts.rows)
    said = [f"{seeds} drawn by their own seed"] if seeds else []
    said += [f"{negatives} with their own negative prompt"] if negatives else []
    tags = prompts.tags
    names = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "")
    return "; ".join([*([", ".join(said)] if said else []), *([f"kept as tags: {names}"] if tags else [])])


def _close(store: Store) -> None:
    try:
        store.close("interrupted")
    except StoreError as error:
        _say(f"align: {error}")


def _say(text: str) -> None:
    print(tame(" ".join(text.split())), file=sys.stderr, flush=True)
