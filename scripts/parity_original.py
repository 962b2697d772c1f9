"""The published packages' side of `make parity`; runs in their environment and imports nothing of this project.

    python parity_original.py FOLDER

FOLDER holds ``task.json`` (sizes, prompts, pictures) and the pictures; written are the random weights, in the published
layouts, and ``original.json`` with the packages' own scores.  What is not theirs: sizes, weights, and that nothing is
downloaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image


def shaken(module: Any) -> Any:
    """The module with random weights that all matter; the published initialisation is nearly zero in places."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 0:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def hpsv2(folder: Path, task: dict[str, Any]) -> list[float]:
    """``hpsv2.img_score.score`` of every picture and prompt."""
    from hpsv2 import img_score
    from hpsv2.src.open_clip import create_model_and_transforms, factory

    factory._MODEL_CONFIGS["ViT-H-14"] = task["open_clip"]
    # As initialize_model() has it, but for the 4 GB of weights that would be overwritten.
    model, _, prepare = create_model_and_transforms(
        "ViT-H-14", None, precision="amp", device="cpu", light_augmentation=True, output_dict=True
    )
    img_score.model_dict.update(model=model, preprocess_val=prepare)
    img_score.device = "cpu"
    path = folder / "HPS.pt"
    state = {key: value.half() for key, value in shaken(model).state_dict().items()}
    torch.save({"state_dict": state}, path)
    return [
        float(img_score.score(Image.open(folder / picture), prompt, cp=str(path))[0])
        for picture in task["pictures"]
        for prompt in task["prompts"]
    ]


def imagereward(folder: Path, task: dict[str, Any]) -> list[float]:
    """``ImageReward.score`` of every picture and prompt."""
    from ImageReward.ImageReward import ImageReward
    from ImageReward.models.BLIP import blip, blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer

    sizes = task["vit"]

    def create_vit(vit: str, image_size: int, *rest: Any) -> tuple[Any, int]:
        return VisionTransformer(img_size=image_size, patch_size=16, **sizes), sizes["embed_dim"]

    words = blip.BertTokenizer
    blip.BertTokenizer = SimpleNamespace(from_pretrained=lambda name: words(str(folder / "vocab.txt")))
    blip_pretrain.create_vit = create_vit
    (folder / "med_config.json").write_text(json.dumps(task["bert"]))
    model = shaken(ImageReward(str(folder / "med_config.json")))
    torch.save(model.state_dict(), folder / "ImageReward.pt")
    with torch.no_grad():
        return [
            float(model.score(prompt, Image.open(folder / picture)))
            for picture in task["pictures"]
            for prompt in task["prompts"]
        ]


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    found = {"hpsv2": hpsv2(folder, task), "imagereward": imagereward(folder, task)}
    (folder / "original.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
