"""A Mask2Former of mmdet (2.x) with a Swin backbone, by transformers' names.  Learnt from both programs' module trees.

mmdet fuses what transformers splits (query, key and value), and its patches are merged in another order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

from torch import Tensor
from transformers import Mask2FormerConfig, SwinConfig

from align.errors import WrongWeights

POINTS = 4
"""At which deformable attention looks, a head and level."""

_SWIN = "model.pixel_level_module.encoder"
_PIXEL = "model.pixel_level_module.decoder"
_TRANSFORMER = "model.transformer_module"
_BLOCK = (
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"attn\.w_msa\.proj", "attention.o_proj"),
    (r"ffn\.layers\.0\.0", "mlp.fc1"),
    (r"ffn\.layers\.1", "mlp.fc2"),
)
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.projection\.", f"{_SWIN}.swin.embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", f"{_SWIN}.swin.embeddings.norm."),
    *(
        (
            rf"backbone\.stages\.(\d+)\.blocks\.(\d+)\.{theirs}\.",
            rf"{_SWIN}.swin.encoder.layers.\1.blocks.\2.{ours}.",
        )
        for theirs, ours in _BLOCK
    ),
    (
        r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.relative_position_bias_table",
        rf"{_SWIN}.swin.encoder.layers.\1.blocks.\2.attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"backbone\.stages\.(\d+)\.downsample\.", rf"{_SWIN}.swin.encoder.layers.\1.downsample."),
    *((rf"backbone\.norm{k}\.", f"{_SWIN}.hidden_states_norms.stage{k + 1}.") for k in range(4)),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.conv\.", rf"{_PIXEL}.input_projections.\1.0."),
    (r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.gn\.", rf"{_PIXEL}.input_projections.\1.1."),
    *(
        (
            rf"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\.{theirs}\.",
            rf"{_PIXEL}.encoder.layers.\1.{ours}.",
        )
        for theirs, ours in (
            (r"attentions\.0", "self_attn"),
            (r"norms\.0", "self_attn_layer_norm"),
            (r"norms\.1", "final_layer_norm"),
            (r"ffns\.0\.layers\.0\.0", "fc1"),
            (r"ffns\.0\.layers\.1", "fc2"),
        )
    ),
    (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", f"{_PIXEL}.level_embed"),
    *(
        (rf"panoptic_head\.pixel_decoder\.{theirs}\.", f"{_PIXEL}.{ours}.")
        for theirs, ours in (
            (r"lateral_convs\.0\.conv", "adapter_1.0"),
            (r"lateral_convs\.0\.gn", "adapter_1.1"),
            (r"output_convs\.0\.conv", "layer_1.0"),
            (r"output_convs\.0\.gn", "layer_1.1"),
            (r"mask_feature", "mask_projection"),
        )
    ),
    *(
        (
            rf"panoptic_head\.transformer_decoder\.layers\.(\d+)\.{theirs}",
            rf"{_TRANSFORMER}.decoder.layers.\1.{ours}",
        )
        for theirs, ours in (
            (r"attentions\.0\.attn\.", "cross_attn."),
            (r"attentions\.1\.attn\.out_proj\.", "self_attn.out_proj."),
            (r"norms\.0\.", "cross_attn_layer_norm."),
            (r"norms\.1\.", "self_attn_layer_norm."),
            (r"norms\.2\.", "final_layer_norm."),
            (r"ffns\.0\.layers\.0\.0\.", "fc1."),
            (r"ffns\.0\.layers\.1\.", "fc2."),
        )
    ),
    (r"panoptic_head\.transformer_decoder\.post_norm\.", f"{_TRANSFORMER}.decoder.layernorm."),
    *(
        (
            rf"panoptic_head\.mask_embed\.{2 * k}\.",
            f"{_TRANSFORMER}.decoder.mask_predictor.mask_embedder.{k}.0.",
        )
        for k in range(3)
    ),
    (r"panoptic_head\.query_embed\.", f"{_TRANSFORMER}.queries_embedder."),
    (r"panoptic_head\.query_feat\.", f"{_TRANSFORMER}.queries_features."),
    (r"panoptic_head\.level_embed\.", f"{_TRANSFORMER}.level_embed."),
    (r"panoptic_head\.cls_embed\.", "class_predictor."),
)
_FUSED = (
    (
        r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.qkv\.(weight|bias)",
        rf"{_SWIN}.swin.encoder.layers.\1.blocks.\2.attention.{{}}_proj.\3",
    ),
    (
        r"panoptic_head\.transformer_decoder\.layers\.(\d+)\.attentions\.1\.attn\.in_proj_(weight|bias)",
        rf"{_TRANSFORMER}.decoder.layers.\1.self_attn.{{}}_proj.\2",
    ),
)
"""Query, key and value in one, in equal parts."""
_DROPPED = r".*\.(relative_position_index|num_batches_tracked)|panoptic_head\.loss_.*"


def from_mmdet(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mmdet's tensors by transformers' names. Raises WrongWeights: one has a name that is not known."""
    ours: dict[str, Tensor] = {}
    for name, value in theirs.items():
        if re.fullmatch(_DROPPED, name):
            continue
        for pattern, place in _FUSED:
            if found := re.fullmatch(pattern, name):
                parts = zip("qkv", value.chunk(3), strict=True)
                ours |= {found.expand(place).format(one): part for one, part in parts}
                break
        else:
            ours[_renamed(name)] = (
                _merged(value) if re.search(r"\.downsample\.(reduction|norm)\.", name) else value
            )
    return ours


