"""HPSv3 (arXiv 2508.03789): Qwen2-VL-7B whose hidden state at a token of its own goes through a head of two numbers.

The first number is the score; the second, with which training weighs pairs, is no deviation and is left.  The model was
trained with plain positions 0 to L - 1 on all axes, for the picture's tokens too, not with transformers' three-axis ones.
What it is told is a long text of the published package, which is read from there: see ``read_instruction``.
"""

from __future__ import annotations

import ast
import hashlib
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from align.checkpoints.weight_files import build, existing, fill, read_tensors, sha256
from align.errors import WrongWeights
from align.rewards.qwen_vl import QwenReward, QwenVL, Sizing, load_qwen_vl, words_hashes

TOKEN = "<|Reward|>"
SOURCE = "hpsv3/dataset/data_collator_qwen.py"
"""Where the package says its text."""
TEXTS = ("INSTRUCTION", "prompt_with_special_token")
"""The names of its two parts there."""
TEXT_SHA256 = "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
"""Of both together."""
HEAD = "rm_head."


class HPSv3Reward(QwenReward):
    """``text`` has ``{text_prompt}`` where the prompt goes, and the token that is read off at its end, ``suffix``."""

    def __init__(
        self, name: str, vl: QwenVL, head: nn.Module, text: str, suffix: str, fingerprint: dict[str, str]
    ):
        pixels = 256 * vl.factor**2
        super().__init__(name, vl, Sizing(vl.factor, pixels, pixels), fingerprint)
        self.head, self.text, self.suffix = head, text, suffix
        self.token = vl.tokenizer.convert_tokens_to_ids(TOKEN)

    def judge(self, picture: Tensor, prompt: str) -> Tensor:
        question = self.text.format(text_prompt=self.vl.check(prompt)) + self.suffix
        given = self.vl.inputs(picture, question)
        (ids,) = given["input_ids"]
        plain = torch.arange(len(ids), device=ids.device).expand(3, 1, -1)
        hidden = self.vl.forward(given, position_ids=plain).last_hidden_state[0]
        out: Tensor = self.head(hidden[(ids == self.token).nonzero()[0, 0]].float())[0]
        return out


def load_hpsv3(
    name: str,
    weights: Path,
    base: Path,
    package: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> HPSv3Reward:
    """HPSv3 from its file, the folder of its base model without weights, and its published ``package``. Raises WeightsError."""
    text, suffix = read_instruction(package)
    tensors = read_tensors(weights)
    own = {key.removeprefix(HEAD): tensors.pop(key) for key in list(tensors) if key.startswith(HEAD)}
    vl = load_qwen_vl(base, device, dtype, tensors, weights, answers=False)
    vl.tokenizer.add_tokens([TOKEN], special_tokens=True)
    if vl.tokenizer.convert_tokens_to_ids(TOKEN) >= vl.config.text_config.vocab_size:
        raise WrongWeights(f"{weights} knows no token {TOKEN}: its embedding has too few rows")
    with torch.device(device):
        head = build(lambda: _head(vl.config.text_config.hidden_size))
    hashes = {weights.name: sha256(weights), **words_hashes(base), package.name: sha256(package)}
    facts = {"architecture": "head on transformers Qwen2VLModel", "instruction": TEXT_SHA256, **hashes}
    return HPSv3Reward(name, vl, fill(head, own, weights), text, suffix, facts)


def _head(width: int) -> nn.Sequential:
    """In float32 always."""
    layers = (
        nn.Linear(width, 1024),
        nn.ReLU(),
        nn.Dropout(0.05),
        nn.Linear(1024, 16),
        nn.ReLU(),
        nn.Linear(16, 2),
    )
    return nn.Sequential(*layers)


def read_instruction(package: Path) -> tuple[str, str]:
    """The two texts of the published package: its wheel, or the file ``SOURCE`` of it, of which nothing is run.

    Raises WeightsError: it is not there, or says another text than the one that HPSv3 was trained with.
    """
    try:
        if package.suffix == ".whl":
            with zipfile.ZipFile(existing(package)) as wheel:
                source = wheel.read(SOURCE)
        else:
            source = existing(package).read_bytes()
        named = {
            target.id: statement.value.value
            for statement in ast.parse(source).body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        text, suffix = (str(named[one]) for one in TEXTS)
    except (zipfile.BadZipFile, KeyError, SyntaxError, ValueError) as error:
        raise WrongWeights(f"{package} is no {SOURCE} of hpsv3 1.0.0: {str(error).splitlines()[0]}") from None
    if hashlib.sha256((text + suffix).encode()).hexdigest() != TEXT_SHA256:
        raise WrongWeights(
            f"{package} holds another text than the one that HPSv3 was trained with: give hpsv3 1.0.0"
        )
    return text, suffix
