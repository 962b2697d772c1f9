"""The hub in a box: a cache of the hub with real repository names and file layouts, tiny random weights, few prompts."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from rewards.box import fill_hub
from rewards.judge_box import fill_judges
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from align.runner import build

ROOT = Path(__file__).parents[1]
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SD_TURBO = "stabilityai/sd-turbo"
SDXL_TURBO = "stabilityai/sdxl-turbo"
HYPER = "ByteDance/Hyper-SD"
DMD2 = "tianweiy/DMD2"
LCM = "SimianLuo/LCM_Dreamshaper_v7"
FIXED_VAE = "madebyollin/sdxl-vae-fp16-fix"
SD35 = "stabilityai/stable-diffusion-3.5-medium"
SD35_LARGE = "stabilityai/stable-diffusion-3.5-large"
FLUX = "black-forest-labs/FLUX.1-dev"
SCHNELL = "black-forest-labs/FLUX.1-schnell"
FAMILIES = {
    "z_image": ("Tongyi-MAI/Z-Image", "z_image", {"shift": 6.0}),
    "z_image_turbo": ("Tongyi-MAI/Z-Image-Turbo", "z_image", {"shift": 3.0}),
    "qwen_image": ("Qwen/Qwen-Image", "qwen_image", {"use_dynamic_shifting": True, "shift_terminal": 0.02}),
    "flux2_klein": ("black-forest-labs/FLUX.2-klein-4B", "flux2_klein", {"use_dynamic_shifting": True}),
    "flux2_klein_base": (
        "black-forest-labs/FLUX.2-klein-base-4B",
        "flux2_klein",
        {"use_dynamic_shifting": True},
    ),
    "sana": ("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", "sana", {"shift": 3.0}),
    "pixart_sigma": (
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "pixart",
        {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False},
    ),
}
"""Repository, writer and schedule of further families, by preset."""
FLOW_LORAS = ("jieliu/SD3.5M-FlowGRPO-PickScore", "worstcoder/SD3.5M-DiffusionNFT-MultiReward")
START, END = "<|startoftext|>", "<|endoftext|>"
STYLES = {
    "anime": ["a fox with a lantern, anime", "a corpse flower in a greenhouse, anime"],
    "concept-art": ["a harbour of airships, concept art"],
    "paintings": ["a still life of pears, oil on canvas"],
    "photo": ["A bus stop in the rain.", "Two cups on a table."],
    "drawbench": ["A red car and a white sheep."],
}
"""Prompts of HPDv2's files; one has an unsafe word and is none."""
PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "a teapot\tArtifacts\tBasic\t\n"
    'a sign that says "Open, at last"\tArtifacts\tWriting & Symbols\tquotes\n'
)
JUDGED = "a red cat and a blue dog"
"""What the box's GenEval 2 has questions about."""
PICKED = ["a lighthouse at dusk", "a corpse flower"]
_INDEX = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_PNDM = {
    "_class_name": "PNDMScheduler",
    **_BETAS,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
_EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **_BETAS,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
_LCM = {
    "_class_name": "LCMScheduler",
    **_BETAS,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "original_inference_steps": 50,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


def write_box(home: Path) -> None:
    """``HF_HOME`` of a machine on which every backbone, every reward and every data set was fetched."""
    write_backbones(home / "hub")
    write_datasets(home / "hub")
    with torch.random.fork_rng():
        fill_hub(home)
        fill_judges(home, [JUDGED])


def forget_models() -> None:
    """Nothing is loaded any more: other files may be at the same places."""
    build._backbone.cache_clear()
    build.load_reward.cache_clear()


def box_environment(home: Path) -> dict[str, str]:
    """Environment of a process on the machine of :func:`write_box`, offline."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ALIGN_"))}
    return keep | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def write_lora(path: Path, network: torch.nn.Module | None = None) -> Path:
    """A LoRA of rank 2, by default for the tiny Stable Diffusion, strong enough to be seen, in diffusers' names."""
    state = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        for name, layer in (network or sd_unet(1)).named_modules():
            if name.endswith(("attn2.to_q", "attn2.to_v")):
                rows, columns = layer.weight.shape
                state[f"unet.{name}.lora_A.weight"] = torch.randn(2, columns)
                state[f"unet.{name}.lora_B.weight"] = torch.randn(rows, 2)
    save_file(state, path)
    return path


def write_backbones(cache: Path) -> None:
    """All repositories that conf/backbone names, in a cache folder (``HF_HUB_CACHE``)."""
    write_sd(repository(cache, SD15), 1, half_too=True)
    write_sd(repository(cache, "SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep"), 2)
    write_sdxl(repository(cache, SDXL), 3, half_too=True)
    write_sdxl(repository(cache, "SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep"), 4)
    write_lcm(repository(cache, LCM), 11)
    write_turbo(cache)
    save(vae(5, 0.13025, force_upcast=False), repository(cache, FIXED_VAE))
    for seed, name in ((11, "taesd"), (12, "taesdxl")):
        save(small_decoder(seed), repository(cache, f"madebyollin/{name}"))
    save(sd_unet(6), repository(cache, "mhdang/dpo-sd1.5-text2image-v1") / "unet")
    save(sdxl_unet(7), repository(cache, "mhdang/dpo-sdxl-text2image-v1") / "unet")
    save(sd_unet(8).half(), repository(cache, "jacklishufan/diffusion-kto") / "unet")
    write_flows(cache)
    write_families(cache)


def write_turbo(cache: Path) -> None:
    """Few-step models: two pipelines, a UNet in one file, and low-rank updates."""
    small = repository(cache, SD_TURBO)
    write_sd(small, 13, half_too=True)
    # Stable Diffusion 2's: the encoder ends a layer before OpenCLIP's, other widths and heads, "!" as padding.
    write(small / "scheduler/scheduler_config.json", json.dumps({**_EULER, "timestep_spacing": "trailing"}))
    write_tokenizer(small / "tokenizer", pad="!")
    save(text_encoder(13, 32, hidden_act="gelu"), small / "text_encoder", half_too=True)
    heads = {"attention_head_dim": (1, 2, 4, 4), "use_linear_projection": True}
    save(sd_unet(13, cross_attention_dim=32, **heads), small / "unet", half_too=True)
    large = repository(cache, SDXL_TURBO)
    write_sdxl(large, 14, half_too=True)
    ancestral = {**_EULER, "_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
    write(large / "scheduler/scheduler_config.json", json.dumps(ancestral))
    hyper = repository(cache, HYPER)
    hyper.mkdir(parents=True, exist_ok=True)
    save_file(sdxl_unet(15).half().state_dict(), hyper / "Hyper-SDXL-1step-Unet.safetensors")
    write_lora(repository(cache, DMD2) / "dmd2_sdxl_4step_lora_fp16.safetensors", sdxl_unet(3))


def write_flows(cache: Path) -> None:
    """Stable Diffusion 3.5 and FLUX.1, and LoRAs of the former as peft saves them."""
    from tiny_transformers import (
        sd3_transformer,
        write_flux,
        write_sd3,
    )  # which takes its other parts from here

    write_sd3(repository(cache, SD35), 21)
    large = repository(cache, SD35_LARGE)
    write_sd3(large, 22)
    network = large / "transformer"
    (network / "diffusion_pytorch_model.safetensors").unlink()
    # 16 bit without a name for it, and in shards.
    sd3_transformer(22, dual_attention_layers=()).bfloat16().save_pretrained(network, max_shard_size="30KB")
    write_flux(repository(cache, FLUX), 23)
    write_flux(repository(cache, SCHNELL), 24, guidance=False)
    for seed, name in enumerate(FLOW_LORAS):
        write_peft(repository(cache, name), sd3_transformer(21), seed)


def write_families(cache: Path) -> None:
    """Further transformers, as their pipelines are saved."""
    import tiny_flow

    for seed, (repo, kind, schedule) in enumerate(FAMILIES.values()):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            getattr(tiny_flow, kind)(**schedule).save_pretrained(repository(cache, repo))


def write_peft(folder: Path, network: torch.nn.Module, seed: int) -> None:
    """A LoRA of rank 2 with its config beside it."""
    state, generator = {}, torch.Generator().manual_seed(seed)
    for name, layer in network.named_modules():
        if name.endswith(("attn.to_q", "attn.to_v")):
            rows, columns = layer.weight.shape
            state[f"base_model.model.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
            state[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["attn.to_q", "attn.to_v"]}
    write(folder / "adapter_config.json", json.dumps(config))
    save_file(state, folder / "adapter_model.safetensors")


def write_datasets(cache: Path) -> None:
    """All data sets that conf/prompts names, in a cache folder; those in parquet only where pyarrow is."""
    hpd = repository(cache, "zhwang/HPDv2", "dataset") / "benchmark"
    for name, prompts in STYLES.items():
        write(hpd / f"{name}.json", json.dumps(prompts))
    parti = repository(cache, "nateraw/parti-prompts", "dataset")
    write(parti / "PartiPrompts.tsv", PARTI)
    pick = repository(cache, "yuvalkirstain/pickapic_v1_no_images", "dataset") / "data"
    try:
        from pyarrow import parquet, table
    except ImportError:
        return
    pick.mkdir(parents=True, exist_ok=True)
    columns = {"are_different": [True, False], "caption": PICKED, "ranking_id": [1, 2]}
    parquet.write_table(table(columns), pick / "test_unique-00000-of-00001-0123456789abcdef.parquet")


def repository(cache: Path, name: str, kind: str = "model") -> Path:
    """The folder of a repository's only commit, as the hub's client makes it."""
    folder = cache / f"{kind}s--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    write(folder / "refs/main", commit)
    return folder / "snapshots" / commit


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_sd(folder: Path, seed: int, half_too: bool = False) -> None:
    """A whole pipeline in Stable Diffusion v1.5's layout."""
    index = {"_class_name": "StableDiffusionPipeline", **_INDEX}
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    write(folder / "model_index.json", json.dumps(index))
    write(folder / "scheduler/scheduler_config.json", json.dumps(_PNDM))
    write_tokenizer(folder / "tokenizer", pad=END)
    save(sd_unet(seed), folder / "unet", half_too)
    save(vae(seed, 0.18215), folder / "vae", half_too)
    save(text_encoder(seed, 16), folder / "text_encoder", half_too)


def write_lcm(folder: Path, seed: int) -> None:
    """A whole pipeline in LCM_Dreamshaper_v7's layout: Stable Diffusion's, with a network that reads the guidance scale."""
    write_sd(folder, seed)
    save(sd_unet(seed, time_cond_proj_dim=8), folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"]}
    write(folder / "model_index.json", json.dumps(index))
    write(folder / "scheduler/scheduler_config.json", json.dumps(_LCM))


def write_sdxl(folder: Path, seed: int, half_too: bool = False) -> None:
    """A whole pipeline in Stable Diffusion XL's layout."""
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, **_INDEX}
    index |= {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
    index |= {"tokenizer_2": ["transformers", "CLIPTokenizer"]}
    write(folder / "model_index.json", json.dumps(index))
    write(folder / "scheduler/scheduler_config.json", json.dumps(_EULER))
    write_tokenizer(folder / "tokenizer", pad=END)
    write_tokenizer(folder / "tokenizer_2", pad="!")
    save(sdxl_unet(seed), folder / "unet", half_too)
    save(vae(seed, 0.13025, force_upcast=True), folder / "vae", half_too)
    save(text_encoder(seed, 8), folder / "text_encoder", half_too)
    save(text_encoder(seed + 100, 8, projected=True), folder / "text_encoder_2", half_too)


def save(model: torch.nn.Module, folder: Path, half_too: bool = False) -> None:
    """As ``save_pretrained`` does, and once more in 16 bit beside it."""
    if half_too:
        copy.deepcopy(model).half().save_pretrained(folder, variant="fp16")
    model.save_pretrained(folder)  # last: the config tells the full file's numbers


def vocabulary() -> dict[str, int]:
    """Bytes as tokens, inside a word and at its end, without any merges; the end token is the last, as in CLIP."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    letters = [chr(byte) for byte in kept] + [chr(256 + k) for k in range(len(rest))]
    names = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    return {name: k for k, name in enumerate(names)}


def write_tokenizer(folder: Path, pad: str) -> None:
    """In the older layout: vocab.json, merges.txt, no tokenizer.json."""
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **special}
    write(folder / "vocab.json", json.dumps(vocabulary()))
    write(folder / "merges.txt", "#version: 0.2\n")
    write(folder / "tokenizer_config.json", json.dumps(config))
    write(folder / "special_tokens_map.json", json.dumps(special))


def text_encoder(seed: int, width: int, projected: bool = False, **more: str) -> torch.nn.Module:
    size = len(vocabulary())
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        **{"hidden_act": "gelu" if projected else "quick_gelu"} | more,
        bos_token_id=size - 2,
        eos_token_id=2,  # as the old configs have it: the pooled output is then where the largest id is
        pad_token_id=size - 1,
    )
    return seeded(seed, lambda: (CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def sd_unet(seed: int, **more: Any) -> UNet2DConditionModel:
    usual = {"block_out_channels": (8, 8, 8, 8), "cross_attention_dim": 16, "attention_head_dim": 2}
    return seeded(
        seed,
        lambda: UNet2DConditionModel(sample_size=8, layers_per_block=1, norm_num_groups=4, **usual | more),
    )


def sdxl_unet(seed: int, **more: Any) -> UNet2DConditionModel:
    usual = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 2, 2),
    }
    return seeded(
        seed,
        lambda: UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            cross_attention_dim=16,
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=8 + 6 * 4,
            **usual | more,
        ),
    )


def vae(seed: int, scaling: float, force_upcast: bool | None = None) -> AutoencoderKL:
    model = seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            scaling_factor=scaling,
            force_upcast=bool(force_upcast),
        ),
    )
    return model


def small_decoder(seed: int) -> AutoencoderTiny:
    widths, blocks = (4,) * 4, (1,) * 4
    return seeded(
        seed,
        lambda: AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
        ),
    )


def seeded(seed, make):
    """A model with fixed random weights; the global generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()
