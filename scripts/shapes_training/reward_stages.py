"""The stages of the reward models, in order: ``clip``, then the five that start from it.

About 110 minutes on one CPU thread by the default budgets.  Stages go on from their state files,
so the same call again changes nothing, and with more budget it trains further.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPModel, CLIPTokenizer

from align.rewards.registry import EMBEDDED, REWARDS, load
from scripts.shapes_training import clip, rewards
from scripts.shapes_training.loop import Budget
from scripts.shapes_training.pairs import Edits, edits, generated, slips, spoiled

CPU = torch.device("cpu")
EDITS, SPOILED, SLIPS, HELD_OUT = 24_000, 1_800, 4_500, 1_500
"""Rendered pairs, pairs with spoiled versions, captions with slips, validation pairs."""
SECONDS = {
    "clip": 1320.0,
    "pick": 900.0,
    "spm": 1500.0,
    "hps": 780.0,
    "imagereward": 1860.0,
    "aesthetic": 60.0,
}
"""Budget of each stage on one CPU thread."""
STAGES = tuple(SECONDS)
NAMES = tuple(name for name, spec in REWARDS.items() if name.startswith("shapes_") and spec.weights)


def train_edits(folder: Path, seed: int = 0) -> Edits:
    """The rendered pairs that everything here learns from."""
    return edits("train", EDITS, seed + 11, folder)


def run(
    folder: Path,
    weights: Path,
    scale: float = 1.0,
    steps: int | None = None,
    seed: int = 0,
    device: torch.device = CPU,
    stages: tuple[str, ...] = STAGES,
) -> None:
    """Train reward models and write them to ``weights``.

    Args:
        folder: data and states; ``folder/vae`` is used when pictures are first spoiled, and
            ``folder/generated-train-*.npz`` if there are any.
        weights: where models go, and where the tokenizer is.
        scale: factor on all budgets.
        steps: bound on the steps of every stage.
        seed: seed of all stages.
        device: where towers run.
        stages: which of ``STAGES`` to run; all others need the state of ``clip``, ``spm`` that of
            ``pick`` too.
    """
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    data = train_edits(folder, seed)

    def budget(stage: str) -> Budget:
        return Budget(steps=steps, seconds=SECONDS[stage] * scale)

    if "clip" in stages:
        base = clip.run(data, tokenizer, budget("clip"), folder, seed + 7, device)
        held_out = edits("val", HELD_OUT, seed + 12, folder)
        print(f"clip: {clip.accuracy(base, tokenizer, held_out)}", flush=True)
    base = load_base(folder, tokenizer, device)
    if stages == ("clip",):
        return
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval() if (folder / "vae").is_dir() else None
    worse = spoiled(data, vae, SPOILED, seed + 1, folder)
    drawn = slips(SLIPS, vae, seed + 31, folder)
    pools = rewards.Pools(data, worse, drawn, generated("train", folder))
    seed = seed + 20
    if "pick" in stages:
        pick = rewards.run_pick(base, tokenizer, pools, budget("pick"), folder, seed)
        rewards.export_clip(pick, weights / "shapes_pick")
    if "spm" in stages:
        pick = load_pick(base, folder)
        spm = rewards.run_spm(pick, tokenizer, pools, budget("spm"), folder, seed)
        rewards.export_spm(spm, weights / "shapes_spm")
    if "hps" in stages:
        hps = rewards.run_hps(base, tokenizer, pools, budget("hps"), folder, seed)
        rewards.export_open_clip(hps, rewards.open_clip_config(base), weights / "shapes_hps")
    if "imagereward" in stages:
        blip = rewards.run_imagereward(base, tokenizer, pools, budget("imagereward"), folder, seed)
        rewards.export_imagereward(blip, weights / "shapes_imagereward")
    if "aesthetic" in stages:
        parts = rewards.run_aesthetic(base, pools, budget("aesthetic"), folder, seed)
        rewards.export_aesthetic(*parts, weights / "shapes_aesthetic")


def load_base(folder: Path, tokenizer: CLIPTokenizer, device: torch.device) -> CLIPModel:
    """The averaged base CLIP of a finished (or running) stage ``clip``."""
    model = clip.build(len(tokenizer))
    state = torch.load(folder / "clip.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["averaged"])
    return model.to(device).clip.eval()


def load_pick(base: CLIPModel, folder: Path) -> CLIPModel:
    """The averaged PickScore-like model of a finished (or running) stage ``pick``."""
    model = CLIPModel(base.config)
    state = torch.load(folder / "shapes_pick.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["averaged"])
    return model.to(base.device).eval()


def quality(folder: Path, weights: Path = EMBEDDED, split: str = "test") -> dict[str, float]:
    """Agreement of the shipped rewards with the definition of preference on pictures of held-out prompts.

    Args:
        folder: with ``generated-<split>-*.npz``.
        weights: the shipped folder.
        split: "test" or "val".

    Returns:
        See :func:`rewards.evaluate`; the base CLIP's accuracy is under ``clip_caption``, ``clip_words`` and
        ``clip_picture`` where its training state is in ``folder``.  Empty if there are no pictures.
    """
    found: dict[str, float] = {}
    data = generated(split, folder)  # type: ignore[arg-type]
    if data is not None:
        found = rewards.evaluate({name: load(name, folder=weights) for name in NAMES}, data)
    if (folder / "clip.pt").exists():
        tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        base = load_base(folder, tokenizer, CPU)
        measured = clip.accuracy(base, tokenizer, edits("val", HELD_OUT, 12, folder))
        found |= {f"clip_{name}": value for name, value in measured.items()}
    return found
