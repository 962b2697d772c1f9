"""From a configuration to its source of graphs, and what of it decides pictures.  Imports no torch by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.checkpoints.reference import EMBEDDED
from align.config.errors import ConfigError
from align.config.schema import Config
from align.config.semantics import SemanticsConfig
from align.runner.devices import torch_device
from align.semantics.graph import GraphError
from align.semantics.sources import PromptGraphs, WrittenSource, nothing

if TYPE_CHECKING:
    from align.semantics.llm import Chat


def source_kind(config: Config) -> str:
    """What ``semantics.source=auto`` means: the grammar's parse on the shapes world, else the rules."""
    if config.semantics.source != "auto":
        return config.semantics.source
    return "shapes" if config.backbone.weights in EMBEDDED else "rules"


def reads_graphs(config: Config) -> bool:
    """Whether the method looks at graphs at all."""
    return config.method.guidance.rule != "none" and config.method.objective.semantic > 0


def graphs_of(config: Config) -> PromptGraphs:
    """The graphs of a run; the same object for runs with the same options, so each is read or asked once. Raises
    ConfigError.
    """
    try:
        return _graphs(config.semantics, source_kind(config), config.run.device)
    except GraphError as error:
        raise ConfigError(f"semantics.path: {error}") from error


@lru_cache(maxsize=16)
def _graphs(options: SemanticsConfig, kind: str, device: str) -> PromptGraphs:
    written: WrittenSource | None = None
    if kind == "file":
        from align.semantics.files import load_library

        written = load_library(Path(str(options.path)).expanduser())
    elif kind == "llm":
        written = _asked(options, device)
    read = nothing
    if kind == "shapes":
        from align.shapes.semantics import graph as read
    elif kind == "rules" or (written is not None and options.missing == "rules"):
        from align.semantics.rules.chunker import graph as read
    kind_of_graphs = PromptGraphs
    if options.matching == "released":
        from align.released.matching import ReleasedGraphs as kind_of_graphs
    return kind_of_graphs(read, written, options.missing, options.global_words)


def _asked(options: SemanticsConfig, device: str) -> WrittenSource:
    from align.semantics.llm import AskedGraphs, answers_folder

    return AskedGraphs(chat_of(options, device), model_name(options), answers_folder(), options.retries)


def chat_of(options: SemanticsConfig, device: str) -> Chat:
    """The chat model of ``semantics=llm``; one on this machine is not loaded before it is asked."""
    from align.semantics.endpoint import Endpoint
    from align.semantics.llm import Lazily

    def load() -> Chat:
        from align.checkpoints.reference import folder_of
        from align.semantics.local_chat import LocalChat
        from align.startup import fix_workspace

        fix_workspace()
        return LocalChat(folder_of(str(options.local)), torch_device(device))

    if options.local is not None:
        return Lazily(load)
    key = os.environ.get(options.key_variable, "") if options.key_variable else ""
    return Endpoint(str(options.endpoint), str(options.model), key, options.timeout)


def model_name(options: SemanticsConfig) -> str:
    """The model whose graphs are used: the endpoint's name for it, the hub's, or that of a local folder."""
    from align.checkpoints.reference import hub_reference

    if options.local is None:
        return str(options.model)
    return options.local if hub_reference(options.local) else Path(options.local).expanduser().name


def check_graphs(config: Config, prompts: Sequence[str]) -> None:
    """Have the graphs of all prompts of a run before anything is loaded. Raises ConfigError if ``semantics.missing``
    does not help.
    """
    if not reads_graphs(config):
        return
    graphs = graphs_of(config)
    if graphs.written is None:
        return
    from align.semantics.llm import AskedGraphs, Lazily

    distinct = list(dict.fromkeys(prompts))
    asked = graphs.written if isinstance(graphs.written, AskedGraphs) else None
    if asked is not None and (number := sum(not asked.place(prompt).is_file() for prompt in distinct)):
        # Which may take minutes.
        print(f"align: asking {asked.model} for {number} graphs", file=sys.stderr, flush=True)
    before = len(graphs.without)
    for prompt in distinct:
        try:
            graphs.check(prompt)
        except GraphError as error:
            raise ConfigError(str(error)) from error
    if asked is not None and isinstance(asked.chat, Lazily):
        asked.chat.close()  # the diffusion model is loaded next
    if lost := len(graphs.without) - before:
        reason = next(reversed(graphs.without.values()))
        print(
            f"align: {lost} of {len(distinct)} prompts have no graph, semantics.missing="
            f"{config.semantics.missing} is used for them ({reason})",
            file=sys.stderr,
        )


def graph_identity(config: Config, prompts: Sequence[str]) -> dict[str, Any] | None:
    """What decides the graphs of a run, as plain values; ``None`` if the method reads none.

    Paths, endpoints, keys and retries have no part in it.  ``None`` also stands for the shapes world's own parse:
    that is how its runs were identified before graphs had other sources.
    """
    options, kind = config.semantics, source_kind(config)
    if not reads_graphs(config) or (kind == "shapes" and not options.global_words):
        return None
    what: dict[str, Any] = {"source": kind, "global_words": options.global_words}
    graphs = graphs_of(config)
    uses_rules = kind == "rules"
    if graphs.written is not None:
        uses_rules = options.missing == "rules"
        what |= {"matching": options.matching, "missing": options.missing}
    if kind == "file":
        from align.semantics.files import Library

        assert isinstance(graphs.written, Library)
        what["files"] = graphs.written.fingerprint()
    if kind == "llm":
        from align.semantics.prompting import template_hash

        what |= {"model": model_name(options), "template": template_hash()}
        # An endpoint that failed today may answer tomorrow: those pictures are others.
        what["without"] = sorted(prompt for prompt in set(prompts) if prompt in graphs.without)
    if uses_rules:
        from align.semantics.rules.chunker import VERSION

        what["rules"] = VERSION
    return what
