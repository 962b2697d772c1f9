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
from align.results.errors import StoreError
from align.results.manifest import Manifest
from align.results.store import Item, Store
from align.runner.estimate import cost_line
from align.runner.exits import DONE, FAILED, INTERRUPTED, MISSING_WEIGHTS
from align.runner.finish import show_results
from align.runner.interrupts import Interrupts
from align.runner.prepare import Prepared
from align.runner.progress import Meter
from align.runner.prompts import PromptSet
from align.runner.record import record
from align.runner.syntax import syntax_line


def run(prepared: Prepared, console: Console) -> int:
    """Do what is left of a run; returns its exit code.

    Raises:
        ConfigError: the folder cannot be used: another configuration's, in use, or not writable.
    """
    runner = prepared.config.runner.kind
    return in_folder(
        lambda: open_store(
            prepared.config.run,
            Manifest(prepared.identity, record(prepared)),
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

    Raises:
        ConfigError: from ``opened``.
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
    items: Sequence[Item],
    console: Console,
    *,
    shared: bool = False,
    foreign: bool = True,
) -> Store:
    """The store of a folder, opened as its options say; what is odd about it is told. Raises ConfigError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store = Store.open(
                Path(str(options.folder)),
                manifest,
                items,
                extend=options.extend,
                shared=options.shared or shared,
                verify=options.verify,
                foreign=foreign,
            )
        except StoreError as error:
            raise ConfigError(str(error)) from error
    for one in caught:
        console.print(str(one.message), markup=False, highlight=False, soft_wrap=True)
    return store


def _work(prepared: Prepared, store: Store, console: Console, interrupts: Interrupts) -> int:
    """Say the plan and work; returns the exit code."""
    pending = store.pending()
    _print_plan(prepared, store, len(pending), console)
    if not pending:
        return DONE
    from align.runner.sampling import DeviceLost
    from align.runner.workers import WorkersLost

    with Meter(console, len(prepared.items), len(prepared.items) - len(pending)) as meter:
        try:
            if prepared.config.runner.kind == "ray":
                from align.runner import workers

                workers.work(prepared, store, meter)
            else:
                from align.runner.work import Work

                Work(prepared.config, store, meter, interrupts).run()
        except DeviceLost as error:
            _say(f"align: the device is lost ({error}); what is finished is kept, the same command goes on")
            return FAILED
        except WorkersLost as error:
            _say(
                f"align: too many workers died ({error}); what is finished is kept, the same command goes on"
            )
            return FAILED
    store.refresh()
    return FAILED if store.failed else DONE


def _print_plan(prepared: Prepared, store: Store, pending: int, console: Console) -> None:
    config, prompts = prepared.config, prepared.prompts
    done = len(prepared.items) - pending
    method = config.method.name + (f", reward {config.reward.label}" if config.method.uses_reward else "")
    process = (
        f"{config.sampler.steps} steps, eta {config.sampler.eta:g}, scale {config.sampler.guidance_scale:g}"
    )
    lines = {
        "model": f"{config.backbone.name} ({config.backbone.width}x{config.backbone.height}), {process}",
        "method": method,
        "prompts": f"{len(prompts.rows)} of {prompts.name}, {config.samples} each, seed {config.seed}",
        **({"rows": text} if (text := rows_line(prompts)) else {}),
        **({"syntax": line} if (line := syntax_line(_texts(config.negative, prompts))) else {}),
        **({} if prompts.dropped is None else {"unsafe": _unsafe_line(prompts)}),
        "items": f"{len(prepared.items)}, {done} done already" if done else str(len(prepared.items)),
        "cost": cost_line(config, pending) if pending else "nothing is left to do",
        "folder": str(store.folder),
    }
    print_lines(lines, console)


def print_lines(lines: Mapping[str, str], console: Console) -> None:
    """What will be done, a line for each part of it."""
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", markup=False, highlight=False, soft_wrap=True)


def rows_line(prompts: PromptSet) -> str:
    """What the rows of a prompt file say beside the prompt, and what is made of it; empty if nothing."""
    seeds = sum(row.seed is not None for row in prompts.rows)
    negatives = sum(row.negative is not None for row in prompts.rows)
    said = [f"{seeds} drawn by their own seed"] if seeds else []
    said += [f"{negatives} with their own negative prompt"] if negatives else []
    tags = prompts.tags
    names = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "")
    return "; ".join([*([", ".join(said)] if said else []), *([f"kept as tags: {names}"] if tags else [])])


def _texts(negative: str, prompts: PromptSet) -> list[str]:
    """Everything that the text encoder reads of a run."""
    negatives = {row.negative for row in prompts.rows if row.negative is not None}
    return [*prompts.prompts, *sorted(negatives | {negative})]


def _unsafe_line(prompts: PromptSet) -> str:
    return (
        f"{prompts.dropped} of {prompts.size} prompts left out by a word list (prompts.unsafe=keep takes all)"
    )


def _close(store: Store) -> None:
    try:
        store.close("interrupted")
    except StoreError as error:
        _say(f"align: {error}")


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)