def config_of(theirs: Mapping[str, Tensor]) -> Mask2FormerConfig:
    """The sizes of a network, by the shapes of mmdet's tensors. Raises WrongWeights: one that tells them is not there."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in theirs:
            raise WrongWeights(f"there is no {name}, which tells the size of a Mask2Former of mmdet 2")
        return tuple(theirs[name].shape)

    def layers(pattern: str) -> int:
        return len({found[0] for name in theirs if (found := re.match(pattern, name))})

    head, swin = "panoptic_head", "backbone.stages"
    tables = [shape(f"{swin}.{stage}.blocks.0.attn.w_msa.relative_position_bias_table") for stage in range(4)]
    inside, width = shape(f"{swin}.0.blocks.0.ffn.layers.0.0.weight")
    queries, hidden = shape(f"{head}.query_feat.weight")
    levels, _ = shape(f"{head}.pixel_decoder.level_encoding.weight")
    sampled, _ = shape(f"{head}.pixel_decoder.encoder.layers.0.attentions.0.attention_weights.weight")
    return Mask2FormerConfig(
        backbone_config=SwinConfig(
            embed_dim=width,
            depths=[layers(rf"backbone\.stages\.{stage}\.blocks\.\d+\.") for stage in range(4)],
            num_heads=[table[1] for table in tables],
            window_size=(isqrt(tables[0][0]) + 1) // 2,
            mlp_ratio=inside / width,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        num_queries=queries,
        num_labels=shape(f"{head}.cls_embed.weight")[0] - 1,
        hidden_dim=hidden,
        feature_size=shape(f"{head}.pixel_decoder.input_convs.0.conv.weight")[0],
        mask_feature_size=shape(f"{head}.pixel_decoder.mask_feature.weight")[0],
        num_attention_heads=sampled // (levels * POINTS),
        encoder_layers=layers(r"panoptic_head\.pixel_decoder\.encoder\.layers\.\d+\."),
        encoder_feedforward_dim=shape(f"{head}.pixel_decoder.encoder.layers.0.ffns.0.layers.0.0.weight")[0],
        decoder_layers=layers(r"panoptic_head\.transformer_decoder\.layers\.\d+\.") + 1,
        dim_feedforward=shape(f"{head}.transformer_decoder.layers.0.ffns.0.layers.0.0.weight")[0],
        use_auxiliary_loss=True,  # without it the forward pass of transformers fails
    )


def _renamed(name: str) -> str:
    for pattern, place in _RULES:
        if found := re.match(pattern, name):
            return found.expand(place) + name[found.end() :]
    raise WrongWeights(f"{name} is of no Mask2Former of mmdet 2 with a Swin backbone")


def _merged(value: Tensor) -> Tensor:
    """The last axis, 4C inputs of merged patches, from mmdet's order (channel, place) to transformers' (place, channel)."""
    apart = value.reshape(*value.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return apart.transpose(-1, -2).flatten(-2).contiguous()
