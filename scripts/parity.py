"""Our HPSv2 and ImageReward against the published packages' own code, on shared random weights and pictures.

    python scripts/parity.py [--environment .parity-venv]

The packages cannot live beside transformers 5, so they get an environment of their own (a few hundred MB, made once),
which borrows torch and all else that agrees from this one.  Models are tiny; layouts, cleaning of prompts, vocabulary,
resizing and the code that scores are the packages'.  Ends with 1 if a difference is over its limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from align.rewards.base import Reward
from align.rewards.imagereward import PUBLISHED, load_imagereward
from align.rewards.open_clip import load_open_clip
from align.rewards.registry import find

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "parity_requirements.txt"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
LIMITS = {"hpsv2": 1e-5, "imagereward": 1e-4}
"""Largest absolute differences: scores of hpsv2 are cosines, those of imagereward standardised."""

PROMPTS = [
    "a cat",
    "“Café” — naïve it's 3,000.5 years!! &amp;amp; <b>more</b>",
    "a swirling portal of coffee, " + "highly detailed, " * 40,
    "[DEC] and [ENC] are words too",
    "",
]
SIZES = {"square": (512, 512), "tall": (300, 500), "wide": (640, 352), "small": (64, 96)}
OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 48, "head_width": 12, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3},
}
VIT = {"embed_dim": 48, "depth": 3, "num_heads": 4}
BERT = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "vocab_size": 30524,
    "pad_token_id": 0,
    "hidden_act": "gelu",
}


def environment(folder: Path) -> Path:
    """The interpreter of the packages' environment, made if its list of packages is new."""
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest() + sysconfig.get_path("purelib")
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--requirement",
        str(REQUIREMENTS),
    ]
    subprocess.run(install, check=True)
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    import open_clip

    shutil.copy(Path(open_clip.__file__).parent / VOCABULARY, packages / "hpsv2" / "src" / "open_clip")
    stamp.write_text(wanted)
    return python


def write_task(folder: Path) -> None:
    """Pictures, sizes and the words of BERT for both sides."""
    generator = torch.Generator().manual_seed(0)
    for name, (width, height) in SIZES.items():
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
        array = (noisy[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / f"{name}.png")
    task = {
        "prompts": PROMPTS,
        "pictures": [f"{name}.png" for name in SIZES],
        "open_clip": OPEN_CLIP,
        "vit": VIT,
        "bert": BERT | {"add_cross_attention": True},
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    published = find("imagereward")[1].paths[0]
    if published.is_file():
        shutil.copy(published, folder / "vocab.txt")
    else:
        print("bert-base-uncased's vocabulary is not in the cache: letters stand in for it")
        (folder / "vocab.txt").write_text("\n".join(letters()) + "\n", encoding="utf-8")


def letters() -> list[str]:
    """A vocabulary of letters with the special tokens where BERT has them."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    words = [special.get(k, f"[unused{k}]") for k in range(30522)]
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    for k, sign in enumerate([*signs, *(f"##{sign}" for sign in signs)]):
        words[1000 + k] = sign
    return words


def ours(folder: Path) -> dict[str, Reward]:
    """Our scorers on the weights that the other side wrote."""
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP}))
    vision = {
        **PUBLISHED["vision_config"],
        "hidden_size": VIT["embed_dim"],
        "intermediate_size": 4 * VIT["embed_dim"],
        "num_hidden_layers": VIT["depth"],
        "num_attention_heads": VIT["num_heads"],
    }
    text = {**PUBLISHED["text_config"], **BERT, "encoder_hidden_size": VIT["embed_dim"]}
    (folder / "config.json").write_text(
        json.dumps({**PUBLISHED, "vision_config": vision, "text_config": text})
    )
    return {
        "hpsv2": load_open_clip("hpsv2", folder, None, file="HPS.pt"),
        "imagereward": load_imagereward("imagereward", folder, file="ImageReward.pt"),
    }


def compare(folder: Path) -> bool:
    """Print the largest difference of each scorer; whether all are within their limits."""
    recorded: dict[str, Any] = json.loads((folder / "original.json").read_text())
    images = [Image.open(folder / f"{name}.png") for name in SIZES for _ in PROMPTS]
    good = True
    for name, reward in ours(folder).items():
        theirs = torch.tensor(recorded[name])
        found = reward.score_images(images, PROMPTS * len(SIZES))
        difference = float((found - theirs).abs().max())
        good &= difference <= LIMITS[name]
        spread = f"scores from {float(theirs.min()):.4f} to {float(theirs.max()):.4f}"
        print(f"{name:<12} largest difference {difference:.2e} (limit {LIMITS[name]:g}), {spread}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", type=Path, default=HERE.parent / ".parity-venv")
    python = environment(parser.parse_args().environment)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder)
        quiet = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run([str(python), str(HERE / "parity_original.py"), name], check=True, env=quiet)
        # The converted copies of these random weights shall not fill the user's cache.
        from huggingface_hub import constants

        constants.HF_HOME = str(folder / "home")
        return 0 if compare(folder) else 1


if __name__ == "__main__":
    sys.exit(main())
