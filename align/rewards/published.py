"""The published reward models: whose files they read, and how they are loaded.  Imports no torch.

Commits are not pinned: a run records the commit of the hub's cache and the hash of every file.  ``ALIGN_CHECKPOINTS`` names a folder of own copies (``align.rewards.sources``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

_CLIP_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_PICKSCORE = "yuvalkirstain/PickScore_v1"
_CLIP_L = "openai/clip-vit-large-patch14"
_SPM = "SPO-Diffusion-Models/Step-Aware_Preference_Models"

AESTHETIC_HEAD = Checkpoint(
    "christophschuhmann/improved-aesthetic-predictor",
    ("sac+logos+ava1-l14-linearMSE.pth",),
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    reward="aesthetic",
)
"""LAION's head, 3.7 MB, Apache-2.0; not on the hub."""


def _pickscore(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.clip import load_clip

    return load_clip(name, paths[0].parent, None, device, dtype)


def _clipscore(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.clip import load_clip

    return load_clip(name, paths[0].parent, None, device, dtype, scaled=False)


def _hps(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.open_clip import load_open_clip

    weights = paths[0]
    return load_open_clip(
        name,
        weights.parent,
        None,
        device,
        dtype,
        file=weights.name,
        variant="hps2023" if name.endswith("_2023") else "hps",
    )


def _imagereward(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.imagereward import load_imagereward

    weights, words = paths
    return load_imagereward(name, weights.parent, words.parent, device, dtype, file=weights.name)


def _aesthetic(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.aesthetic import load_aesthetic

    return load_aesthetic(name, paths[0].parent, device, dtype, head=paths[-1])


def _spm(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.step_aware import load_step_aware

    return load_step_aware(name, paths[0].parent, None, device, dtype, weights=paths[-1])


def _hps_spec(version: str, file: str, variant: str) -> RewardSpec:
    when = "as its tables of 2023 resized" if variant == "hps2023" else "resized with antialiasing"
    return RewardSpec(
        f"HPSv2 {version} (ViT-H/14): the bare cosine, {when}",
        True,
        False,
        (Checkpoint("xswu/HPSv2", (file,)),),
        _hps,
        {"model": "xswu/HPSv2", "version": version, "preprocess": variant, "dtype": "float32"},
    )


def _spm_spec(base: str, file: str) -> RewardSpec:
    return RewardSpec(
        f"SPO's step-aware preference model for {base}: exp(logit_scale) * cosine at a timestep",
        True,
        True,
        (Checkpoint(_PICKSCORE, ("config.json", "tokenizer.json")), Checkpoint(_SPM, (file,))),
        _spm,
        {"model": _SPM, "version": base, "preprocess": "spo", "dtype": "float32"},
    )


PUBLISHED: dict[str, RewardSpec] = {
    "pickscore": RewardSpec(
        "PickScore v1 (ViT-H/14): exp(logit_scale) * cosine, about 19 to 24",
        True,
        False,
        (Checkpoint(_PICKSCORE, _CLIP_FILES),),
        _pickscore,
        {"model": _PICKSCORE, "version": "1", "preprocess": "clip", "dtype": "float32"},
    ),
    "hpsv2": _hps_spec("2.0", "HPS_v2_compressed.pt", "hps"),
    "hpsv21": _hps_spec("2.1", "HPS_v2.1_compressed.pt", "hps"),
    "hpsv2_2023": _hps_spec("2.0", "HPS_v2_compressed.pt", "hps2023"),
    "hpsv21_2023": _hps_spec("2.1", "HPS_v2.1_compressed.pt", "hps2023"),
    "imagereward": RewardSpec(
        "ImageReward v1.0 (BLIP): standardised value, about -2.3 to 2",
        True,
        False,
        (
            Checkpoint("THUDM/ImageReward", ("ImageReward.pt",)),
            Checkpoint("google-bert/bert-base-uncased", ("vocab.txt",)),
        ),
        _imagereward,
        {"model": "THUDM/ImageReward", "version": "1.0", "preprocess": "clip", "dtype": "float32"},
    ),
    "aesthetic": RewardSpec(
        "LAION aesthetic predictor v2 on CLIP ViT-L/14: about 4.5 to 7, prompt ignored",
        True,
        False,
        (Checkpoint(_CLIP_L, ("config.json", "model.safetensors")), AESTHETIC_HEAD),
        _aesthetic,
        {
            "model": AESTHETIC_HEAD.reference,
            "version": "sac+logos+ava1-l14-linearMSE",
            "preprocess": "clip",
            "dtype": "float32",
        },
        reads_prompt=False,
    ),
    "clipscore": RewardSpec(
        "CLIP ViT-L/14: the plain cosine, about 0.2 to 0.35",
        True,
        False,
        (Checkpoint(_CLIP_L, _CLIP_FILES),),
        _clipscore,
        {"model": _CLIP_L, "version": "plain cosine", "preprocess": "clip", "dtype": "float32"},
    ),
    "spm_sd15": _spm_spec("SD 1.5", "sd-v1-5_step-aware_preference_model.bin"),
    "spm_sdxl": _spm_spec("SDXL", "sdxl_step-aware_preference_model.bin"),
}
"""The published rewards by name."""
