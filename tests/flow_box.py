"""Flow transformers in the published layouts at tiny sizes: 16 bit without a name for it, the large parts in shards."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

SD35 = "stabilityai/stable-diffusion-3.5-{}"
FLUX = "black-forest-labs/FLUX.1-{}"
_LEVELS = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
_DYNAMIC = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": True,
}


def write_flows(cache: Path) -> None:
    """The repositories of Stable Diffusion 3.5 and FLUX.1, in a cache folder."""
    from hub_box import repository

    write_sd3(repository(cache, SD35.format("medium")), 21, dual=(0, 1))
    write_sd3(repository(cache, SD35.format("large")), 22, shards=True)
    write_flux(repository(cache, FLUX.format("dev")), 23)
    write_flux(repository(cache, FLUX.format("schnell")), 24, guidance=False)


def write_sd3(folder: Path, seed: int, dual: tuple[int, ...] = (), shards: bool = False) -> None:
    """Stable Diffusion 3.5's: of medium the network is one file, of large there are shards."""
    from hub_box import END, text_encoder, write_tokenizer

    encoders = {
        "": "CLIPTextModelWithProjection",
        "_2": "CLIPTextModelWithProjection",
        "_3": "T5EncoderModel",
    }
    _write_index(folder, "StableDiffusion3Pipeline", "SD3Transformer2DModel", encoders)
    _write(folder / "scheduler/scheduler_config.json", _LEVELS)
    for place, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        write_tokenizer(folder / place, pad=pad)
    _save(text_encoder(seed, 8, projected=True), folder / "text_encoder")
    _save(text_encoder(seed + 100, 16, projected=True), folder / "text_encoder_2")
    _write_t5(folder, "_3", seed, 48)
    _save(autoencoder(seed, 1.5305, 0.0609), folder / "vae")
    _save(sd3_network(seed, dual), folder / "transformer", shards)


def write_flux(folder: Path, seed: int, guidance: bool = True) -> None:
    """FLUX.1's, dev or without guidance schnell."""
    from hub_box import END, text_encoder, write_tokenizer

    encoders = {"": "CLIPTextModel", "_2": "T5EncoderModel"}
    _write_index(folder, "FluxPipeline", "FluxTransformer2DModel", encoders)
    _write(
        folder / "scheduler/scheduler_config.json",
        _LEVELS | _DYNAMIC if guidance else _LEVELS | {"shift": 1.0},
    )
    write_tokenizer(folder / "tokenizer", pad=END)
    _save(text_encoder(seed, 8), folder / "text_encoder")
    _write_t5(folder, "_2", seed, 32)
    _save(autoencoder(seed, 0.3611, 0.1159), folder / "vae")
    _save(flux_network(seed, guidance), folder / "transformer", shards=True)


def sd3_network(seed: int, dual: tuple[int, ...] = ()) -> SD3Transformer2DModel:
    from hub_box import seeded

    return seeded(
        seed,
        lambda: SD3Transformer2DModel(
            sample_size=16,
            in_channels=16,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=3,
            joint_attention_dim=48,
            caption_projection_dim=24,
            pooled_projection_dim=24,
            out_channels=16,
            pos_embed_max_size=32,
            dual_attention_layers=dual,
            qk_norm="rms_norm",
        ),
    )


def flux_network(seed: int, guidance: bool = True) -> FluxTransformer2DModel:
    from hub_box import seeded

    return seeded(
        seed,
        lambda: FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=3,
            joint_attention_dim=32,
            pooled_projection_dim=8,
            axes_dims_rope=(4, 2, 2),
            guidance_embeds=guidance,
        ),
    )


def autoencoder(seed: int, scaling: float, shift: float, **more: int) -> AutoencoderKL:
    from hub_box import seeded

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
            **more,
        ),
    )


def write_t5_tokenizer(folder: Path) -> None:
    """Letters as tokens, T5's marks of words and ends, in today's layout."""
    letters = [chr(k) for k in range(33, 127)]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        ("\u2581", -2.0),
        *((one, -3.0) for one in letters),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **special).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    _write(path, json.loads(path.read_text()) | {"tokenizer_class": "T5Tokenizer", "extra_ids": 0})


def _write_t5(folder: Path, number: str, seed: int, width: int) -> None:
    from hub_box import seeded

    write_t5_tokenizer(folder / f"tokenizer{number}")
    config = T5Config(
        vocab_size=98,
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    encoder = seeded(seed, lambda: T5EncoderModel(config))
    _save(encoder, folder / f"text_encoder{number}", shards=True)


def _write_index(folder: Path, pipeline: str, network: str, encoders: dict[str, str]) -> None:
    parts = {"scheduler": ["diffusers", _LEVELS["_class_name"]], "vae": ["diffusers", "AutoencoderKL"]}
    parts |= {"transformer": ["diffusers", network]}
    for number, kind in encoders.items():
        tokenizer = "T5Tokenizer" if kind.startswith("T5") else "CLIPTokenizer"
        parts |= {f"text_encoder{number}": ["transformers", kind]}
        parts |= {f"tokenizer{number}": ["transformers", tokenizer]}
    parts |= {name: [None, None] for name in ("feature_extractor", "image_encoder")}
    _write(folder / "model_index.json", {"_class_name": pipeline, **parts})


def _save(model: torch.nn.Module, folder: Path, shards: bool = False) -> None:
    size = sum(2 * one.numel() for one in model.parameters())
    limit = {"max_shard_size": f"{size * 2 // 3000}KB"} if shards else {}
    model.bfloat16().save_pretrained(folder, **limit)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
