"""A causal language model that was trained to go on from a prompt with a better one; imported only when one has to be written."""

from __future__ import annotations

from pathlib import Path

import torch

from align.semantics.local_chat import load_causal
from align.startup import tolerant


class LocalRewriter:
    """Promptist ("Optimizing Prompts for Text-to-Image Generation", arXiv 2212.09611) and models like it.

    Reads the prompt and ``ending``, and writes at most ``tokens`` by a search of ``beams``, of which the first counts.  Nothing is
    fetched, no code that comes with a model is run. Raises RefusedError: the folders hold no such model.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Path,
        device: torch.device,
        ending: str = " Rephrase:",
        beams: int = 8,
        tokens: int = 75,
        length_penalty: float = -1.0,
    ) -> None:
        self.tokenizer, self.model = load_causal(
            "method.prompt_rewrite.model", folder, device, tokenizer, pickles=True
        )
        self.device, self.ending = device, ending
        self.search = {"num_beams": beams, "max_new_tokens": tokens, "length_penalty": length_penalty}

    @torch.no_grad()
    def __call__(self, prompt: str) -> str:
        """What the model goes on with, in one line."""
        read = self.tokenizer(prompt.strip() + self.ending, return_tensors="pt").to(self.device)
        end = self.tokenizer.eos_token_id
        with tolerant():
            made = self.model.generate(
                **read, do_sample=False, eos_token_id=end, pad_token_id=end, **self.search
            )
        # By tokens and not by letters: a tokenizer need not give back the prompt letter by letter.
        answer = self.tokenizer.decode(made[0, read["input_ids"].shape[1] :], skip_special_tokens=True)
        return " ".join(str(answer).split())
