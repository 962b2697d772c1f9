"""Tiny judges in the places of the published ones, in their names and layouts."""

import hashlib
import json
import zipfile

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
)

from align.rewards import hpsv3
from align.rewards.aesthetic import PUBLISHED_WIDTHS
from align.rewards.hpsv3 import SOURCE
from align.rewards.judges import (
    GENEVAL2_DATA,
    HPSV3_PACKAGE,
    QWEN3_2B,
    QWEN3_4B,
    QWEN3_8B,
    QWEN25_3B,
    QWEN25_7B,
)
from align.rewards.mps import CrossModel
from align.rewards.published import AESTHETIC25_HEAD
from align.rewards.registry import EMBEDDED

from . import box
from .box import CLIP, repository

TEXT, SUFFIX = "\nHow good is it? {text_prompt}\n\n", "\nSay: <|Reward|>\n\nEND\n"
TEXT_SHA256 = hashlib.sha256((TEXT + SUFFIX).encode()).hexdigest()
"""Of the box's text for HPSv3, in place of the published one's."""
MARKS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
)
MARKS += ("<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
PIXELS = {"shortest_edge": 65536, "longest_edge": 16777216}
TEXT_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
    "max_position_embeddings": 32768,
}
QUESTIONS = [["How many cats are in the image?", "two"], ["Is the cat red?", "Yes"]]


def fill_judges(home, prompts):
    """Every judge in ``home``, an ``HF_HOME``; GenEval 2 knows these ``prompts``."""
    torch.manual_seed(1)
    for checkpoint, shards in (
        (QWEN25_7B, False),
        (QWEN25_3B, False),
        (QWEN3_8B, True),
        (QWEN3_4B, False),
        (QWEN3_2B, False),
    ):
        folder = repository(home, checkpoint.reference)
        tied = checkpoint in (QWEN25_3B, QWEN3_4B, QWEN3_2B)
        kind = "qwen2_5_vl" if checkpoint in (QWEN25_7B, QWEN25_3B) else "qwen3_vl"
        tokenizer = write_words(folder)
        write_qwen(folder, kind, tokenizer, tied, shards)
    write_hpsv3(home)
    folder = repository(home, "google/siglip-so400m-patch14-384")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        vision_config={**sizes, "image_size": 28, "patch_size": 14}, text_config={**sizes, "vocab_size": 30}
    )
    config.save_pretrained(folder)
    save_file(SiglipModel(config).state_dict(), folder / "model.safetensors")
    path = home / "align" / AESTHETIC25_HEAD.reference / AESTHETIC25_HEAD.names[0]
    path.parent.mkdir(parents=True)
    torch.save({key: value.bfloat16() for key, value in siglip_head().items()}, path)
    write_mps(home)
    path = home / "align" / GENEVAL2_DATA.reference / GENEVAL2_DATA.names[0]
    path.parent.mkdir(parents=True)
    own = {"atom_count": 2, "vqa_list": QUESTIONS, "skills": ["count", "attribute"]}
    records = [{"prompt": prompt, **own} for prompt in prompts]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def write_words(folder):
    """Everything but weights and configuration."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Y", "e"), ("Ye", "s"), ("Ġ", "c"), ("a", "t")]
    known = [*letters, *("".join(pair) for pair in merges), *MARKS]
    vocabulary = {piece: place for place, piece in enumerate(known)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=list(MARKS[1:]))
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    image = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": PIXELS}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    return tokenizer


def write_qwen(folder, kind, tokenizer, tied, shards):
    marks = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    marks |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    ids = {name: tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    text = {**TEXT_SIZES, "vocab_size": len(tokenizer) + 3, "tie_word_embeddings": tied}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    if kind == "qwen2_5_vl":
        config = Qwen2_5_VLConfig(
            text_config=text,
            vision_config={**vision, "fullatt_block_indexes": [0]},
            tie_word_embeddings=tied,
            **ids,
        )
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        config = Qwen3VLConfig(
            text_config={**text, "head_dim": 8},
            vision_config={**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            tie_word_embeddings=tied,
            **ids,
        )
        model = Qwen3VLForConditionalGeneration(config)
    config.save_pretrained(folder)
    penalty = {"repetition_penalty": 1.05} if kind == "qwen2_5_vl" else {}
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, **penalty}))
    tensors = {key: value.bfloat16() for key, value in model.state_dict().items()}
    if kind == "qwen2_5_vl":  # as older versions named them
        tensors = {key.replace("model.visual.", "visual."): value for key, value in tensors.items()}
        tensors = {key.replace("model.language_model.", "model."): value for key, value in tensors.items()}
    if tied:
        del tensors["lm_head.weight"]
    names = [f"model-0000{k + 1}-of-00002.safetensors" for k in range(2)] if shards else ["model.safetensors"]
    places = {key: names[place % len(names)] for place, key in enumerate(tensors)}
    for name in names:
        save_file({key: value for key, value in tensors.items() if places[key] == name}, folder / name)
    if shards:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_hpsv3(home):
    base = repository(home, "Qwen/Qwen2-VL-7B-Instruct")
    tokenizer = write_words(base)
    rows = len(tokenizer) + 1
    config = Qwen2VLConfig(
        text_config={**TEXT_SIZES, "vocab_size": rows},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    named = Qwen2VLModel(config).state_dict()
    state = {key.replace("language_model.", "model."): value.bfloat16() for key, value in named.items()}
    state["lm_head.weight"] = torch.zeros(rows, 16)
    for place, (inner, outer) in {0: (16, 1024), 3: (1024, 16), 5: (16, 2)}.items():
        state[f"rm_head.{place}.weight"] = torch.randn(outer, inner) / inner**0.5
        state[f"rm_head.{place}.bias"] = torch.randn(outer)
    save_file(state, repository(home, "MizzenAI/HPSv3") / "HPSv3.safetensors")
    config.text_config.vocab_size = rows + 9  # which the base has more of
    config.save_pretrained(base)
    wheel = home / "align" / HPSV3_PACKAGE.reference / HPSV3_PACKAGE.names[0]
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr(SOURCE, f"INSTRUCTION = {TEXT!r}\nprompt_with_special_token = {SUFFIX!r}\n")


def write_mps(home):
    folder = repository(home, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")
    (folder / "config.json").write_text(json.dumps(CLIP))
    tokenizer = EMBEDDED / "tokenizer" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    cross = CrossModel(1, dim=16, heads=2, dim_head=8, inner=16).state_dict()
    named = {}
    for key, value in cross.items():
        layers, layer, part, rest = key.split(".", 3)
        named[f"mps.cross_model.{layers}.{layer}.{part}.fn.{rest}"] = value
    towers = {f"mps.model.{key}": value for key, value in CLIPModel(CLIPConfig(**CLIP)).state_dict().items()}
    save_file({**named, **towers}, repository(home, "RE-N-Y/mpsv1") / "model.safetensors")


def siglip_head():
    """A head of the published form on embeddings of 16 numbers."""
    widths = [16, *PUBLISHED_WIDTHS, 1]
    out = {}
    for k in range(5):
        out[f"scoring_head.{2 * k}.weight"] = torch.randn(widths[k + 1], widths[k]) / widths[k] ** 0.5
        out[f"scoring_head.{2 * k}.bias"] = torch.randn(widths[k + 1])
    return out


def use(home, monkeypatch):
    """As ``box.use``, with the text of the tiny HPSv3 for the published one."""
    box.use(home, monkeypatch)
    monkeypatch.setattr(hpsv3, "TEXT_SHA256", TEXT_SHA256)
