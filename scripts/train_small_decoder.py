"""Train the shapes world's small decoder: ``python scripts/train_small_decoder.py`` (see ``--help``).

diffusers' AutoencoderTiny as a stand-in for the decoder of the full autoencoder where only a reward looks at the picture.
It learns what the full decoder makes of the latents that it will see: one-step predictions of plain ancestral sampling at
all timesteps, for prompts of the training split, and finished latents: first to the pixel, edges counted twice, then so that
rewards score both pictures alike, one reward at a time in turn; they see what pixels hardly tell.  Predictions are collected
before (``scripts/value_training/paths.py``); all of it resumes.  About 25 minutes on one core, 5 of them for the collection,
which ``scripts/train_value.py`` uses too.  Only the decoder is kept: nothing needs the encoder.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor, nn

from align.backbones.unet import UNetBackbone
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.value_training.paths import Paths
from scripts.value_training.sampler import REWARD_NAMES, TRAIN, shapes_paths

WIDTH, BLOCKS = 16, (2, 2, 1, 1)
BATCH = 16
SCORES = 0.05
"""Weight of the scores' errors, in deviations of each reward, in the second part."""


def build(channels: int) -> AutoencoderTiny:
    """An untrained one; diffusers' class wants all stages equally wide."""
    widths = (WIDTH,) * len(BLOCKS)
    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1,) * len(BLOCKS),
        num_decoder_blocks=BLOCKS,
    )


def latents(paths: Paths, number: int, seed: int) -> tuple[Tensor, list[str]]:
    """(number, C, h, w) clean latents, predictions of all steps and, as one more, what was finished; and their prompts."""
    rng = np.random.default_rng(seed)
    path, step = rng.integers(len(paths), size=number), rng.integers(len(paths.t) + 1, size=number)
    last = step == len(paths.t)
    chosen = paths.x0[path, np.where(last, 0, step)]
    chosen[last] = paths.final[path[last]]
    return torch.from_numpy(chosen).float(), paths.prompts[path].tolist()


@torch.no_grad()
def decoded(backbone: UNetBackbone, z: Tensor, path: Path, batch: int = 64) -> Tensor:
    """(n, 3, H, W) float16 pictures that the full decoder makes, in [0, 1]; kept in ``path``."""
    if path.exists():
        kept: Tensor = torch.load(path, weights_only=True)
        return kept
    parts = [backbone.decode(z[k : k + batch]).clamp(0, 1).half().cpu() for k in range(0, len(z), batch)]
    torch.save(torch.cat(parts), path)
    return torch.cat(parts)


def export(model: AutoencoderTiny, folder: Path) -> None:
    """Configuration and decoder in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    further = ("_use_default_values", "block_out_channels")  # which the class adds itself
    config = {key: value for key, value in model.config.items() if key not in further}
    text = json.dumps({"_class_name": "AutoencoderTiny", **config}, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    state = {
        f"decoder.{k}": v.half().contiguous()
        for k, v in copy.deepcopy(model.decoder).cpu().state_dict().items()
    }
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file(state, path, metadata={"format": "pt"})
    path.chmod(0o644)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("training/value"), help="paths and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("align/shapes/weights/small_decoder"))
    parser.add_argument("--prompts", type=int, default=64, help="of the training split, 4 pictures each")
    parser.add_argument("--latents", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=600, help="of each part of the training")
    parser.add_argument("--steps", type=int, default=None, help="bound on the steps of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    backbone, _, rewards, paths = shapes_paths(TRAIN, args.prompts, args.folder, device)
    z, prompts = latents(paths, args.latents, args.seed)
    pictures = decoded(backbone, z, args.folder / f"decoded-{args.prompts}-{args.latents}-{args.seed}.pt")
    torch.manual_seed(args.seed)
    model = build(z.shape[1]).to(device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)

    judges = [reward for reward in rewards if reward.differentiable and not reward.takes_timestep]

    def decode(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Places of random latents, and in [0, 1] what both decoders make of them."""
        some = torch.from_numpy(rng.integers(len(z), size=BATCH))
        shown = z[some].to(device).contiguous(memory_format=torch.channels_last)
        return some, (model.decode(shown).sample + 1) / 2, pictures[some].to(device).float()

    def pixels(small: Tensor, full: Tensor) -> tuple[Tensor, dict[str, float]]:
        error = 2 * (small - full)
        square = error.square().mean()
        # Rewards see whether edges are crisp, which hardly shows in the pixels' own error.
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return square + 0.2 * error.abs().mean() + 0.2 * edges, {
            "psnr": float(-10 * torch.log10(square.detach() / 4))
        }

    def alike(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        return pixels(*decode(rng)[1:])

    def judged(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        some, small, full = decode(rng)
        loss, figures = pixels(small, full)
        judge = int(rng.integers(len(judges)))
        texts = [prompts[k] for k in some.tolist()]
        scores = [
            judges[judge].score(picture.clamp(0, 1), texts) / spread[judge] for picture in (small, full)
        ]
        away = nn.functional.smooth_l1_loss(scores[0], scores[1])
        return loss + SCORES * away, {**figures, "away": float(away.detach())}

    budget = Budget(args.steps, args.seconds)
    recipe = Recipe(3e-3, budget, weight_decay=1e-4, average=0.995)
    averaged = train("small-decoder", model, alike, recipe, args.folder, args.seed)
    model.load_state_dict(averaged.state_dict())
    at = [REWARD_NAMES.index(reward.name) for reward in judges]
    spread = torch.from_numpy(paths.rewards[:, at]).std(dim=0).to(device)
    recipe = Recipe(3e-4, budget, weight_decay=1e-4, average=0.995)
    averaged = train("small-decoder-judged", model, judged, recipe, args.folder, args.seed)
    assert isinstance(averaged, AutoencoderTiny)
    export(averaged, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
