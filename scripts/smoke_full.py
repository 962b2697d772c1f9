"""Guided DyMO steps on the true architectures with random weights: ``python scripts/smoke_full.py sd15``.

Nothing is downloaded: the sizes are those of the published configurations, and the parameter counts are checked
against them.  The sampling loop itself runs steps of DyMO's middle phase, where both losses count: network forward and
backward with attention maps, decoder, and the step-aware preference model (ViT-H) in full size.  Prints seconds an
evaluation, peak memory and counted floating-point operations; one evaluation on a CPU, where it takes minutes, five on a GPU
after one that is not timed.  With ``--limit-gb`` a GPU hands out no more than that, the driver's own share included: what does
not fit fails.  GB are 10^9 bytes.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as the runner does

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.base import Process, Step
from align.processes.ddim import ddim
from align.rewards.step_aware import StepAwareModel, StepAwareReward
from align.sampling.batching import Calls
from align.sampling.guidance import Guidance
from align.sampling.judge import Judge
from align.sampling.ledger import Ledger
from align.sampling.loop import Info, run
from align.sampling.noise import NoiseStream
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.state import Pictures, State
from align.semantics.attention_loss import pair_weights
from align.semantics.graph import Entity, Graph
from align.semantics.tokens import token_pairs
from scripts.full_size import PEAKS, SCALING, SCHEDULE, SIDE, UNETS, VAE, VIT_H, random_model
from scripts.shapes_training.towers import start_modulation

TOKENS = 77
GUIDANCE = {"sd15": 7.5, "sdxl": 5.0}
SEMANTIC = {"sd15": 10.0, "sdxl": 50.0}
PARAMETERS = {"sd15": 859.5, "sdxl": 2567.5, "vae": 83.7, "step_aware": 1306.2}
"""Millions, as published."""


def made(name: str, make: Callable[[], nn.Module], dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen model with random weights, made on its device, and the published number of parameters."""
    model = random_model(make, dtype, device)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    if abs(millions - PARAMETERS[name]) > 0.1:
        raise SystemExit(f"{name} has {millions:.1f} million parameters, not {PARAMETERS[name]}")
    print(f"{name:<11} {millions:7.1f} M parameters, {str(dtype).removeprefix('torch.')}", flush=True)
    return model


def build_modules(name: str, dtype: torch.dtype, device: torch.device) -> Modules:
    """Network and autoencoder of a backbone."""
    return Modules(
        network=made(name, lambda: UNet2DConditionModel(**UNETS[name]), dtype, device),
        vae=made("vae", lambda: AutoencoderKL(**VAE, scaling_factor=SCALING[name]), dtype, device),
        text=(),
        zero_empty=name == "sdxl",
        scheduler_config=SCHEDULE,
        device=device,
    )


def build_reward(dtype: torch.dtype, device: torch.device) -> StepAwareReward:
    """The step-aware preference model."""
    config = CLIPConfig(**VIT_H)
    model = made("step_aware", lambda: StepAwareModel(config), dtype, device)
    start_modulation(model)
    # No tokenizer: the prompt's embedding is computed once a prompt and is no part of an evaluation.
    ids = torch.arange(TOKENS, device=device)[None]

    read = model.read(ids)[0]
    size = config.vision_config.image_size
    return StepAwareReward("smoke", model, model.see, lambda _: read, 100.0, size, "spo", dtype, device, {})


def conditioning(backbone: UNetBackbone) -> Conditioning:
    """Random embeddings of the sizes that the network reads."""
    width, dtype, device = backbone.unet.config.cross_attention_dim, backbone.unet.dtype, backbone.device
    states = torch.randn(2, 1, TOKENS, width, device=device, dtype=dtype)
    if not backbone.reads_size:
        return Conditioning(states[0], states[1])
    pooled = torch.randn(2, 1, 1280, device=device, dtype=dtype)
    assert backbone.text.size is not None
    return Conditioning(states[0], states[1], pooled[0], pooled[1], backbone.text.size[None])


def pictures(backbone: UNetBackbone) -> Pictures:
    """One prompt with two objects that have an attribute each, a token a word."""
    prompt = "red cube blue ball"
    spans = [(0, 3), (4, 8), (9, 13), (14, 18)]
    graph = Graph((Entity(spans[1], (spans[0],)), Entity(spans[3], (spans[2],))))
    offsets = ((0, 0), *spans) + ((0, 0),) * (TOKENS - 5)
    pairs = token_pairs(graph, offsets, 5)
    weights = pair_weights([pairs], TOKENS).to(backbone.device)
    return Pictures([prompt], conditioning(backbone), weights, torch.tensor([True]))


