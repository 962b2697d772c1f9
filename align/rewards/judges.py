"""The published judges that ask a language model which sees: whose files they read, and what they ask.  Imports no torch.

Short questions are said here with their source; a long text, or data that may not be passed on, is read from the user's copy.
"""

from __future__ import annotations

from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec, network

WORDS = (
    "config.json",
    "chat_template.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of a Qwen-VL without its weights."""
VQASCORE_QUESTION = 'Does this figure show "{}"? Please answer Yes or No.'
"""t2v_metrics 3.1, models/vqascore_models/qwen2vl_model.py and qwen3vl_model.py, Apache-2.0."""
HPSV3_PACKAGE = Checkpoint(
    "pypi/hpsv3",
    ("hpsv3-1.0.0-py3-none-any.whl",),
    url="https://files.pythonhosted.org/packages/20/ed/6feb979b0086f57dc7a8b545693e1dbeffd60c8d942971e0445c65fcf438/"
    "hpsv3-1.0.0-py3-none-any.whl",
    sha256="1a1b3ed1f538315ddf0e90c55b9f5c8ab3248d772cd713c11f7dfe35bf867ab3",
    reward="hpsv3",
    about="0.1 MB, MIT",
)
"""HPSv3's package, of which a text is read and nothing is run."""
MPS_CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
    "instance, texture, quantity, attributes, position, number, location, word, things."
)
"""All criteria at once: Kwai-Kolors/MPS, eval_overall_mps_on_hpdv2.py, MIT."""


def _facts(model: str, version: str, preprocess: str = "qwen_vl", dtype: str = "bfloat16") -> dict[str, str]:
    return {"model": model, "version": version, "preprocess": preprocess, "dtype": dtype}


def _qwen(repo: str, about: str) -> Checkpoint:
    return Checkpoint(repo, (*WORDS, "generation_config.json", "model.safetensors"), about=about, shards=True)


QWEN25_7B = _qwen("Qwen/Qwen2.5-VL-7B-Instruct", "16.6 GB, Apache-2.0")
QWEN25_3B = _qwen("Qwen/Qwen2.5-VL-3B-Instruct", "7.5 GB, Qwen Research licence: not for commercial use")
QWEN3_8B = _qwen("Qwen/Qwen3-VL-8B-Instruct", "17.5 GB, Apache-2.0")
QWEN3_4B = _qwen("Qwen/Qwen3-VL-4B-Instruct", "8.9 GB, Apache-2.0")
QWEN3_2B = _qwen("Qwen/Qwen3-VL-2B-Instruct", "4.3 GB, Apache-2.0")


def _vqascore(checkpoint: Checkpoint, *, penalty: str = "checkpoint", log: bool = False) -> RewardSpec:
    what = "the logarithm of P(Yes)" if log else "P(Yes), 0 to 1"
    without = ", without the checkpoint's repetition penalty" if penalty == "none" else ""
    return RewardSpec(
        f"VQAScore of {checkpoint.reference.partition('/')[2]}: {what}{without}",
        network(
            "vqascore",
            lambda paths: {
                "folder": paths[0].parent,
                "question": VQASCORE_QUESTION,
                "penalty": penalty,
                "log": log,
            },
        ),
        (checkpoint,),
        {**_facts(checkpoint.reference, f"penalty {penalty}"), "question": VQASCORE_QUESTION},
        dtype="bfloat16",
    )


def _mps(threshold: float) -> RewardSpec:
    return RewardSpec(
        f"MPS overall (ViT-H/14, condition above {threshold:g}): exp(logit_scale) * cosine, about 5 to 20",
        network(
            "mps",
            lambda paths: {
                "weights": paths[0],
                "folder": paths[1].parent,
                "condition": MPS_CONDITION,
                "threshold": threshold,
            },
        ),
        (
            Checkpoint("RE-N-Y/mpsv1", ("model.safetensors",), about="4 GB, a port of MIT weights"),
            Checkpoint(
                "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", ("config.json", "tokenizer.json"), about="3 MB, MIT"
            ),
        ),
        {
            **_facts("RE-N-Y/mpsv1", f"overall, threshold {threshold:g}", "clip_floor", "float32"),
            "condition": MPS_CONDITION,
        },
    )


GENEVAL2_DATA = Checkpoint(
    "facebookresearch/GenEval2",
    ("geneval2_data.jsonl",),
    page="https://github.com/facebookresearch/GenEval2",
    about="CC BY-NC 4.0: not for commercial use",
)
"""Not ours to pass on."""


def _geneval2(mean: str, what: str) -> RewardSpec:
    return RewardSpec(
        f"GenEval 2 by Qwen3-VL-8B: {what}, 0 to 1; for its own prompts",
        network("geneval2", lambda paths: {"folder": paths[0].parent, "data": paths[-1], "mean": mean}),
        (QWEN3_8B, GENEVAL2_DATA),
        _facts(QWEN3_8B.reference, f"Soft-TIFA, {mean} mean"),
        differentiable=mean != "hard",
        answers=mean != "geometric",
        dtype="bfloat16",
    )


JUDGES: dict[str, RewardSpec] = {
    "hpsv3": RewardSpec(
        "HPSv3 (Qwen2-VL-7B with a head): mu, about -2 to 13",
        network("hpsv3", lambda paths: {"weights": paths[0], "base": paths[1].parent, "package": paths[-1]}),
        (
            Checkpoint("MizzenAI/HPSv3", ("HPSv3.safetensors",), about="16.6 GB, MIT"),
            Checkpoint("Qwen/Qwen2-VL-7B-Instruct", WORDS, about="7 MB, Apache-2.0"),
            HPSV3_PACKAGE,
        ),
        _facts("MizzenAI/HPSv3", "1.0"),
        dtype="bfloat16",
    ),
    "vqascore_qwen25": _vqascore(QWEN25_7B),
    "vqascore_qwen25_no_penalty": _vqascore(QWEN25_7B, penalty="none"),
    "vqascore_qwen25_log": _vqascore(QWEN25_7B, log=True),
    "vqascore_qwen25_3b": _vqascore(QWEN25_3B),
    "vqascore_qwen3": _vqascore(QWEN3_8B),
    "vqascore_qwen3_log": _vqascore(QWEN3_8B, log=True),
    "vqascore_qwen3_4b": _vqascore(QWEN3_4B),
    "vqascore_qwen3_2b": _vqascore(QWEN3_2B),
    "geneval2_am": _geneval2("arithmetic", "mean probability of the right answers"),
    "geneval2_gm": _geneval2("geometric", "geometric mean probability of the right answers"),
    "geneval2_tifa": _geneval2("hard", "part of the questions that are answered right"),
    "mps": _mps(0.3),
    "mps_001": _mps(0.01),
}
