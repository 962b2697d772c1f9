"""Tiny files in the places of the published ones: a hub's cache in a folder."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from align.rewards import sources
from align.rewards.aesthetic import PUBLISHED_WIDTHS
from align.rewards.imagereward import BlipRegressor, BlipTextConfig, BlipVisionConfig
from align.rewards.looking import GENEVAL_DETECTOR
from align.rewards.open_clip import make_model
from align.rewards.registry import EMBEDDED
from align.rewards.step_aware import StepAwareModel

from .reader_box import fill_readers

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICKSCORE, CLIP_L = "yuvalkirstain/PickScore_v1", "openai/clip-vit-large-patch14"
SPM, HPS = "SPO-Diffusion-Models/Step-Aware_Preference_Models", "xswu/HPSv2"
IMAGEREWARD, BERT = "THUDM/ImageReward", "google-bert/bert-base-uncased"
AESTHETIC = "christophschuhmann/improved-aesthetic-predictor"
HEAD = f"{AESTHETIC}/sac+logos+ava1-l14-linearMSE.pth"

CLIP = {
    "projection_dim": 16,
    "logit_scale_init_value": 2.6592,
    "text_config": {
        "vocab_size": 622,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": 620,
        "eos_token_id": 621,
        "hidden_act": "quick_gelu",
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "hidden_act": "quick_gelu",
    },
}
OPEN_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
BLIP = {
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    },
    "text_config": {
        "vocab_size": 40,
        "hidden_size": 16,
        "encoder_hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "is_decoder": True,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "sep_token_id": 3,
    },
    "head": list(PUBLISHED_WIDTHS),
    "mean": 0.2,
    "deviation": 1.1,
    "max_length": 35,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
WORDS += ["##a", "##e", "##d", "red", "circle", ",", "highly"]


def repository(home, repo):
    """The folder of a repository's only snapshot in ``<home>/hub``, made if it is not there."""
    root = home / "hub" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fill_hub(home):
    """Every published reward in tiny, as the originals lie in a hub's cache: pickles, half precision and all."""
    torch.manual_seed(0)
    fill_clip(home)
    folder = repository(home, HPS)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP}))
    for file in ("HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"):
        torch.save({"state_dict": make_model(OPEN_CLIP).half().state_dict()}, folder / file)
    folder = repository(home, IMAGEREWARD)
    (folder / "config.json").write_text(json.dumps(BLIP))
    torch.save(blip().state_dict(), folder / "ImageReward.pt")
    (repository(home, BERT) / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    model = StepAwareModel(CLIPConfig(**CLIP))
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    for base in ("sd-v1-5", "sdxl"):
        torch.save(state, repository(home, SPM) / f"{base}_step-aware_preference_model.bin")
    path = home / "align" / HEAD
    path.parent.mkdir(parents=True)
    torch.save(head(), path)
    fill_detector(home)
    fill_readers(lambda name: repository(home, name))


def fill_clip(home):
    for repo in (PICKSCORE, CLIP_L):
        folder = repository(home, repo)
        (folder / "config.json").write_text(json.dumps(CLIP))
        save_file(CLIPModel(CLIPConfig(**CLIP)).state_dict(), folder / "model.safetensors")
        shutil.copy(EMBEDDED / "tokenizer" / "tokenizer.json", folder)


def fill_detector(home):
    """GenEval's detector, a pickle by mmdet's names."""
    shapes = json.loads((Path(__file__).parent / "data/mmdet_tiny.json").read_text())
    state = {name: 0.2 * torch.randn(shape) for name, shape in shapes.items()}
    path = home / "align" / GENEVAL_DETECTOR.reference / GENEVAL_DETECTOR.names[0]
    path.parent.mkdir(parents=True)
    torch.save({"meta": {"CLASSES": ("person",)}, "state_dict": state}, path)


def blip():
    vision, text = BlipVisionConfig(**BLIP["vision_config"]), BlipTextConfig(**BLIP["text_config"])
    return BlipRegressor(vision, text, BLIP["head"])


def head():
    """A head of the published form on embeddings of 16 numbers."""
    widths = [16, *PUBLISHED_WIDTHS, 1]
    out = {}
    for k, place in enumerate((0, 2, 4, 6, 7)):
        out[f"layers.{place}.weight"] = torch.randn(widths[k + 1], widths[k]) / widths[k] ** 0.5
        out[f"layers.{place}.bias"] = torch.randn(widths[k + 1])
    return out


def use(home, monkeypatch):
    """Let this process take what lies in a home that was filled."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.delenv(sources.OWN, raising=False)
