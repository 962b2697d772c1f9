"""Measure the shipped weights on held-out prompts: ``python scripts/shapes_quality.py``.

Prints and, with ``--write``, stores ``quality.json`` beside the weights, the figures of the model card; figures for
another ``--eta`` or ``--sampler`` stay in the file.  Pictures are plain samples of test-split prompts, by 25 steps or by a few-step
student's own samplers; every verdict is the exact checker's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from align.backbones.registry import load_folder
from align.checkpoints.reference import EMBEDDED
from align.checkpoints.weight_files import sha256 as file_hash
from align.commands.parser import parse as parse_command
from align.config.compose import jobs_of
from align.runner.build import build_sampler
from align.sampling.batching import Calls
from align.sampling.sampler import Request, Samples
from align.shapes.checker import Verdict, check_picture
from align.shapes.grammar import Split, distinct_captions, parse
from scripts.shapes_training.autoencoder import psnr
from scripts.shapes_training.data import rendered
from scripts.shapes_training.spoil import to_uint8

OPTION = {"shapes_turbo": "backbone.unet"}
"""Where a folder of weights goes, if it is no whole pipeline."""


def sampler(name: str, weights: Path, batch: int, *options: str) -> Samples:
    """Plain sampling of a backbone of the shapes world with the weights in a folder."""
    words = [f"backbone={name}", f"{OPTION.get(name, 'backbone.weights')}={weights}", "method=none", *options]
    return build_sampler(jobs_of(parse_command(words))[0].config, Calls(batch))


def verdicts(
    plain: Samples, split: Split, number: int, objects: int, seed: int = 0
) -> tuple[list[Verdict], np.ndarray]:
    """Checker verdicts on ``number`` different prompts asking for that many objects, and the pictures."""
    captions = distinct_captions(split, number, 11, objects, counts=False)
    texts = [caption.text() for caption in captions]
    texts = (texts * (number // len(texts) + 1))[:number]
    requests = [Request(text, seed=seed, sample=k // len(captions)) for k, text in enumerate(texts)]
    pictures = []
    for begin in range(0, number, 64):
        outcomes = plain.sample(requests[begin : begin + 64])
        pictures += [
            to_uint8(outcome.picture[None])[0] for outcome in outcomes if outcome.picture is not None
        ]
    judged = [check_picture(picture, parse(text)) for picture, text in zip(pictures, texts, strict=True)]  # type: ignore[arg-type]
    return judged, np.stack(pictures)


SAMPLERS = ("turbo_shapes", "turbo_shapes_4")


def shares(judged: list[Verdict]) -> dict[str, float]:
    """Share of pictures in which each part of the caption is right."""
    parts = ("all", "objects", "colours", "counts", "relations", "sizes", "background")
    return {part: float(np.mean([getattr(verdict, part) for verdict in judged])) for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="shapes", choices=("shapes", "shapes_flow", "shapes_turbo"))
    parser.add_argument("--weights", type=Path, help="folder of the pipeline (default: the shipped one)")
    parser.add_argument("--folder", type=Path, default=Path("training"))
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--eta", type=float, nargs="+", default=[1.0, 0.0], help="shares of ancestral noise")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument(
        "--samplers", nargs="+", default=SAMPLERS, help="of shapes_turbo, instead of steps, eta and guidance"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-rewards", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = args.weights or EMBEDDED[args.backbone]
    stored = weights / "quality.json"
    figures = json.loads(stored.read_text()) if args.write and stored.exists() else {}
    figures |= {"split": args.split, "prompts": args.number}
    if args.backbone == "shapes_turbo":
        ways = {f"sampler {name}": [f"sampler={name}"] for name in args.samplers}
    else:
        figures |= {"steps": args.steps, "guidance_scale": args.guidance}
        plain = [f"sampler.steps={args.steps}", f"sampler.guidance_scale={args.guidance:g}"]
        ways = {f"eta {eta:g}": [*plain, f"sampler.eta={eta:g}"] for eta in args.eta}
    if rewards := args.backbone == "shapes" and not args.no_rewards:
        backbone = load_folder(weights, torch.device("cpu"))
        held_out = rendered(args.split, 500, 2, args.folder)
        figures["autoencoder_psnr_db"] = psnr(backbone.vae, held_out.pictures)
    for (way, options), eta in zip(ways.items(), args.eta if rewards else ways, strict=True):
        drawing = sampler(args.backbone, weights, 16, *options)
        figures[way] = found = {}
        for name, objects in (("one_object", 1), ("two_objects", 2), ("three_objects", 3)):
            judged, _pictures = verdicts(drawing, args.split, args.number, objects)
            found[name] = shares(judged)
            print(way, name, found[name], flush=True)
        if rewards:
            from scripts.shapes_training import generate
            from scripts.shapes_training.reward_stages import quality

            network = file_hash(weights / "unet" / "diffusion_pytorch_model.safetensors")[:8]
            path = args.folder / f"generated-{args.split}-{args.number}-{eta:g}-{network}.npz"
            generate.held_out(args.split, args.number, 22, backbone, path, eta)
            found["rewards"] = quality(path, weights)
        if args.write:
            stored.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
