"""Tiny recognisers of text in the places of the published ones, in their names and layouts; a line reads "a", whatever it shows."""

import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForObjectDetection,
    AutoModelForTextRecognition,
    GotOcr2Config,
    GotOcr2ForConditionalGeneration,
    GotOcr2ImageProcessor,
    Qwen2Tokenizer,
)
from transformers.models.pp_ocrv5_server_det.image_processing_pp_ocrv5_server_det import (
    PPOCRV5ServerDetImageProcessor,
)
from transformers.models.pp_ocrv5_server_rec.image_processing_pp_ocrv5_server_rec import (
    PPOCRV5ServerRecImageProcessor,
)

from align.rewards.looking import LOOKING

CHARACTERS = ["", "a", "b", " "]
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"]
HEAD = {"hidden_size": 8, "num_attention_heads": 2, "depth": 1, "head_out_channels": len(CHARACTERS)}
AROUND = ("vertical_long_to_small_conv", "horizontal_small_to_long_conv", "symmetric_conv_long")


def fill_readers(folder_of):
    """Every one, in the folder that ``folder_of`` gives for its repository."""
    lines, words = mobile()
    write(lines, words, *(folder_of(one.reference) for one in LOOKING["ocr"].weights))
    lines, words = server()
    write(lines, words, *(folder_of(one.reference) for one in LOOKING["ocr_server"].weights))
    write_got(folder_of(LOOKING["ocr_got"].weights[0].reference))


def write(lines, words, lines_folder, words_folder):
    AutoModelForObjectDetection.from_config(lines).save_pretrained(lines_folder)
    PPOCRV5ServerDetImageProcessor().save_pretrained(lines_folder)
    reader = AutoModelForTextRecognition.from_config(words)
    with torch.no_grad():
        reader.head.head.bias[1] = 100.0
    reader.save_pretrained(words_folder)
    PPOCRV5ServerRecImageProcessor(character_list=CHARACTERS).save_pretrained(words_folder)


def mobile():
    def backbone(strides):
        blocks = [[[3, 8, 8, stride, False]] for stride in strides]
        sizes = {"stem_channels": 8, "divisor": 8, "reduction": 2, "conv_symmetric_num": 1}
        places = {"out_features": [f"stage{k}" for k in range(2, 6)], "out_indices": [2, 3, 4, 5]}
        return {"model_type": "pp_lcnet_v3", "block_configs": blocks, **sizes, **places}

    lines = {"neck_out_channels": 16, "layer_list_out_channels": [4] * 4}
    return (
        AutoConfig.for_model("pp_ocrv5_mobile_det", backbone_config=backbone([1, 2, 2, 2, 2]), **lines),
        AutoConfig.for_model("pp_ocrv5_mobile_rec", backbone_config=backbone([1, *[[2, 1]] * 3, 1]), **HEAD),
    )


def server():
    def backbone(**strides):
        channels = {"stem_channels": [3, 4, 4], "stage_in_channels": [4, 8, 8, 8]}
        channels |= {"stage_mid_channels": [4] * 4, "stage_out_channels": [8] * 4, "hidden_sizes": [8] * 4}
        depths = {name: [1] * 4 for name in ("depths", "stage_num_blocks", "stage_numb_of_layers")}
        kinds = {"stage_light_block": [False] * 4, "stage_kernel_size": [3] * 4}
        places = {"out_features": [f"stage{k}" for k in range(1, 5)]}
        return {"model_type": "hgnet_v2", **channels, **depths, **kinds, **places, **strides}

    across = {"longratio": 7, "midratio": 5, "shortratio": 3}
    block = {f"{name}_{ratio}": [size, 1, size // 2] for name in AROUND for ratio, size in across.items()}
    block |= {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}
    lines = {"neck_out_channels": 16, "scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2]}
    strides = {"stage_downsample": [True] * 4, "stage_downsample_strides": [[2, 1], [1, 2], [2, 1], [2, 1]]}
    return (
        AutoConfig.for_model(
            "pp_ocrv5_server_det",
            backbone_config=backbone(),
            intraclass_block_number=4,
            intraclass_block_config=block,
            **lines,
        ),
        AutoConfig.for_model(
            "pp_ocrv5_server_rec", backbone_config=backbone(stem_strides=[2, 1, 1, 1, 1], **strides), **HEAD
        ),
    )


def write_got(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate([*letters, *MARKS])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=MARKS[1:])
    tokenizer.save_pretrained(folder)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    seen = {
        "hidden_size": 8,
        "mlp_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "output_channels": 4,
    }
    config = GotOcr2Config(
        text_config={"model_type": "qwen2", "num_key_value_heads": 1, "vocab_size": len(vocabulary), **text},
        vision_config={**seen, "global_attn_indexes": []},
        image_token_index=vocabulary["<imgpad>"],
    )
    model = GotOcr2ForConditionalGeneration(config)
    model.generation_config.eos_token_id = vocabulary["<|endoftext|>"]
    model.save_pretrained(folder)
    GotOcr2ImageProcessor(size={"height": 1024, "width": 1024}).save_pretrained(folder)
