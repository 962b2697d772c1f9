"""The stages of the reward models, in order: ``clip``, ``practice``, then the five that start from it.

Stages go on from their state files, so the same call again changes nothing, and with more budget it trains further.
All but ``clip`` need ``<folder>/generated-train-*.npz`` and the autoencoder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPModel, CLIPTokenizer

from align.rewards.registry import EMBEDDED, REWARDS, load
from scripts.shapes_training import clip, export, measure, rewards, towers
from scripts.shapes_training.edits import edits
from scripts.shapes_training.generate import practice_files
from scripts.shapes_training.groups import Pools
from scripts.shapes_training.judged import generated, spoiled
from scripts.shapes_training.loop import Budget
from scripts.shapes_training.shown import shown

CPU = torch.device("cpu")
EDITS, SPOILED, HELD_OUT = 0.3, 0.015, 0.04
"""Rendered pairs, pairs with spoiled versions and validation pairs for each rendered picture of the denoiser."""
SECONDS = {
    "clip": 1320.0,
    "practice": 600.0,
    "pick": 900.0,
    "spm": 540.0,
    "hps": 840.0,
    "imagereward": 1680.0,
    "aesthetic": 600.0,
}
"""Budget of each stage on one CPU thread."""
STAGES = tuple(SECONDS)
NAMES = tuple(name for name, spec in REWARDS.items() if name.startswith("shapes_") and spec.weights)


def run(
    folder: Path,
    weights: Path,
    pictures: int,
    scale: float = 1.0,
    steps: int | None = None,
    seed: int = 0,
    device: torch.device = CPU,
    stages: tuple[str, ...] = STAGES,
) -> None:
    """Train reward models and write them to ``weights``.

    Args:
        folder: data and states.
        weights: where models go, and where tokenizer and autoencoder are.
        pictures: how many rendered ones the denoiser learns from; here it is a share of them.
        scale: factor on all budgets.
        steps: bound on the steps of every stage.
        seed: seed of all stages.
        device: where towers run.
        stages: which of ``STAGES`` to run, each of which needs the states of those before it (``practice`` that of
            ``clip``, the rewards that of ``practice``, ``spm`` that of ``pick`` too).
    """
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    data = edits("train", int(EDITS * pictures), seed + 11, folder)

    def budget(stage: str) -> Budget:
        return Budget(steps=steps, seconds=SECONDS[stage] * scale)

    if "clip" in stages:
        base = clip.run(data, tokenizer, budget("clip"), folder, seed + 7, device)
        held_out = edits("val", int(HELD_OUT * pictures), seed + 12, folder)
        print(f"clip: {clip.accuracy(base, tokenizer, held_out)}", flush=True)
    if set(stages) <= {"clip"}:
        return
    files = practice_files(folder)
    if not files:
        raise SystemExit(f"no generated pictures in {folder}: run the stage 'generate' first")
    made = generated(files)
    if "practice" in stages:
        start = load_base(folder, tokenizer, CPU, "clip")
        described = shown(made, seed + 13)
        print(f"practice: {len(described)} described pairs", flush=True)
        clip.run(
            data,
            tokenizer,
            budget("practice"),
            folder,
            seed + 9,
            device,
            # A model that has hardly been trained draws nothing that can be described.
            shown=described if len(described) else None,
            start=start,
            stage="practice",
        )
    if set(stages) <= {"clip", "practice"}:
        return
    base = load_base(folder, tokenizer, device)
    vae = AutoencoderKL.from_pretrained(weights / "vae").float().eval()
    pools = Pools(data, spoiled(data, vae, int(SPOILED * pictures), seed + 1, folder), made)
    seed = seed + 20
    if "pick" in stages:
        pick = rewards.run_pick(base, tokenizer, pools, budget("pick"), folder, seed)
        export.export_clip(pick, weights / "shapes_pick")
    if "spm" in stages:
        pick = load_pick(base, folder)
        spm = rewards.run_spm(pick, tokenizer, pools, budget("spm"), folder, seed)
        export.export_spm(spm, weights / "shapes_spm")
    if "hps" in stages:
        hps = rewards.run_hps(base, tokenizer, pools, budget("hps"), folder, seed)
        export.export_open_clip(hps, towers.open_clip_config(base), weights / "shapes_hps")
    if "imagereward" in stages:
        blip = rewards.run_imagereward(base, tokenizer, pools, budget("imagereward"), folder, seed)
        export.export_imagereward(blip, weights / "shapes_imagereward")
    if "aesthetic" in stages:
        parts = rewards.run_aesthetic(base, pools, budget("aesthetic"), folder, seed)
        export.export_aesthetic(*parts, weights / "shapes_aesthetic")


def load_base(
    folder: Path, tokenizer: CLIPTokenizer, device: torch.device, stage: str = "practice"
) -> CLIPModel:
    """The averaged base CLIP of a finished (or running) stage."""
    model = clip.build(len(tokenizer))
    state = torch.load(folder / f"{stage}.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["averaged"])
    return model.to(device).clip.eval()


def load_pick(base: CLIPModel, folder: Path) -> CLIPModel:
    """The averaged PickScore-like model of a finished (or running) stage ``pick``."""
    model = CLIPModel(base.config)
    state = torch.load(folder / "shapes_pick.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["averaged"])
    return model.to(base.device).eval()


def quality(pictures: Path, weights: Path = EMBEDDED) -> dict[str, float]:
    """Agreement of the shipped rewards with the definition of preference, see ``measure.evaluate``.

    Args:
        pictures: of held-out prompts, by ``generate.held_out``.
        weights: the shipped folder.
    """
    return measure.evaluate({name: load(name, folder=weights) for name in NAMES}, generated([pictures]))
