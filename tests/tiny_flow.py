"""diffusers' pipelines of newer kinds with random weights, built from configs: nothing is fetched.

Each is saved as its repository is laid out, and returned as diffusers has it.
"""

import string

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}


def qwen_tokenizer():
    """Bytes as tokens, a few of them merged."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d"), ("Ġ", "c"), ("Ġc", "at"), ("a", "t"), ("Ġ", "a")]
    known = [*letters, *("".join(pair) for pair in merges), *MARKS]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: place for place, piece in enumerate(known)},
        merges=merges,
        extra_special_tokens=list(MARKS[1:]),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def qwen3(kind, tokenizer, layers):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "num_hidden_layers": layers}
    return kind(Qwen3Config(**sizes, **HEADS, vocab_size=len(tokenizer), pad_token_id=None)).eval()


def random(module):
    """Weights, biases and norms that all matter."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(1.0 if "norm" in name and parameter.ndim == 1 else 0.0, 0.1)
    return module.eval()


def autoencoder(kind=AutoencoderKL, **more):
    return kind(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **more,
    ).eval()


def z_image(**schedule):
    tokenizer = qwen_tokenizer()
    return ZImagePipeline(
        FlowMatchEulerDiscreteScheduler(**schedule),
        autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
        qwen3(Qwen3Model, tokenizer, 3),
        tokenizer,
        random(
            ZImageTransformer2DModel(
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[8, 4, 4],
                axes_lens=[256, 32, 32],
            )
        ),
    )


def qwen_image(**schedule):
    tokenizer = qwen_tokenizer()
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, **HEADS}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = Qwen2_5_VLConfig(
        text_config={**text, **ends, "vocab_size": len(tokenizer), "rope_scaling": rope, "rope_theta": 1e6},
        vision_config=vision,
    )
    return QwenImagePipeline(
        FlowMatchEulerDiscreteScheduler(**schedule),
        AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[-0.5, 0.0, 0.3, 1.0],
            latents_std=[1.0, 2.0, 0.5, 1.5],
        ).eval(),
        Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer,
        random(
            QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(8, 4, 4),
            )
        ),
    )


def flux2_klein(distilled=False, **schedule):
    tokenizer = qwen_tokenizer()
    vae = autoencoder(AutoencoderKLFlux2)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    return Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(**schedule),
        vae,
        qwen3(Qwen3ForCausalLM, tokenizer, 27),
        tokenizer,
        random(
            Flux2Transformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=2,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            )
        ),
        is_distilled=distilled,
    )


def sana(scheduler=FlowMatchEulerDiscreteScheduler, **schedule):
    letters = "".join(sorted(set(string.printable) - set(" \x0b\x0c")))
    known = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *letters]
    tokenizer = GemmaTokenizer(vocab={piece: place for place, piece in enumerate(known)}, merges=[])
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "head_dim": 8}
    return SanaPipeline(
        tokenizer,
        Gemma2Model(Gemma2Config(**text, **HEADS, vocab_size=len(tokenizer))).eval(),
        AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock",) * 6,
            decoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",),
            encoder_block_out_channels=(8,) * 6,
            decoder_block_out_channels=(8,) * 6,
            encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 5 + ((5,),),
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ).eval(),
        random(
            SanaTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_layers=2,
                num_attention_heads=2,
                attention_head_dim=8,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=16,
                timestep_scale=0.5,
            )
        ),
        scheduler(**schedule),
    )


def pixart(**schedule):
    letters = [
        (f"{space}{letter}", -3.0) for letter in string.ascii_lowercase + ",;()" for space in ("", "\u2581")
    ]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    tokenizer = T5Tokenizer(vocab=[*special, *letters], extra_ids=0)
    text = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    return PixArtSigmaPipeline(
        tokenizer,
        T5EncoderModel(T5Config(**text, vocab_size=len(tokenizer))).eval(),
        autoencoder(),
        random(
            PixArtTransformer2DModel(
                sample_size=8,
                num_layers=2,
                num_attention_heads=2,
                attention_head_dim=8,
                caption_channels=16,
                in_channels=4,
                cross_attention_dim=16,
                out_channels=8,
            )
        ),
        DDIMScheduler(**schedule),
    )
