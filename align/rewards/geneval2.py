"""GenEval 2's Soft-TIFA: how probable the right answers to a prompt's own questions are, of a Qwen3-VL that sees the picture.

Kamath et al., arXiv 2512.16853.  The questions stand in the benchmark's file, which is found by the prompt.  An answer's
probability is summed over forms of it by their first tokens, as released: a form " 7" begins with a lone space, which counts for
every number, and a token that two forms begin with counts twice; a question without "How many" asks for Yes whatever the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from align.checkpoints.weight_files import existing, read_tensors, sha256, weights_of
from align.errors import WrongWeights
from align.pictures import to_rgb
from align.reading import parse_object
from align.rewards.preprocess import to_pictures
from align.rewards.qwen_vl import QwenReward, QwenVL, Sizing, load_qwen_vl, words_hashes

Mean = Literal["arithmetic", "geometric", "hard"]
Questions = Mapping[str, Sequence[tuple[str, str]]]
SUFFIX = " Answer in one word."
YES = ("Yes", "yes", " yes", " Yes")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def forms(question: str, answer: str) -> tuple[str, ...]:
    """What counts as the answer to a question."""
    if not question.startswith("How many"):
        return YES
    digit = str(NUMBERS.index(answer) + 1) if answer in NUMBERS else "other"
    large = answer.capitalize()
    return answer, large, f" {answer}", f" {large}", digit, f" {digit}"


class GenEval2Reward(QwenReward):
    """The mean over a prompt's atoms: ``arithmetic`` or ``geometric`` of probabilities, or ``hard``, the part of most probable
    tokens that are right.
    """

    def __init__(self, name: str, vl: QwenVL, questions: Questions, mean: Mean, fingerprint: dict[str, str]):
        size = vl.image["size"]
        super().__init__(
            name, vl, Sizing(vl.factor, size["shortest_edge"], size["longest_edge"]), fingerprint
        )
        self.questions, self.mean = questions, mean
        self.differentiable = mean != "hard"

    def shown(self, image: Image.Image) -> Tensor:
        """As transformers' processor does: resized on 8 bits by torch."""
        pictures = (to_pictures([to_rgb(image)]) * 255).round().byte()
        sides = self.sizing(image.height, image.width)
        return F.interpolate(pictures, size=sides, mode="bicubic", antialias=True)[0].float() / 255

    def judge(self, picture: Tensor, prompt: str) -> Tensor:
        atoms = self.atoms(picture, prompt)
        return atoms.log().mean().exp() if self.mean == "geometric" else atoms.mean()

    @torch.no_grad()
    def answers(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Tensor]:
        """See ``Reward.answers``."""
        return [self.atoms(self.shown(one), text).cpu() for one, text in zip(images, prompts, strict=True)]

    def atoms(self, picture: Tensor, prompt: str) -> Tensor:
        """The value (n,) of each of a prompt's questions. Raises ValueError: the benchmark has no such prompt."""
        if prompt not in self.questions:
            raise ValueError("the prompt is none of GenEval 2's, so it has no questions")
        patches, grid = self.vl.patches(picture.to(self.vl.device))
        seen = self.vl.features(patches, grid)
        return torch.stack([self._atom(seen, grid, *one) for one in self.questions[prompt]])

    def _atom(self, seen: object, grid: Tensor, question: str, answer: str) -> Tensor:
        given = {**self.vl.text(question + SUFFIX, grid), "mm_encoder_outputs": {"image": seen}}
        probability = self.vl.answer(given).softmax(-1)
        right = forms(question, answer)
        if self.mean == "hard":
            likeliest = self.vl.tokenizer.decode([int(probability.argmax())])
            return probability.new_tensor(float(likeliest.lower() in right))
        first = [self.vl.tokenizer(form, add_special_tokens=False).input_ids[0] for form in right]
        return probability[first].sum()


def read_questions(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Questions and answers by prompt of the benchmark's file, a JSON object a line. Raises WeightsError."""
    found = {}
    for line in existing(path).read_text(encoding="utf-8").splitlines():
        try:
            record = parse_object(line.encode(), path)
            found[str(record["prompt"])] = [
                (str(question), str(answer)) for question, answer in record["vqa_list"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise WrongWeights(
                f"{path} is no GenEval 2: a line says no prompt with its vqa_list ({error})"
            ) from None
    return found


def load_geneval2(
    name: str,
    folder: Path,
    data: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    *,
    mean: Mean,
) -> GenEval2Reward:
    """A Qwen3-VL folder and the benchmark's file. Raises WeightsError."""
    path, hashes = weights_of(folder, "model.safetensors")
    vl = load_qwen_vl(folder, device, dtype, read_tensors(path), path)
    hashes |= words_hashes(folder) | {data.name: sha256(data)}
    facts = {"architecture": f"transformers {type(vl.model).__name__}", "mean": mean, **hashes}
    return GenEval2Reward(name, vl, read_questions(data), mean, facts)
