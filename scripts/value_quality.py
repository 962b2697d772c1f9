"""Measure estimates of the expected reward: ``python scripts/value_quality.py`` (see ``--help``).

On states of plain ancestral sampling for captions of the test split, several pictures of each: how well does a state's value
tell which of a prompt's pictures will be better?  Per timestep, Spearman's correlation among the pictures of a prompt, mean over
prompts with its standard error; with the reward of the finished picture for every estimate, and for the small decoder with
the value through the full one too, where correlations over all prompts are told beside.  Writes
``align/shapes/weights/value_quality.json``, the table in ``docs/methods.md``.  Values are kept in ``--folder``, so it resumes;
about 15 minutes on one core, most of it for ``looks``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from align.backbones.base import Conditioning, Encoded
from align.backbones.guider import Guider
from align.backbones.small_decoder import load_small_decoder
from align.processes.base import Step
from align.rewards.base import Reward
from align.rewards.registry import EMBEDDED
from align.sampling.noise import Draws, NoiseStream
from align.sampling.value_network import load_value_network
from align.sampling.values import Asked, Lookahead, Looks, PosteriorMean, Regressed, Value
from scripts.value_training.paths import Paths
from scripts.value_training.sampler import GUIDANCE, REWARD_NAMES, TEST, shapes_paths

LOOKS, AHEAD = 4, 2
CPU = torch.device("cpu")


def values(
    estimate: Value,
    reward: Reward,
    paths: Paths,
    process_steps: Sequence[Step],
    encode: Callable[[str, str], Encoded],
    steps: list[int],
    batch: int = 64,
) -> np.ndarray:
    """(n, len(steps)) values of all paths at some steps."""
    found = np.empty((len(paths), len(steps)), np.float32)
    for first in range(0, len(paths), batch):
        texts = [str(text) for text in paths.prompts[first : first + batch]]
        read = {text: encode(text, "") for text in texts}
        conditioning = Conditioning.of([read[text] for text in texts])
        own = [NoiseStream(0, text, first + k) for k, text in enumerate(texts)]
        for place, k in enumerate(steps):
            z, x0 = (torch.from_numpy(some[first : first + batch, k]).float() for some in (paths.z, paths.x0))
            draws = Draws(own, k, 0, tuple(z.shape[1:]), CPU)
            time = torch.full((len(z),), int(process_steps[k].time)) if reward.takes_timestep else None
            score = lambda shown, _, texts=texts, time=time: reward.score(shown, texts, time)  # noqa: E731
            with torch.no_grad():
                eps = (z - process_steps[k].a * x0) / process_steps[k].s
                some_values = estimate(Asked(z, x0, eps, conditioning, process_steps[k], draws, score))
            found[first : first + batch, place] = some_values.numpy()
    return found


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once."""
    if not path.exists():
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, make())
        os.replace(temporary, path)
    array: np.ndarray = np.load(path)
    return array


def within(one: np.ndarray, other: np.ndarray, samples: int) -> tuple[float, float]:
    """Spearman's correlation among the ``samples`` pictures of a prompt: mean over prompts, and its standard error."""
    pairs = zip(one.reshape(-1, samples), other.reshape(-1, samples), strict=True)
    found = np.array([spearmanr(a, b).statistic for a, b in pairs])
    return float(found.mean()), float(found.std(ddof=1) / len(found) ** 0.5)


def rate(decode: Callable[[Tensor], Tensor], z: Tensor, rounds: int) -> float:
    """Pictures decoded in a second of CPU time."""
    with torch.no_grad():
        decode(z)
        began = time.process_time()
        for _ in range(rounds):
            decode(z)
    return rounds * len(z) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("training/value"), help="paths and values")
    parser.add_argument(
        "--weights", type=Path, default=EMBEDDED, help="with small_decoder and value_network in it"
    )
    parser.add_argument("--reward", default="shapes_pick", choices=REWARD_NAMES)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--every", type=int, default=3, help="of the steps, which to look at")
    parser.add_argument("--estimates", nargs="+", default=["posterior", "small_decoder", "network", "looks"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backbone, process, rewards, paths = shapes_paths(TEST, args.prompts, args.folder, CPU)
    place = REWARD_NAMES.index(args.reward)
    reward, final, samples = rewards[place], paths.rewards[:, place], TEST[1]
    steps = list(range(0, len(process.steps), args.every))
    folder = args.weights / "small_decoder"
    small = load_small_decoder(
        folder, "diffusion_pytorch_model.safetensors", backbone.latent_shape(), CPU, torch.float32
    )
    network = load_value_network(args.weights / "value_network", CPU)
    known: dict[str, Value] = {
        "posterior": PosteriorMean(backbone.decode),
        "small_decoder": PosteriorMean(small, own_decoder=False),
        "network": Regressed(network, {args.reward: 1.0}),
        "looks": Looks(backbone, Guider(GUIDANCE), LOOKS),
        "lookahead": Lookahead(backbone, Guider(GUIDANCE), process, AHEAD),
    }
    found: dict[str, np.ndarray] = {}
    for name in args.estimates:
        make = partial(values, known[name], reward, paths, process.steps, backbone.encode, steps)
        if name in ("posterior", "looks", "lookahead"):  # what they depend on is shipped and fixed
            found[name] = kept(args.folder / f"{name}-{args.reward}-{args.prompts}-{args.every}.npy", make)
        else:
            found[name] = make()
    z = torch.from_numpy(paths.final[:32]).float()
    rates = {"full": [], "small": []}  # type: dict[str, list[float]]
    for _ in range(3):
        rates["full"].append(rate(backbone.decode, z, 2))
        rates["small"].append(rate(small, z, 6))
    figures: dict[str, object] = {
        "prompts": args.prompts,
        "samples": samples,
        "decodings a second, full and small": [
            round(float(np.median(rates[k])), 1) for k in ("full", "small")
        ],
        "t": [int(process.steps[k].time) for k in steps],
    }
    for name, value in found.items():
        figures[f"{name}, final reward"] = [
            [round(number, 3) for number in within(value[:, k], final, samples)] for k in range(len(steps))
        ]
    if {"posterior", "small_decoder"} <= found.keys():
        one, other = found["small_decoder"], found["posterior"]
        figures["small_decoder, posterior"] = [
            [round(number, 3) for number in within(one[:, k], other[:, k], samples)]
            for k in range(len(steps))
        ]
        figures["small_decoder, posterior, over all prompts"] = [
            round(float(spearmanr(one[:, k], other[:, k]).statistic), 3) for k in range(len(steps))
        ]
    print(json.dumps(figures, indent=1))
    if args.write:
        path = args.weights / "value_quality.json"
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        text = json.dumps({**stored, args.reward: figures}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
