"""VQAScore with a Qwen-VL: the probability that "Yes" is the first token of the answer, over the whole vocabulary.

Lin et al., arXiv 2404.01291, as t2v_metrics 3.1 asks Qwen-VL models; another model is another metric, and none of these is the
paper's.  The published number is read after the repetition penalty of the checkpoint's ``generation_config.json``, if that
states one (Qwen2.5-VL: 1.05): ``penalty="none"`` leaves it out.  A probability saturates, so guides follow its logarithm
(``log``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from align.checkpoints.weight_files import read_json, read_tensors, sha256, weights_of
from align.errors import WrongWeights
from align.rewards.qwen_vl import QwenReward, QwenVL, Sizing, load_qwen_vl, words_hashes

Penalty = Literal["checkpoint", "none"]
ANSWER = "Yes"


class VQAScoreReward(QwenReward):
    """P("Yes"), or its logarithm, for a question with ``{}`` where the prompt goes."""

    def __init__(
        self,
        name: str,
        vl: QwenVL,
        question: str,
        penalty: float,
        fingerprint: dict[str, str],
        *,
        log: bool = False,
    ):
        factor = vl.factor
        super().__init__(name, vl, Sizing(factor, 4 * factor**2, 16384 * factor**2), fingerprint)
        self.question, self.penalty, self.log = question, penalty, log
        answer = vl.tokenizer(ANSWER, add_special_tokens=False).input_ids
        if len(answer) != 1:
            raise WrongWeights(f"{ANSWER!r} is {len(answer)} tokens of this model, not one")
        self.answer = answer[0]

    def judge(self, picture: Tensor, prompt: str) -> Tensor:
        given = self.vl.inputs(picture, self.question.format(self.vl.check(prompt)))
        logits = penalised(self.vl.answer(given), given["input_ids"][0], self.penalty)
        value = logits.log_softmax(-1)[self.answer]
        return value if self.log else value.exp()


def penalised(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Logits (vocabulary,) after the repetition penalty on all tokens that occur in the prompt's ``ids`` (L,)."""
    if penalty == 1:
        return logits
    occurs = torch.zeros_like(logits, dtype=torch.bool)
    occurs[ids] = True
    return torch.where(occurs, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def load_vqascore(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    *,
    question: str,
    penalty: Penalty = "checkpoint",
    log: bool = False,
) -> VQAScoreReward:
    """A Qwen-VL folder in the hub's layout as a judge. Raises WeightsError."""
    path, hashes = weights_of(folder, "model.safetensors")
    vl = load_qwen_vl(folder, device, dtype, read_tensors(path), path)
    generation = folder / "generation_config.json"
    stated = read_json(generation).get("repetition_penalty", 1.0)
    hashes |= words_hashes(folder) | {generation.name: sha256(generation)}
    facts = {"architecture": f"transformers {type(vl.model).__name__}", "question": question, **hashes}
    return VQAScoreReward(name, vl, question, stated if penalty == "checkpoint" else 1.0, facts, log=log)
