"""The base CLIP in the other rewards' classes: open_clip's, and a BLIP whose image tower starts from it, a step-aware one unmodulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig, CLIPModel

from align.rewards import open_clip
from align.rewards.imagereward import BlipRegressor
from align.rewards.preprocess import normalise
from align.rewards.step_aware import StepAwareModel
from scripts.shapes_training.tokenizer import MAX_LENGTH

HEAD = (64, 16)
"""Widths of the regression heads after their input."""


def sizes(base: CLIPModel) -> tuple[Any, Any]:
    """Configurations of the image and of the text tower."""
    return base.config.vision_config, base.config.text_config


def open_clip_config(base: CLIPModel) -> dict[str, object]:
    """open_clip's configuration of the base CLIP's sizes."""
    vision, text = sizes(base)
    return {
        "embed_dim": base.config.projection_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }


def to_open_clip(base: CLIPModel) -> nn.Module:
    """The base CLIP as open_clip's class, same features."""
    model = open_clip.make_model(open_clip_config(base))
    vision, text = sizes(base)
    layers = {"text": text.num_hidden_layers, "vision": vision.num_hidden_layers}
    model.load_state_dict(from_transformers(base.state_dict(), layers))
    return model.to(base.device)


def from_transformers(tensors: Mapping[str, Tensor], layers: Mapping[str, int]) -> dict[str, Tensor]:
    """Weights of transformers' CLIPModel under open_clip's names.

    Args:
        tensors: state of a CLIPModel.
        layers: number of layers, keys "text" and "vision".
    """
    out = {
        "logit_scale": tensors["logit_scale"],
        "text_projection": tensors["text_projection.weight"].T,
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for tower, prefix in (("text", ""), ("vision", "visual.")):
        for k in range(layers[tower]):
            source, target = f"{tower}_model.encoder.layers.{k}", f"{prefix}transformer.resblocks.{k}"
            for part in ("weight", "bias"):
                out[f"{target}.attn.in_proj_{part}"] = torch.cat(
                    [tensors[f"{source}.self_attn.{letter}_proj.{part}"] for letter in "qkv"]
                )
            norms |= {
                f"{target}.attn.out_proj": f"{source}.self_attn.out_proj",
                f"{target}.ln_1": f"{source}.layer_norm1",
                f"{target}.ln_2": f"{source}.layer_norm2",
                f"{target}.mlp.c_fc": f"{source}.mlp.fc1",
                f"{target}.mlp.c_proj": f"{source}.mlp.fc2",
            }
    for target, source in norms.items():
        for part in ("weight", "bias"):
            out[f"{target}.{part}"] = tensors[f"{source}.{part}"]
    return {name: tensor.contiguous() for name, tensor in out.items()}


@torch.no_grad()
def start_modulation(model: StepAwareModel) -> None:
    """Make it the unmodulated CLIP, where training starts: gates one, all other modulation zero."""
    embedder, width = model.t_embedder.mlp, model.visual_projection.in_features
    for linear in (embedder[0], embedder[2]):
        assert isinstance(linear, nn.Linear)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    layers = model.vision_model.encoder.layers
    assert isinstance(layers, nn.ModuleList)
    modulations = [layer.adaLN_modulation for layer in layers]
    for modulation in [model.vision_model.adaLN_modulation, *modulations]:
        assert isinstance(modulation, nn.Sequential)
        linear = modulation[1]
        assert isinstance(linear, nn.Linear)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        if len(linear.bias) == 6 * width:
            linear.bias[2 * width : 3 * width] = 1
            linear.bias[5 * width :] = 1


def blip_configs(base: CLIPModel) -> tuple[BlipVisionConfig, BlipTextConfig]:
    """Sizes of the toy BLIP: the base CLIP's image tower, and a text tower with cross-attention."""
    vision, text = sizes(base)
    width = vision.hidden_size
    return (
        BlipVisionConfig(
            hidden_size=width,
            intermediate_size=vision.intermediate_size,
            num_hidden_layers=vision.num_hidden_layers,
            num_attention_heads=vision.num_attention_heads,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
        ),
        BlipTextConfig(
            vocab_size=text.vocab_size,
            hidden_size=width,
            encoder_hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=3,
            num_attention_heads=text.num_attention_heads,
            max_position_embeddings=MAX_LENGTH,
            layer_norm_eps=1e-12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            is_decoder=True,
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.eos_token_id,
            sep_token_id=text.eos_token_id,
        ),
    )


@torch.no_grad()
def make_blip(base: CLIPModel, pictures: Tensor) -> BlipRegressor:
    """A BLIP whose image tower starts from the base CLIP's.

    BLIP has no layer norm in front of its first layer; the base's is folded into the embeddings with the mean
    deviation that ``pictures`` (b, 3, 64, 64) in [0, 1] show.
    """
    model = BlipRegressor(*blip_configs(base), HEAD).to(base.device)
    tower, own = base.vision_model, model.vision_model
    embedded = tower.embeddings(normalise(pictures).to(base.device))
    norm = tower.pre_layrnorm
    factor = norm.weight / embedded.std(dim=-1).mean()
    own.embeddings.patch_embedding.weight.copy_(
        tower.embeddings.patch_embedding.weight * factor.view(-1, 1, 1, 1)
    )
    own.embeddings.patch_embedding.bias.zero_()
    own.embeddings.class_embedding.copy_((tower.embeddings.class_embedding * factor).view(1, 1, -1))
    own.embeddings.position_embedding.copy_(
        (tower.embeddings.position_embedding.weight * factor + norm.bias)[None]
    )
    for mine, theirs in zip(own.encoder.layers, tower.encoder.layers, strict=True):
        attention = theirs.self_attn
        for part in ("weight", "bias"):
            parts = [getattr(getattr(attention, f"{letter}_proj"), part) for letter in "qkv"]
            getattr(mine.self_attn.qkv, part).copy_(torch.cat(parts))
        mine.self_attn.projection.load_state_dict(attention.out_proj.state_dict())
        mine.layer_norm1.load_state_dict(theirs.layer_norm1.state_dict())
        mine.layer_norm2.load_state_dict(theirs.layer_norm2.state_dict())
        mine.mlp.load_state_dict(theirs.mlp.state_dict())
    own.post_layernorm.load_state_dict(tower.post_layernorm.state_dict())
    embeddings = base.text_model.embeddings.token_embedding.weight
    model.text_model.embeddings.word_embeddings.weight.copy_(embeddings * (0.2 / embeddings.std()))
    return model
