"""A chat model of transformers on this machine; imported only when a graph has to be asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.semantics.endpoint import MOST_TOKENS
from align.semantics.graph import RefusedError
from align.startup import tolerant


class LocalChat:
    """A causal language model with a chat template, decoding greedily; no code that comes with it is ever run.

    Nothing is fetched. Raises RefusedError: the folder holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.tokenizer, self.model = load_causal("semantics.local", folder, device)
        if not self.tokenizer.chat_template:
            raise RefusedError(
                f"semantics.local={folder} has no chat template: give an instruction-tuned model"
            )
        self.device = device

    @torch.no_grad()
    def __call__(self, chat: Sequence[dict[str, str]]) -> str:
        """The model's answer."""
        inputs = self.tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.device)
        with tolerant():
            made = self.model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        answer: str = self.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer


def load_causal(
    option: str, folder: Path, device: torch.device, tokenizer: Path | None = None, *, pickles: bool = False
) -> tuple[Any, Any]:
    """Tokenizer and causal language model of a folder that ``option`` names, or of two.

    Raises RefusedError: no such model is there, or it is more than weights.  ``pickles`` are read as plain tensors only.
    """
    for one in (folder, tokenizer or folder):
        if not one.is_dir():
            raise RefusedError(
                f"{option}: {one} is not there; give a folder, or fetch a model with: hf download OWNER/NAME"
            )
        _refuse_code(one, option)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights = {
        "use_safetensors": not pickles or any(folder.glob("*.safetensors")),
        "weights_only": True,
        "dtype": "auto" if device.type == "cuda" else torch.float32,
        "output_loading_info": True,
    }
    try:
        reads: Any = AutoTokenizer.from_pretrained(tokenizer or folder, **options)
        model, told = AutoModelForCausalLM.from_pretrained(folder, **weights, **options)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of many classes, those of the readers of files among them
        line = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedError(f"{option}={folder} holds no language model: {line}") from None
    if told["missing_keys"]:
        raise RefusedError(
            f"{option}={folder} holds no language model: {min(told['missing_keys'])} is missing"
        )
    return reads, model.to(device).eval()


def _refuse_code(folder: Path, option: str) -> None:
    """Refuse a model that is more than weights for a class of transformers. Raises RefusedError."""
    if (folder / "adapter_config.json").exists():
        raise RefusedError(f"{option}={folder} is an adapter of another model: give a folder of a whole one")
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if "config" in path.name else None
        except (OSError, ValueError, RecursionError):
            continue  # told by whoever reads it
        if isinstance(content, dict) and "auto_map" in content:
            raise RefusedError(
                f"{option}={folder} asks for its own code to be run (auto_map in {path.name}): "
                "give a model whose class is in transformers"
            )
