"""Train the embedded world: ``python scripts/train_shapes.py`` (see ``--help``).

Stages, in order, each resumable and runnable alone::

    tokenizer   a second
    autoencoder 30 minutes on one core, its decoder alone for the last 7
    denoiser    75 minutes on one core: text encoder and UNet
    generate    pictures of the trained model for the reward models
    rewards     110 minutes on one core: base CLIP, then the five reward models
    export      what ``training/`` holds of autoencoder and denoiser, into the package's weights folder

``rewards`` can run beside the others on the second core.  ``torchrun --nproc-per-node 2`` trains with one process a
core.  On a GPU pass ``--device cuda --scale 0.1``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PICTURES = 40_000
SECONDS = {"autoencoder": 1400.0, "decoder": 400.0, "denoiser": 4500.0}
STAGES = ("tokenizer", "autoencoder", "denoiser", "generate", "rewards", "export")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded world.")
    parser.add_argument("stages", nargs="*", help=f"any of {', '.join(STAGES)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("training"), help="checkpoints and data")
    parser.add_argument(
        "--weights", type=Path, default=Path("align/shapes/weights"), help="where to export to"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every time budget")
    parser.add_argument("--steps", type=int, default=None, help="bound on the steps of every stage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    for stage in args.stages:
        if stage not in STAGES:
            parser.error(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    run(args)


def run(args: argparse.Namespace) -> None:
    """Run the stages asked for."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

    from scripts.shapes_training import autoencoder, denoiser, export, generate, reward_stages, tokenizer
    from scripts.shapes_training.data import rendered
    from scripts.shapes_training.loop import Budget

    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    device = torch.device(args.device)
    stages = args.stages or STAGES

    def budget(stage: str) -> Budget:
        return Budget(steps=args.steps, seconds=SECONDS[stage] * args.scale)

    if "tokenizer" in stages:
        tokenizer.run(args.weights / "tokenizer")
    words = CLIPTokenizer.from_pretrained(args.weights / "tokenizer")
    if "autoencoder" in stages:
        data = rendered("train", PICTURES, 1, args.folder)
        model = autoencoder.run(data, budget("autoencoder"), args.folder, args.seed, device)
        model = autoencoder.polish(model, data, budget("decoder"), args.folder, args.seed, device)
        model.save_pretrained(args.folder / "vae")
        held_out = rendered("test", 500, 2, args.folder)
        print(f"autoencoder: {autoencoder.psnr(model, held_out.pictures):.2f} dB on 500 test pictures")
    if "denoiser" in stages:
        data = rendered("train", PICTURES, 1, args.folder)
        vae = AutoencoderKL.from_pretrained(args.folder / "vae").to(device)
        path = args.folder / "latents.pt"
        if not path.exists():
            torch.save(autoencoder.encode(vae, data.pictures) * vae.config.scaling_factor, path)
        latents = torch.load(path, weights_only=True)
        trained = denoiser.run(
            latents, data.captions, data.regions, words, budget("denoiser"), args.folder, args.seed, device
        )
        export.export_denoiser(trained, args.weights)
    if "export" in stages:
        best = denoiser.restore(args.folder, len(words), autoencoder.LATENT_CHANNELS)
        export.export_denoiser(best, args.weights)
    if "denoiser" in stages or "export" in stages:
        export.export_autoencoder(AutoencoderKL.from_pretrained(args.folder / "vae"), args.weights)
    if "generate" in stages:
        generate.run("train", 700, 4, 21, args.weights, args.folder, device)
        generate.run("test", 150, 4, 22, args.weights, args.folder, device)
    if "rewards" in stages:
        reward_stages.run(args.folder, args.weights, args.scale, args.steps, args.seed, device)


if __name__ == "__main__":
    main()
