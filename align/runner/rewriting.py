"""Who writes prompts anew, and what decides what is written.  Imports no torch by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from align.checkpoints.layout import weight_files
from align.checkpoints.needed import Needed, hub_needed
from align.checkpoints.reference import folder_of, hub_reference
from align.config.errors import ConfigError
from align.config.schema import Config
from align.config.semantics import SemanticsConfig
from align.config.strategy import PromptRewriteConfig
from align.runner.devices import torch_device
from align.runner.graphs import chat_of, model_name
from align.semantics.graph import GraphError
from align.semantics.llm import Lazily, answers_folder
from align.semantics.rewriting import Rewrites, by_chat, template_hash

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model")
"""Files of which a tokenizer has some."""
_PICKLE = "pytorch_model.bin"
_PICKLED = ("microsoft/Promptist",)
"""Published models whose weights are a pickle alone; it is read as plain tensors."""


def rewriter_needed(config: Config) -> list[Needed]:
    """The files of a language model that writes prompts; none where a chat model or nobody does."""
    rewrite = config.method.prompt_rewrite
    if rewrite.by != "model":
        return []
    model, reads = str(rewrite.model), rewrite.tokenizer or str(rewrite.model)
    what = f"method {config.method.name}"
    return [
        _needed(f"{what} model", model, ("config.json", *_weights(model)), "model"),
        _needed(f"{what} tokenizer", reads, _tokenizer(folder_of(reads)), "tokenizer"),
    ]


def _needed(what: str, reference: str, parts: tuple[str, ...], option: str) -> Needed:
    if (hub := hub_reference(reference)) is not None:
        return hub_needed(what, hub, parts)
    mend = f"give method.prompt_rewrite.{option}=FOLDER, with {' and '.join(parts)} in it"
    return Needed(what, folder_of(reference), parts, mend)


def _weights(reference: str) -> tuple[str, ...]:
    """The weights that are there; what is to be fetched is safetensors wherever it is published."""
    folder, hub = folder_of(reference), hub_reference(reference)
    pickled = hub is not None and hub.repo in _PICKLED
    if not any(folder.glob("*.safetensors")) and (pickled or (folder / _PICKLE).is_file()):
        return (_PICKLE,)
    return weight_files(folder, "model.safetensors")


def _tokenizer(folder: Path) -> tuple[str, ...]:
    there = tuple(name for name in _TOKENIZER if (folder / name).is_file())
    return there or _TOKENIZER[:2]


def rewriter_of(config: Config) -> Rewrites:
    """What writes the prompts of a run; the same for runs with the same options, and nothing is loaded before it is asked."""
    what = rewrite_identity(config)
    assert what is not None
    return _rewrites(config.method.prompt_rewrite, config.semantics, config.run.device, tuple(what.items()))


def check_rewrites(config: Config, prompts: Sequence[str]) -> None:
    """Have the prompts of a run written anew before anything is loaded. Raises ConfigError: one cannot be."""
    if config.method.prompt_rewrite.by is None:
        return
    rewrites = rewriter_of(config)
    distinct = list(dict.fromkeys(prompts))
    if number := sum(not rewrites.place(prompt).is_file() for prompt in distinct):
        print(
            f"align: having {number} prompts rewritten", file=sys.stderr, flush=True
        )  # which may take minutes
    try:
        for prompt in distinct:
            rewrites(prompt)
    except GraphError as error:
        raise ConfigError(str(error)) from error
    finally:
        if isinstance(rewrites.model, Lazily):
            rewrites.model.close()  # the diffusion model is loaded next


def rewrite_identity(config: Config) -> dict[str, Any] | None:
    """What decides the rewritten prompts, as plain values; ``None`` where nobody writes any."""
    rewrite = config.method.prompt_rewrite
    if rewrite.by is None:
        return None
    if rewrite.by == "chat":
        return {"by": "chat", "model": model_name(config.semantics), "template": template_hash()}
    model, tokenizer = (one.fingerprint() for one in rewriter_needed(config))
    same = {name: getattr(rewrite, name) for name in ("ending", "beams", "tokens", "length_penalty")}
    return {"by": "model", "model": model, "tokenizer": tokenizer, **same}


@lru_cache(maxsize=16)
def _rewrites(
    rewrite: PromptRewriteConfig, semantics: SemanticsConfig, device: str, what: tuple[tuple[str, Any], ...]
) -> Rewrites:
    folder = answers_folder("rewrites")
    if rewrite.by == "chat":
        chat = chat_of(semantics, device)
        return Rewrites(by_chat(chat, semantics.retries), dict(what), folder, chat)
    model = Lazily(lambda: _local(rewrite, device))
    return Rewrites(model, dict(what), folder, model)


def _local(rewrite: PromptRewriteConfig, device: str) -> Callable[[str], str]:
    from align.semantics.local_rewriter import LocalRewriter
    from align.startup import fix_workspace

    fix_workspace()
    return LocalRewriter(
        folder_of(str(rewrite.model)),
        folder_of(rewrite.tokenizer or str(rewrite.model)),
        torch_device(device),
        rewrite.ending,
        rewrite.beams,
        rewrite.tokens,
        rewrite.length_penalty,
    )
