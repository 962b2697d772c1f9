"""Tiny random pipelines of flow transformers in the published layouts: Stable Diffusion 3.5 and FLUX.1."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from hub_box import END, save, seeded, text_encoder, write, write_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel

PAD, STOP, UNKNOWN, MARKER = "<pad>", "</s>", "<unk>", "▁"
_FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
}
STATIC = {**_FLOW, "shift": 3.0, "use_dynamic_shifting": False}
DYNAMIC = {**_FLOW, "shift": 3.0, "use_dynamic_shifting": True}
PLAIN = {**_FLOW, "shift": 1.0, "use_dynamic_shifting": False}


def write_sd3(folder: Path, seed: int, t5: bool = True, **network: object) -> None:
    """A whole pipeline in Stable Diffusion 3.5's layout: T5 in shards, the networks in one file each."""
    names = ["text_encoder", "text_encoder_2"]
    write_parts(folder, "StableDiffusion3Pipeline", STATIC, names, "text_encoder_3" if t5 else None, 24)
    save(text_encoder(seed, 8, projected=True), folder / "text_encoder")
    save(text_encoder(seed + 1, 12, projected=True), folder / "text_encoder_2")
    save(vae(seed, 1.5305, 0.0609), folder / "vae")
    save(sd3_transformer(seed, **network), folder / "transformer")


def write_flux(folder: Path, seed: int, guidance: bool = True) -> None:
    """A whole pipeline in FLUX.1's layout, dev's or without guidance schnell's: network and T5 in shards."""
    schedule = DYNAMIC if guidance else PLAIN
    write_parts(folder, "FluxPipeline", schedule, ["text_encoder"], "text_encoder_2", 24)
    save(text_encoder(seed, 8), folder / "text_encoder")
    save(vae(seed, 0.3611, 0.1159), folder / "vae")
    flux_transformer(seed, guidance).save_pretrained(folder / "transformer", max_shard_size="60KB")


def write_parts(
    folder: Path, pipeline: str, schedule: dict[str, object], clips: list[str], t5: str | None, width: int
) -> None:
    """Index, scheduler, tokenizers, and T5."""
    kinds = {name: "CLIPTextModelWithProjection" if len(clips) > 1 else "CLIPTextModel" for name in clips}
    index: dict[str, object] = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": [
            "diffusers",
            "FluxTransformer2DModel" if len(clips) == 1 else "SD3Transformer2DModel",
        ],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if t5 is None:
        index |= {key: [None, None] for key in ("text_encoder_3", "tokenizer_3")}
    for name in [*clips, *([] if t5 is None else [t5])]:
        tokenizer = name.replace("text_encoder", "tokenizer")
        index[name] = ["transformers", kinds.get(name, "T5EncoderModel")]
        index[tokenizer] = ["transformers", "CLIPTokenizer" if name in clips else "T5TokenizerFast"]
        if name in clips:
            write_tokenizer(folder / tokenizer, pad=END if name == "text_encoder" else "!")
        else:
            write_t5_tokenizer(folder / tokenizer)
            t5_encoder(len(clips), width).save_pretrained(folder / name, max_shard_size="20KB")
    write(folder / "model_index.json", json.dumps(index))
    write(folder / "scheduler/scheduler_config.json", json.dumps(schedule))


def write_t5_tokenizer(folder: Path) -> None:
    """Letters as pieces, word starts marked; no start token, and an end token."""
    letters = [chr(k) for k in range(33, 127)]
    pieces = [(PAD, 0.0), (STOP, 0.0), (UNKNOWN, -10.0), (MARKER, -2.0)]
    pieces += [(letter, -3.0) for letter in letters] + [(MARKER + letter, -4.0) for letter in letters]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=MARKER)]
    )
    made.decoder = decoders.Metaspace(replacement=MARKER)
    made.post_processor = processors.TemplateProcessing(single=f"$A {STOP}", special_tokens=[(STOP, 1)])
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512}
    special = {"eos_token": STOP, "pad_token": PAD, "unk_token": UNKNOWN}
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", json.dumps({**config, **special}))


def t5_encoder(seed: int, width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=4 + 2 * 94,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return seeded(seed, lambda: T5EncoderModel(config))


def vae(seed: int, scaling: float, shift: float) -> AutoencoderKL:
    return seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=16,
            layers_per_block=1,
            norm_num_groups=2,
            scaling_factor=scaling,
            shift_factor=shift,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
    )


def sd3_transformer(seed: int, **more: object) -> SD3Transformer2DModel:
    sizes = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 4,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 20,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (0, 1),
        "qk_norm": "rms_norm",
    }
    return seeded(seed, lambda: louder(SD3Transformer2DModel(**{**sizes, **more})))


def flux_transformer(seed: int, guidance: bool) -> FluxTransformer2DModel:
    return seeded(
        seed,
        lambda: louder(
            FluxTransformer2DModel(
                in_channels=64,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=24,
                pooled_projection_dim=8,
                guidance_embeds=guidance,
                axes_dims_rope=(2, 2, 4),
            )
        ),
    )


def louder(network):
    """With attention that is not flat, so that texts matter."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("norm_q.weight", "norm_k.weight", "norm_added_k.weight")):
                weight.mul_(4)
            if name.startswith("context_embedder"):
                weight.mul_(4)
    return network
