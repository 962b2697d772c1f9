"""The published reward models: whose files they read, and how they are loaded.  Imports no torch.

Commits are not pinned: a run records the commit of the hub's cache and the hash of every file.  ``ALIGN_CHECKPOINTS`` names a folder of own copies (``align.rewards.sources``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.rewards.judges import JUDGES
from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec, network

if TYPE_CHECKING:
    from align.rewards.preprocess import Variant

_CLIP_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_PICKSCORE = "yuvalkirstain/PickScore_v1"
_CLIP_L = "openai/clip-vit-large-patch14"
_HPS = "xswu/HPSv2"
_IMAGEREWARD = "THUDM/ImageReward"
_BERT = "google-bert/bert-base-uncased"
_SPM = "SPO-Diffusion-Models/Step-Aware_Preference_Models"

AESTHETIC_HEAD = Checkpoint(
    "christophschuhmann/improved-aesthetic-predictor",
    ("sac+logos+ava1-l14-linearMSE.pth",),
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    reward="aesthetic",
    about="3.7 MB, Apache-2.0",
)
"""LAION's head; not on the hub."""


AESTHETIC25_HEAD = Checkpoint(
    "discus0434/aesthetic-predictor-v2-5",
    ("aesthetic_predictor_v2_5.pth",),
    url="https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/aesthetic_predictor_v2_5.pth",
    sha256="a6caf256b3dc434273c98dcb12f6bf17c5d4fc647d8df11f038386923dd06220",
    reward="aesthetic25",
    about="2.6 MB, AGPL-3.0",
)
"""Not on the hub, and not ours to pass on."""


def _facts(model: str, version: str, preprocess: str = "clip", dtype: str = "float32") -> dict[str, str]:
    return {"model": model, "version": version, "preprocess": preprocess, "dtype": dtype}


def _hps_spec(version: str, file: str, variant: Variant) -> RewardSpec:
    when = "as its tables of 2023 resized" if variant == "hps2023" else "resized with antialiasing"
    summary = f"HPSv2 {version} (ViT-H/14): the bare cosine, about 0.22 to 0.33, {when}"
    load = network(
        "open_clip", lambda paths: {"folder": paths[0].parent, "file": paths[0].name, "variant": variant}
    )
    return RewardSpec(
        summary,
        load,
        (Checkpoint(_HPS, (file,), about="2.0 GB, Apache-2.0"),),
        _facts(_HPS, version, variant),
    )


def _spm_spec(base: str, file: str) -> RewardSpec:
    summary = f"SPO's step-aware preference model for {base}: exp(logit_scale) * cosine at a timestep"
    weights = (
        Checkpoint(_PICKSCORE, ("config.json", "tokenizer.json"), about="3 MB, MIT (code)"),
        Checkpoint(_SPM, (file,), about="5.2 GB, Apache-2.0"),
    )
    load = network("step_aware", lambda paths: {"folder": paths[0].parent, "weights": paths[-1]})
    return RewardSpec(summary, load, weights, _facts(_SPM, base, "spo"), takes_timestep=True)


PUBLISHED: dict[str, RewardSpec] = {
    "pickscore": RewardSpec(
        "PickScore v1 (ViT-H/14): exp(logit_scale) * cosine, about 19 to 24",
        network("clip", lambda paths: {"folder": paths[0].parent}),
        (Checkpoint(_PICKSCORE, _CLIP_FILES, about="3.9 GB, MIT (code)"),),
        _facts(_PICKSCORE, "1", "clip_floor"),
    ),
    "hpsv2": _hps_spec("2.0", "HPS_v2_compressed.pt", "hps"),
    "hpsv21": _hps_spec("2.1", "HPS_v2.1_compressed.pt", "hps"),
    "hpsv2_2023": _hps_spec("2.0", "HPS_v2_compressed.pt", "hps2023"),
    "hpsv21_2023": _hps_spec("2.1", "HPS_v2.1_compressed.pt", "hps2023"),
    "imagereward": RewardSpec(
        "ImageReward v1.0 (BLIP): standardised value, about -2.3 to 2",
        network(
            "imagereward",
            lambda paths: {
                "folder": paths[0].parent,
                "tokenizer_folder": paths[1].parent,
                "file": paths[0].name,
            },
        ),
        (
            Checkpoint(_IMAGEREWARD, ("ImageReward.pt",), about="1.8 GB, Apache-2.0"),
            Checkpoint(_BERT, ("vocab.txt",), about="0.2 MB, Apache-2.0"),
        ),
        _facts(_IMAGEREWARD, "1.0"),
    ),
    "aesthetic": RewardSpec(
        "LAION aesthetic predictor v2 on CLIP ViT-L/14: about 4.5 to 7, prompt ignored",
        network("aesthetic", lambda paths: {"folder": paths[0].parent, "head": paths[-1]}),
        (
            Checkpoint(_CLIP_L, ("config.json", "model.safetensors"), about="1.7 GB, MIT (code)"),
            AESTHETIC_HEAD,
        ),
        _facts(AESTHETIC_HEAD.reference, "sac+logos+ava1-l14-linearMSE"),
        reads_prompt=False,
    ),
    "aesthetic25": RewardSpec(
        "Aesthetic Predictor V2.5 on SigLIP: about 3 to 6.5, prompt ignored",
        network("aesthetic25", lambda paths: {"folder": paths[0].parent, "head": paths[-1]}),
        (
            Checkpoint(
                "google/siglip-so400m-patch14-384",
                ("config.json", "model.safetensors"),
                about="3.5 GB, Apache-2.0",
            ),
            AESTHETIC25_HEAD,
        ),
        _facts(AESTHETIC25_HEAD.reference, "2.5", "stretch"),
        reads_prompt=False,
    ),
    "clipscore": RewardSpec(
        "CLIP ViT-L/14: the plain cosine, about 0.2 to 0.35",
        network("clip", lambda paths: {"folder": paths[0].parent, "scaled": False}),
        (Checkpoint(_CLIP_L, _CLIP_FILES, about="1.7 GB, MIT (code)"),),
        _facts(_CLIP_L, "plain cosine", "clip_floor"),
    ),
    "spm_sd15": _spm_spec("SD 1.5", "sd-v1-5_step-aware_preference_model.bin"),
    "spm_sdxl": _spm_spec("SDXL", "sdxl_step-aware_preference_model.bin"),
    **JUDGES,
}