class Memory:
    """What a device, or on a CPU the process, holds, in GB; on a CPU all peaks are since the process began."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"

    def held(self) -> float:
        """Now, by tensors."""
        return torch.cuda.memory_allocated(self.device) / 1e9 if self.cuda else self.peak()

    def peak(self) -> float:
        """At most, by tensors."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

    def reserved(self) -> float:
        """At most, by torch's allocator."""
        return torch.cuda.max_memory_reserved(self.device) / 1e9 if self.cuda else self.peak()

    def beside(self) -> float:
        """On a GPU by the driver, libraries and other processes."""
        if not self.cuda:
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        return (total - free - torch.cuda.memory_reserved(self.device)) / 1e9

    def limit(self, gb: float) -> None:
        """Hand out no more than ``gb`` in all.  Kernels are loaded first, so that their room is not given away."""
        x = torch.ones(1, 8, 64, 64, device=self.device, dtype=torch.bfloat16)
        torch.nn.functional.conv2d(x, x[:, :, :3, :3]).flatten(1) @ x.flatten()[: 62 * 62]
        torch.cuda.synchronize(self.device)
        total = torch.cuda.mem_get_info(self.device)[1] / 1e9
        if gb < total:
            torch.cuda.set_per_process_memory_fraction((gb - self.beside()) / total, self.device)

    def start_over(self) -> None:
        """Forget the peaks, and give back what is not used."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def steps_of(objective: Objective, process: Process, number: int) -> list[Step]:
    """The first steps at which both losses count."""
    both = [step for step in process.steps if objective.terms(step).phase == 1]
    if not 1 <= number <= len(both):
        raise SystemExit(f"--steps must be 1 to {len(both)}")
    return both[:number]


def measure(
    args: argparse.Namespace, modules: Modules, reward: StepAwareReward, checkpointing: bool
) -> dict[str, Any]:
    """Run guided steps of the sampling loop: what they cost, or that there was no room for them.

    The network's blocks are checkpointed for good: measure with kept ones first.
    """
    device = modules.device
    side = args.side or SIDE[args.backbone]
    backbone = UNetBackbone(modules, side, side, attention_stride=4, checkpointing=checkpointing)
    objective = Objective(
        preference=1.0, semantic=SEMANTIC[args.backbone], semantic_until=0.83, copies=args.views - 1
    )
    process = ddim(SCHEDULE, 50, 1.0)
    steps = steps_of(objective, process, args.steps)
    parts = Parts(
        Predict(backbone, Guider(GUIDANCE[args.backbone]), Calls(1)),
        Judge(backbone, Calls(1), reward, objective, views_together=args.views_together),
        process,
        Guidance(1.0, (1.0, 1.0, 1.0)),
    )
    what = pictures(backbone)
    # A previous prediction, so that both losses have a weight from the first step on.
    z, previous = (torch.randn(1, *backbone.latent_shape(), device=device) for _ in range(2))
    state = replace(State.of(z, torch.zeros(1, dtype=torch.int64)), previous_x0=previous)
    infos: list[Info] = []

    def seconds(some: Sequence[Step]) -> list[float]:
        nonlocal state
        ends = [time.perf_counter()]

        def done(_: Step) -> None:
            if memory.cuda:
                torch.cuda.synchronize(device)
            ends.append(time.perf_counter())

        fewer = replace(parts, process=Process(tuple(some)))
        streams = lambda picture, particle: NoiseStream(0, what.prompts[picture], particle)  # noqa: E731
        state = run(fewer, state, what, streams, Ledger(1), infos.append, done)
        return [after - before for before, after in itertools.pairwise(ends)]

    memory = Memory(device)
    memory.start_over()
    before = memory.held()
    found: dict[str, Any] = {"checkpointing": checkpointing, "gb_before": before}
    try:
        with FlopCounterMode(display=False) as counter:
            first = seconds(steps[:1])
        # Counting would slow a GPU down: there the counted evaluation is the warm-up.
        times = seconds(steps) if memory.cuda else first + seconds(steps[1:])
    except torch.OutOfMemoryError as error:
        return found | {"fits": False, "error": str(error).splitlines()[0]}
    if not all(
        bool(info.estimate.finite.all()) and float(info.estimate.gradient_norm[0]) > 0 for info in infos
    ):
        raise SystemExit("a gradient is not finite, or zero")
    in_all = memory.reserved() + memory.beside()
    if args.limit_gb is not None and in_all > args.limit_gb:
        return found | {"fits": False, "error": f"{in_all:.2f} GB in all"}
    return found | {
        "fits": True,
        "seconds": times,
        "seconds_median": statistics.median(times),
        "tflop": counter.get_total_flops() / 1e12,
        "gb_peak": memory.peak(),
        "gb_reserved": memory.reserved(),
        "gb_beside": memory.beside(),
    }


def add_rates(found: list[dict[str, Any]], card: float | None) -> None:
    """TFLOP/s and their share of the card's: of what was computed, and of what an evaluation needs.

    What it needs is what is computed without recomputation, where that was run.
    """
    needed = next((one["tflop"] for one in found if one["fits"] and not one["checkpointing"]), None)
    for one in found:
        if not one["fits"]:
            continue
        one["tflop_per_second"] = one["tflop"] / one["seconds_median"]
        one["needed_tflop"] = needed
        one["needed_tflop_per_second"] = None if needed is None else needed / one["seconds_median"]
        one["share_of_peak"] = None if card is None else one["tflop_per_second"] / card
        one["times_bound"] = None if card is None or needed is None else one["seconds_median"] * card / needed


def show(one: dict[str, Any], memory: Memory) -> None:
    """Print one result."""
    print(f"  blocks       {'checkpointed' if one['checkpointing'] else 'kept'}")
    if not one["fits"]:
        print(f"  does not fit: {one['error']}")
        return
    spread = f" (median of {len(one['seconds'])}, {min(one['seconds']):.3f} to {max(one['seconds']):.3f})"
    print(f"  seconds      {one['seconds_median']:.3f}{spread if len(one['seconds']) > 1 else ''}")
    print(f"  operations   {one['tflop']:.2f} TFLOP counted")
    rate = f"  rate         {one['tflop_per_second']:.1f} TFLOP/s"
    if one["needed_tflop"] is not None and one["checkpointing"]:
        rate += f", {one['needed_tflop_per_second']:.1f} without what is recomputed"
    if one["share_of_peak"] is not None:
        rate += f"; {one['share_of_peak']:.1%} of the card's peak"
    if one["times_bound"] is not None:
        rate += f"; {one['times_bound']:.1f} times the least time at that peak"
    print(rate)
    more = f", {one['gb_reserved']:.1f} GB reserved, {one['gb_beside']:.1f} GB beside" if memory.cuda else ""
    print(
        f"  memory       {one['gb_peak']:.1f} GB at most, {one['gb_before']:.1f} GB before{more}", flush=True
    )


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("backbone", choices=sorted(UNETS))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--side", type=int, default=None, help="pixels; the backbone's own by default")
    parser.add_argument("--steps", type=int, default=None, help="timed evaluations; 1 on a CPU, 5 on a GPU")
    parser.add_argument("--views", type=int, default=11, help="pictures that the reward sees of each")
    parser.add_argument("--views-together", type=int, help="how many in one call; all by default")
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks on the way back")
    parser.add_argument("--both", action="store_true", help="with blocks kept, then checkpointed")
    parser.add_argument("--limit-gb", type=float, default=None, help="memory that a GPU hands out")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    args = parser.parse_args(argv)
    if args.steps is None:
        args.steps = 1 if args.device.startswith("cpu") else 5
    if args.views < 1 or (args.views_together is not None and args.views_together < 1):
        parser.error("--views and --views-together must be at least 1")
    if args.limit_gb is not None and not args.device.startswith("cuda"):
        parser.error("--limit-gb needs --device cuda")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 1 if nothing that was asked for fits."""
    args = options(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    memory = Memory(device)
    if args.limit_gb is not None:
        memory.limit(args.limit_gb)
    torch.manual_seed(0)
    modules, reward = build_modules(args.backbone, dtype, device), build_reward(dtype, device)
    modes = (False, True) if args.both else (args.checkpointing,)
    found = [measure(args, modules, reward, mode) for mode in modes]
    name = torch.cuda.get_device_name(device) if memory.cuda else "CPU"
    peak = next((value for part, value in PEAKS.items() if part in name), None)
    add_rates(found, peak if dtype == torch.bfloat16 else None)
    side = args.side or SIDE[args.backbone]
    limit = "" if args.limit_gb is None else f", within {args.limit_gb:g} GB"
    print(f"{args.backbone} at {side}x{side} on {name}, a guided evaluation, {args.views} view(s){limit}")
    for one in found:
        show(one, memory)
    if args.json is not None:
        told = {
            key: value for key, value in vars(args).items() if key not in ("json", "checkpointing", "both")
        }
        facts = told | {"side": side, "card": name, "card_tflop_per_second": peak, "torch": torch.__version__}
        args.json.write_text(json.dumps(facts | {"results": found}, indent=1) + "\n", encoding="utf-8")
    return 0 if any(one["fits"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
