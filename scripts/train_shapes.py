"""Train the embedded world: ``python scripts/train_shapes.py`` (see ``--help``).

Stages, each resumable and runnable alone, with their budgets in minutes of one core::

    tokenizer                      a second
    autoencoder                30  its decoder alone for the last 7
    denoiser                   70  text encoder and UNet; both processes train it together
    refine                     40  the same on, in a second cycle
    flow                      110  a flow transformer, taught by the denoiser
    turbo                      60  a student of the denoiser that draws in 1 to 4 steps
    mend                       60  the same on, where its first step is wrong and its others would have mended it
    generate                   29  pictures of the model as ``denoiser`` left it, for the reward models
    clip                       22  base CLIP on rendered pictures
    practice                   10  the same on, on generated pictures
    pick, spm, hps             38  contrastive rewards
    imagereward, aesthetic     38  the other two

With ``--processes 2`` (the default) stages that do not need each other run side by side, one thread each: about
150 minutes in all.  On a GPU pass ``--device cuda --processes 1 --scale 0.1``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SECONDS = {
    "autoencoder": 1400.0,
    "decoder": 400.0,
    "denoiser": 4200.0,
    "refine": 2400.0,
    "flow": 6600.0,
    "turbo": 3600.0,
    "mend": 3600.0,
}
REWARDS = ("clip", "practice", "pick", "spm", "hps", "imagereward", "aesthetic")
WAVES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("tokenizer",),),
    (("autoencoder",), ("clip",)),
    (("denoiser",),),
    (("refine",), ("generate", "practice")),
    (("pick", "spm", "hps"), ("imagereward", "aesthetic")),
    (("flow",), ("turbo", "mend")),
)
"""What runs one after the other, and in it what runs side by side."""
SHARED = ("denoiser",)
"""Stages that all processes train together, gradients averaged."""
STAGES = tuple(stage for wave in WAVES for lane in wave for stage in lane)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", help=f"any of {', '.join(STAGES)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("training"), help="checkpoints and data")
    parser.add_argument(
        "--weights", type=Path, default=Path("align/shapes/weights"), help="where to export to"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every time budget")
    parser.add_argument("--steps", type=int, default=None, help="bound on the steps of every stage")
    parser.add_argument(
        "--pictures", type=int, default=40_000, help="rendered pictures, and captions of the stage turbo"
    )
    parser.add_argument("--captions", type=int, default=2304, help="captions of generated pictures, 4 each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--processes", type=int, default=2, help="side by side; 1 runs all in this one")
    args = parser.parse_args(argv)
    for stage in args.stages:
        if stage not in STAGES:
            parser.error(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    wanted = args.stages or STAGES
    if args.processes == 1 or "RANK" in os.environ:
        run([stage for stage in STAGES if stage in wanted], args)
        return
    for wave in WAVES:
        lanes = [[stage for stage in lane if stage in wanted] for lane in wave]
        running = [subprocess.Popen(_command(lane, args)) for lane in lanes if lane]
        if any([process.wait() for process in running]):
            raise SystemExit(1)


def _command(stages: list[str], args: argparse.Namespace) -> list[str]:
    """This script for some stages alone, in one process or, for shared stages, in several."""
    options = ["--processes", "1"]
    for name, value in vars(args).items():
        if name not in ("stages", "processes") and value is not None:
            options += [f"--{name}", str(value)]
    launcher = [sys.executable]
    if stages[0] in SHARED:
        launcher += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(args.processes),
        ]
    return [*launcher, __file__, *stages, *options]


def run(stages: list[str], args: argparse.Namespace) -> None:
    """Run some stages in this process."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTokenizer

    from align.backbones.registry import load_folder
    from scripts.shapes_training import (
        autoencoder,
        denoiser,
        export,
        flow,
        generate,
        mend,
        reward_stages,
        tokenizer,
        turbo,
    )
    from scripts.shapes_training.data import Rendered, rendered
    from scripts.shapes_training.loop import Budget

    torch.set_num_threads(args.threads)
    together = int(os.environ.get("WORLD_SIZE", "1"))
    if together > 1:
        torch.distributed.init_process_group("gloo")
    first = int(os.environ.get("RANK", "0")) == 0
    device = torch.device(args.device)

    def budget(stage: str) -> Budget:
        return Budget(steps=args.steps, seconds=SECONDS[stage] * args.scale / together)

    def encoded(data: Rendered) -> torch.Tensor:
        """Scaled latents (n, c, 8, 8) of the pictures, made once."""
        path = args.folder / "latents.pt"
        if not path.exists():
            vae = AutoencoderKL.from_pretrained(args.weights / "vae").float().to(device)
            torch.save(autoencoder.encode(vae, data.pictures) * vae.config.scaling_factor, path)
        latents: torch.Tensor = torch.load(path, weights_only=True)
        return latents

    if "tokenizer" in stages:
        tokenizer.run(args.weights / "tokenizer")
    words = CLIPTokenizer.from_pretrained(args.weights / "tokenizer")
    if "autoencoder" in stages:
        data = rendered("train", args.pictures, 1, args.folder)
        model = autoencoder.run(data, budget("autoencoder"), args.folder, args.seed, device)
        model = autoencoder.polish(model, data, budget("decoder"), args.folder, args.seed, device)
        export.export_autoencoder(model, args.weights)
        number = min(500, args.pictures)
        held_out = rendered("test", number, 2, args.folder)
        print(f"autoencoder: {autoencoder.psnr(model, held_out.pictures):.2f} dB on {number} test pictures")
        path = args.folder / "latents.pt"
        torch.save(autoencoder.encode(model, data.pictures) * model.config.scaling_factor, path)
    for stage in ("denoiser", "refine"):
        if stage not in stages:
            continue
        data = rendered("train", args.pictures, 1, args.folder)
        latents = encoded(data)
        again = stage == "refine"
        trained = denoiser.run(
            latents,
            data.captions,
            data.regions,
            words,
            budget(stage),
            args.folder,
            args.seed + (5 if again else 0),
            device,
            start=denoiser.shipped(args.weights, len(words), latents.shape[1]) if again else None,
            stage=stage,
            learning_rate=5e-4 if again else 8e-4,
        )
        if first:
            export.export_denoiser(trained, args.weights)
    if "generate" in stages:
        generate.run(args.captions, args.seed + 21, args.weights, args.folder, device)
    if some := tuple(stage for stage in REWARDS if stage in stages):
        reward_stages.run(
            args.folder, args.weights, args.pictures, args.scale, args.steps, args.seed, device, some
        )
    if "flow" in stages:
        data = rendered("train", args.pictures, 1, args.folder)
        latents = encoded(data)
        teacher = denoiser.shipped(args.weights, len(words), latents.shape[1])
        network = flow.run(
            latents,
            data.captions,
            data.regions,
            words,
            teacher,
            budget("flow"),
            args.folder,
            args.seed,
            device,
        )
        export.export_flow(network, args.weights)
    if "turbo" in stages:
        vae = AutoencoderKL.load_config(args.weights / "vae")
        shape = (vae["latent_channels"], 8, 8)
        teacher = denoiser.shipped(args.weights, len(words), shape[0])
        student = turbo.run(
            shape, words, teacher, args.pictures, budget("turbo"), args.folder, args.seed, device
        )
        export.export_turbo(student, args.weights)
    if "mend" in stages:
        backbone = load_folder(args.weights, device)
        student = mend.run(
            UNet2DConditionModel.from_pretrained(args.weights / "turbo").float(),
            backbone.latent_shape(),
            backbone.decode,
            words,
            denoiser.shipped(args.weights, len(words), backbone.latent_shape()[0]),
            budget("mend"),
            args.folder,
            args.seed,
            device,
        )
        export.export_turbo(student, args.weights)


if __name__ == "__main__":
    main(sys.argv[1:])
