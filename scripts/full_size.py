"""The published architectures with random weights: their sizes, and folders that the commands load like published ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from align.rewards.step_aware import StepAwareModel
from scripts.shapes_training.towers import start_modulation

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
PEAKS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense bf16 TFLOP/s of cards as their makers state them, by what is in the card's name."""
TEXT: dict[str, dict[str, Any]] = {
    "clip_l": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "clip_g": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}
"""Text encoders."""
START, END = "<|startoftext|>", "<|endoftext|>"
STEP_AWARE = {
    "sd15": "sd-v1-5_step-aware_preference_model.safetensors",
    "sdxl": "sdxl_step-aware_preference_model.safetensors",
}
"""Files of the step-aware preference models."""


def tiny(name: str) -> Mapping[str, Any]:
    """Sizes of the same form that any CPU runs in a second: keys ``unet``, ``vae``, ``text`` and ``reward``."""
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    widths = (8,) * len(UNETS[name]["block_out_channels"])
    unet = UNETS[name] | {"block_out_channels": widths, "layers_per_block": 1, "norm_num_groups": 4}
    unet |= {"attention_head_dim": 2, "cross_attention_dim": 16 if name == "sd15" else 32}
    if name == "sdxl":
        unet |= {"transformer_layers_per_block": 1, "addition_time_embed_dim": 4}
        unet |= {"projection_class_embeddings_input_dim": 16 + 6 * 4}
    small = {"projection_dim": 16}
    return {
        "unet": unet,
        "vae": VAE | {"block_out_channels": (4,) * 4, "layers_per_block": 1, "norm_num_groups": 2},
        "text": {encoder: tower | small for encoder in TEXT},
        "reward": small
        | {
            "text_config": tower | small,
            "vision_config": tower | small | {"image_size": 28, "patch_size": 14},
        },
    }


def full(name: str) -> Mapping[str, Any]:
    """The published sizes, by the same keys."""
    return {"unet": UNETS[name], "vae": VAE, "text": TEXT, "reward": VIT_H}


def write_tokenizer(folder: Path, pad: str = END) -> None:
    """Bytes as tokens, without any merges; the end token is the last, as in CLIP."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in kept] + [chr(256 + k) for k in range(256 - len(kept))]
    names = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    files = {
        "vocab.json": json.dumps({name: k for k, name in enumerate(names)}),
        "merges.txt": "#version: 0.2\n",
        "tokenizer_config.json": json.dumps(
            {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **special}
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    CLIPTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))


def random_model(make: Callable[[], nn.Module], dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen model with random weights, made where and in the numbers that are wanted: of diffusers or transformers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return make().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)


def write_pipeline(
    folder: Path, name: str, sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    """A pipeline in diffusers' layout, in the published form of ``name``."""
    encoders = {"text_encoder": ("clip_l", CLIPTextModel)}
    if name == "sdxl":
        encoders["text_encoder_2"] = ("clip_g", CLIPTextModelWithProjection)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline" if name == "sd15" else "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    if name == "sdxl":
        index["force_zeros_for_empty_prompt"] = True
    for encoder, (size, kind) in encoders.items():
        tokenizer = encoder.replace("text_encoder", "tokenizer")
        index |= {encoder: ["transformers", kind.__name__], tokenizer: ["transformers", "CLIPTokenizer"]}
        write_tokenizer(folder / tokenizer, pad=END if encoder == "text_encoder" else "!")
        config = CLIPTextConfig(**sizes["text"][size], eos_token_id=2)  # as the published configs have it
        random_model(partial(kind, config), dtype, device).save_pretrained(folder / encoder)
    unet, vae = UNet2DConditionModel, AutoencoderKL
    random_model(lambda: unet(**sizes["unet"]), dtype, device).save_pretrained(folder / "unet")
    scaling = SCALING[name]
    random_model(lambda: vae(**sizes["vae"], scaling_factor=scaling), dtype, device).save_pretrained(
        folder / "vae"
    )
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "DDIMScheduler", **SCHEDULE})
    )
    (folder / "model_index.json").write_text(json.dumps(index))


def write_reward(
    folder: Path, name: str, sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    """The step-aware preference model of ``name`` in a folder of own copies (``ALIGN_CHECKPOINTS``)."""
    pick, spm = (
        folder / "yuvalkirstain/PickScore_v1",
        folder / "SPO-Diffusion-Models/Step-Aware_Preference_Models",
    )
    write_tokenizer(pick)
    config = CLIPConfig(**sizes["reward"])
    (pick / "config.json").write_text(json.dumps(sizes["reward"]))
    model = random_model(lambda: StepAwareModel(config), dtype, device)
    start_modulation(model)
    spm.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous().cpu() for key, value in model.state_dict().items()}, spm / STEP_AWARE[name]
    )
