"""Train a value network: ``python scripts/train_value.py [OPTIONS] [GROUP=NAME ...]`` (see ``--help``).

For ``method.value.estimate=network`` (SVDD-MC, DSearch-MC): regression of finished pictures' rewards on the noisy latents
that they came from, one network for all timesteps and all rewards asked for.

1. Paths of the pre-trained sampler are collected in portions (``scripts/value_training/paths.py``): every prompt
   ``--samples`` times, every noisy state of it kept, every reward of the finished picture.  Prompts are captions of the shapes
   world's training split, or the lines of ``--prompts-file``.
2. The network learns from the states of random prompts' pictures at random steps, targets standardised.  The loss is the mean
   square of what is left of the errors when each prompt's mean error is taken away, plus a tenth of their own: by values,
   pictures of one prompt are compared, and which prompts are easy is learned first and soonest by heart.  A share of the
   states is ``--renoised`` from finished latents at the state's timestep instead, z_t = a x_0 + s noise:
   a chain that samples what it was trained for passes through the same states, and they are new each time.

Both resume where they were killed.  The shipped one: the defaults, about 6 minutes of one core to collect, and 10 to train.
For another model: ``python scripts/train_value.py backbone=sd15 reward=aesthetic --prompts-file animals.txt --together 8
--patch 8 --device cuda --out my_value``, then ``method=svdd method.value.estimate=network method.value.weights=my_value``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from align.backbones.base import Backbone
from align.processes.base import Process
from align.processes.ddim import ddim
from align.sampling.value_network import ValueNetwork, ValueShape, save_value_network
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.value_training.paths import TOGETHER, Paths, collect, shapes_prompts
from scripts.value_training.sampler import REWARD_NAMES, TRAIN

WHOLE = 0.1
"""Weight of the errors that all pictures of a prompt share."""


@dataclass(frozen=True)
class Examples:
    """What the network learns from.

    Attributes:
        paths: n of T steps.
        text: (m, L, width) token embeddings of the different prompts.
        prompt: (n,) which of them a path has.
        levels: (T, 2) shares of signal and noise at each step.
        fractions: (T,) t over the number of training timesteps.
        targets: (n, R) standardised rewards.
        samples: paths of a prompt, side by side.
    """

    paths: Paths
    text: Tensor
    prompt: Tensor
    levels: Tensor
    fractions: Tensor
    targets: Tensor
    samples: int

    @staticmethod
    def of(paths: Paths, samples: int, backbone: Backbone, process: Process) -> Examples:
        """Everything that paths tell."""
        different, prompt = np.unique(paths.prompts, return_inverse=True)
        rewards = torch.from_numpy(paths.rewards)
        return Examples(
            paths,
            torch.stack([backbone.encode(str(text), "").prompt.float().cpu() for text in different]),
            torch.from_numpy(prompt),
            torch.tensor([(step.a, step.s) for step in process.steps]),
            torch.tensor([step.fraction for step in process.steps]),
            (rewards - rewards.mean(dim=0)) / rewards.std(dim=0),
            samples,
        )

    def batch(self, rng: np.random.Generator, number: int, renoised: float) -> tuple[Tensor, ...]:
        """Latents, fractions, text and targets: the states at random steps of ``number`` random prompts' pictures."""
        first = self.samples * rng.integers(len(self.paths) // self.samples, size=number)
        path = (first[:, None] + np.arange(self.samples)).flatten()
        step = rng.integers(len(self.levels), size=number).repeat(self.samples)
        z = torch.from_numpy(self.paths.z[path, step]).float()
        final = torch.from_numpy(self.paths.final[path]).float()
        a, s = self.levels[step].T.view(2, -1, 1, 1, 1)
        noised = a * final + s * torch.randn_like(final)
        again = torch.from_numpy(rng.random(len(path)) < renoised).view(-1, 1, 1, 1)
        row = torch.from_numpy(path)
        return (
            torch.where(again, noised, z),
            self.fractions[step].float(),
            self.text[self.prompt[row]],
            self.targets[row],
        )


def learn(
    examples: Examples,
    shape: ValueShape,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device,
    *,
    batch: int = 24,
    renoised: float = 0.5,
    stage: str = "value-network",
) -> ValueNetwork:
    """Train and return the averaged network."""
    torch.manual_seed(seed)
    network = ValueNetwork(shape).to(device)

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        z, fraction, text, target = (part.to(device) for part in examples.batch(rng, batch, renoised))
        error = (network(z, fraction, text) - target).unflatten(0, (-1, examples.samples))
        apart = (error - error.mean(dim=1, keepdim=True)).square().mean()
        whole = error.square().mean()
        return apart + WHOLE * whole, {"apart": float(apart.detach()), "whole": float(whole.detach())}

    recipe = Recipe(1e-3, budget, weight_decay=0.05, average=0.998)
    averaged = train(stage, network, loss, recipe, folder, seed)
    assert isinstance(averaged, ValueNetwork)
    return averaged


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides", nargs="*", help="of backbone, sampler and reward, as for python -m align"
    )
    parser.add_argument("--folder", type=Path, default=Path("training/value"), help="paths and checkpoint")
    parser.add_argument("--out", type=Path, default=Path("align/shapes/weights/value_network"))
    parser.add_argument("--prompts", type=int, default=256, help="captions of the shapes world")
    parser.add_argument("--prompts-file", type=Path, default=None, help="a prompt a line, instead")
    parser.add_argument("--samples", type=int, default=TRAIN[1], help="pictures of a prompt")
    parser.add_argument("--together", type=int, default=TOGETHER, help="pictures sampled in one batch")
    parser.add_argument(
        "--renoised", type=float, default=0.5, help="share of states made from finished latents"
    )
    parser.add_argument("--seconds", type=float, default=600, help="of training")
    parser.add_argument("--steps", type=int, default=None, help="bound on its steps")
    parser.add_argument("--batch", type=int, default=24, help="prompts of a training step")
    parser.add_argument(
        "--patch", type=int, default=2, help="side of the square of latents that is one token"
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    from align.backbones import registry
    from align.commands.parser import parse
    from align.config.compose import jobs_of
    from align.rewards.registry import load
    from align.runner.files import recipe

    args = arguments(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    config = jobs_of(parse(["backbone=shapes", "sampler=ddim_ancestral", *args.overrides]))[0].config
    model, sampler = config.backbone, config.sampler
    chosen = any(word.startswith("reward") for word in args.overrides) or model.family != "shapes"
    names = tuple(config.reward.terms) if chosen else REWARD_NAMES
    backbone = registry.load(
        recipe(model), device, model.height, model.width, attention_stride=model.attention_stride
    )
    process = ddim(backbone.scheduler_config, sampler.steps, sampler.eta)
    rewards = [load(name, device) for name in names]
    if args.prompts_file is not None:
        lines = args.prompts_file.read_text(encoding="utf-8").splitlines()
        prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    else:
        prompts = shapes_prompts("train", args.prompts, TRAIN[2])
    scale = sampler.guidance_scale
    files = collect(
        prompts,
        args.samples,
        backbone,
        process,
        scale,
        rewards,
        TRAIN[3],
        args.folder,
        "train",
        args.together,
    )
    examples = Examples.of(Paths.read(files), args.samples, backbone, process)
    found = examples.paths.rewards
    shape = ValueShape(
        latents=backbone.latent_shape(),
        text_width=examples.text.shape[2],
        rewards=names,
        mean=tuple(found.mean(axis=0).tolist()),
        deviation=tuple(found.std(axis=0, ddof=1).tolist()),
        patch=args.patch,
        width=args.width,
        layers=args.layers,
    )
    budget = Budget(args.steps, args.seconds)
    network = learn(
        examples, shape, budget, args.folder, args.seed, device, batch=args.batch, renoised=args.renoised
    )
    facts = {
        "backbone": model.name,
        "steps": sampler.steps,
        "eta": sampler.eta,
        "guidance_scale": scale,
        "prompts": len(prompts),
        "pictures": len(found),
    }
    save_value_network(network, args.out, facts)


if __name__ == "__main__":
    main(sys.argv[1:])
