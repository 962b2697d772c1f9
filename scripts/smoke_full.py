"""One guided evaluation on the true architectures with random weights: ``python scripts/smoke_full.py sd15``.

Nothing is downloaded: the sizes are those of the published configurations, and the parameter counts are checked
against them.  Network forward and backward with attention maps, decoder, and the step-aware preference model (ViT-H)
in full size; prints seconds, peak memory and counted floating-point operations.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig

from align.backbones.base import Conditioning
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.ddim import DDIM
from align.rewards.step_aware import StepAwareModel, StepAwareReward
from align.sampling.evaluate import Evaluator, Pictures
from align.sampling.ledger import Ledger
from align.sampling.objective import Objective
from align.sampling.state import State
from align.semantics.attention_loss import pair_weights
from align.semantics.graph import Entity, Graph
from align.semantics.tokens import token_pairs

TOKENS = 77
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
SCALING = {"sd15": 0.18215, "sdxl": 0.13025}
SIDE = {"sd15": 512, "sdxl": 1024}
GUIDANCE = {"sd15": 7.5, "sdxl": 5.0}
PARAMETERS = {"sd15": 859.5, "sdxl": 2567.5, "vae": 83.7, "step_aware": 1306.2}
"""Millions, as published."""
VIT_H: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
}


def made(name: str, make: Callable[[], nn.Module], dtype: torch.dtype) -> Any:
    """A frozen model with random weights and the published number of parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = make().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    if abs(millions - PARAMETERS[name]) > 0.1:
        raise SystemExit(f"{name} has {millions:.1f} million parameters, not {PARAMETERS[name]}")
    print(f"{name:<11} {millions:7.1f} M parameters, {str(dtype).removeprefix('torch.')}", flush=True)
    return model


def build_backbone(args: argparse.Namespace, device: torch.device) -> UNetBackbone:
    name, dtype = args.backbone, getattr(torch, args.dtype)
    modules = Modules(
        unet=made(name, lambda: UNet2DConditionModel(**UNETS[name]), dtype),
        vae=made("vae", lambda: AutoencoderKL(**VAE, scaling_factor=SCALING[name]), dtype),
        text=(),
        zero_empty=name == "sdxl",
        scheduler_config=SCHEDULE,
        device=device,
    )
    side = args.side or SIDE[name]
    return UNetBackbone(modules, side, side, attention_stride=4, checkpointing=args.checkpointing)


def build_reward(args: argparse.Namespace, device: torch.device) -> StepAwareReward:
    dtype = getattr(torch, args.dtype)
    config = CLIPConfig(**VIT_H)
    model = made("step_aware", lambda: StepAwareModel(config), dtype)
    model.start_modulation()
    model.to(device)
    # No tokenizer: the prompt's embedding is computed once a prompt and is no part of an evaluation.
    ids = torch.arange(TOKENS, device=device)[None]

    def see(pixels: Tensor, step: Tensor | None) -> Tensor:
        assert step is not None
        return model.see(pixels, step)

    size = config.vision_config.image_size
    read = model.read(ids)[0]
    return StepAwareReward("smoke", model, see, lambda _: read, 100.0, size, "spo", dtype, device, {})


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


def uniform(purpose: str, number: int) -> Tensor:
    """Draws for the altered copies of one picture."""
    return torch.rand(1, number, dtype=torch.float64)


def peak_gb(device: torch.device) -> float:
    """Most memory so far: of the device, or of the process on a CPU (weights included)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("backbone", choices=sorted(UNETS))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--side", type=int, default=None, help="pixels; the backbone's own by default")
    parser.add_argument("--views", type=int, default=11, help="pictures that the reward sees of each")
    parser.add_argument("--views-together", type=int, help="how many in one call; all by default")
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks on the way back")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.manual_seed(0)
    backbone, reward = build_backbone(args, device), build_reward(args, device)
    objective = Objective(preference=1.0, semantic=10.0, copies=args.views - 1)
    evaluate = Evaluator(
        backbone, GUIDANCE[args.backbone], 1, objective, reward, views_together=args.views_together
    )
    step = next(step for step in DDIM(SCHEDULE, 50, 1.0).steps if step.fraction < 0.7)
    z, previous = (torch.randn(1, *backbone.latent_shape()).to(device) for _ in range(2))
    state = State(
        z, torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, device=device), previous
    )
    what = pictures(backbone)
    weights = peak_gb(device)
    began = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        estimate = evaluate(state, what, step, Ledger(1), "gradient", uniform)
        if device.type == "cuda":
            torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    if not bool(estimate.finite.all()) or not float(estimate.gradient_norm[0]) > 0:
        raise SystemExit("the gradient is not finite, or zero")
    print(
        f"{args.backbone} at {backbone.height}x{backbone.width}, one guided evaluation, {args.views} view(s)"
    )
    print(f"  blocks       {'checkpointed' if args.checkpointing else 'kept'}")
    print(f"  seconds      {seconds:.1f}")
    print(f"  operations   {counter.get_total_flops() / 1e12:.2f} TFLOP counted")
    print(f"  memory       {peak_gb(device):.1f} GB at most, {weights:.1f} GB before the evaluation")


if __name__ == "__main__":
    main()
