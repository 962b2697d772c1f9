"""Judges that look for objects and for texts: whose files they read, what of a prompt they read.  Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from align.rewards.geneval.prompts import fault
from align.rewards.metadata import metadata_of
from align.rewards.ocr import lacks
from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec, network

GENEVAL_DETECTOR = Checkpoint(
    "open-mmlab/mmdetection",
    ("mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",),
    url="https://download.openmmlab.com/mmdetection/v2.0/mask2former/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    sha256="743b7d99",
    reward="geneval",
    about="0.3 GB, Apache-2.0",
)
"""mmdet's; its name holds the first digits of its hash, and nothing else is published of it."""


_CLIP_L = Checkpoint(
    "openai/clip-vit-large-patch14",
    ("config.json", "model.safetensors", "tokenizer.json"),
    about="1.7 GB, MIT (code)",
)


def _geneval_spec(summary: str) -> RewardSpec:
    load = network(
        "geneval.reward", lambda paths: {"detector": paths[0], "clip": paths[1].parent}, "load_geneval"
    )
    weights = (GENEVAL_DETECTOR, _CLIP_L)
    return RewardSpec(
        summary,
        load,
        weights,
        {
            "model": GENEVAL_DETECTOR.reference,
            "version": "evaluate_images.py of 2023",
            "preprocess": "mmdet 2",
            "dtype": "float32",
        },
        differentiable=False,
        section="geneval",
        reads_metadata=True,
        tells=("tag", "include", "exclude"),
        lacks=lambda prompt, tags, options: fault(metadata_of(tags), options["classes"], options["colours"]),
    )


_NEWER = "pip install -U transformers"
_PADDLE = {
    "cv2": "pip install -e '.[ocr]' (which is opencv-python-headless), or give ocr_got instead",
    "transformers.models.pp_ocrv5_mobile_det": _NEWER,
}


def _ocr_spec(
    summary: str, *repositories: str, packages: Mapping[str, str] = _PADDLE, words: tuple[str, ...] = ()
) -> RewardSpec:
    return RewardSpec(
        summary,
        network("recognisers", lambda paths: {"folders": list(dict.fromkeys(path.parent for path in paths))}),
        tuple(Checkpoint(one, (*_READER, *words), about="Apache-2.0") for one in repositories),
        {
            "model": " and ".join(repositories),
            "version": "Flow-GRPO's formula",
            "preprocess": "the recogniser's own",
        },
        differentiable=False,
        section="ocr",
        reads_metadata=True,
        lacks=lacks,
        packages=packages,
    )


_READER = ("config.json", "preprocessor_config.json", "model.safetensors")

LOOKING: dict[str, RewardSpec] = {
    "geneval": _geneval_spec("GenEval: 1 where objects, counts, colours and positions are as asked, else 0"),
    "geneval_strict": _geneval_spec("GenEval graded as Flow-GRPO's server does: at most 1, can be negative"),
    "ocr": _ocr_spec(
        "share of the quoted text that PP-OCRv5 (mobile) reads: 0 to 1",
        "PaddlePaddle/PP-OCRv5_mobile_det_safetensors",
        "PaddlePaddle/PP-OCRv5_mobile_rec_safetensors",
    ),
    "ocr_server": _ocr_spec(
        "the same by PP-OCRv5 (server): 0 to 1",
        "PaddlePaddle/PP-OCRv5_server_det_safetensors",
        "PaddlePaddle/PP-OCRv5_server_rec_safetensors",
    ),
    "ocr_got": _ocr_spec(
        "the same by GOT-OCR 2.0: 0 to 1",
        "stepfun-ai/GOT-OCR-2.0-hf",
        packages={"transformers.models.got_ocr2": _NEWER},
        words=("generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    ),
}
