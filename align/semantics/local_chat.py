"""A chat model of transformers on this machine; imported only when a graph has to be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.semantics.errors import RefusedError
from align.semantics.llm import MOST_TOKENS


class LocalChat:
    """A causal language model with a chat template, decoding greedily.

    Args:
        folder: its files; nothing is fetched.
        device: where it computes.

    Raises:
        RefusedError: the folder holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        if not folder.is_dir():
            raise RefusedError(
                f"semantics.local: {folder} is not there; give a folder, or fetch a model with: hf download OWNER/NAME"
            )
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype="auto" if device.type == "cuda" else torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            line = str(error).partition("\n")[0]
            raise RefusedError(f"semantics.local={folder} holds no chat model: {line}") from None
        if not self.tokenizer.chat_template:
            raise RefusedError(
                f"semantics.local={folder} has no chat template: give an instruction-tuned model"
            )
        self.model = model.to(device).eval()
        self.device = device

    @torch.no_grad()
    def __call__(self, chat: Sequence[dict[str, str]]) -> str:
        """The model's answer."""
        inputs = self.tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.device)
        made = self.model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        return self.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
