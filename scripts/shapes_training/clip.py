"""Stage ``clip``: the base CLIP of the shapes world, from which every reward model starts.

transformers' own CLIPModel at a toy size.  Contrastive training alone ends in a bag of words, so every batch
is made of pairs of scenes that differ in one thing (``pairs``), each with its caption and further false
ones, and two heads that are thrown away afterwards supervise the tower: the patch tokens say what lies there,
the pooled token says which objects there are, where, and how the picture was corrupted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from align.shapes.grammar import BACKGROUNDS, COLOURS, MAX_OBJECTS, SHAPES, pair_split
from align.shapes.render import PICTURE
from scripts.shapes_training.edits import PATCHES, Edits
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.spoil import CORRUPTIONS, corrupt, to_float

WIDTH = 96
PROJECTION = 96
PAIRS = 24
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
CPU = torch.device("cpu")
KINDS = len(COLOURS) * len(SHAPES)
TRAINED = torch.tensor([pair_split(colour, shape) == "train" for colour in COLOURS for shape in SHAPES])


def config(vocabulary: int, positions: int = 24) -> CLIPConfig:
    """Sizes of the toy CLIP; ``vocabulary`` counts the tokens, the last of which is <|endoftext|>."""
    text = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
        "hidden_act": "gelu",
        "projection_dim": PROJECTION,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": PICTURE,
        "patch_size": PICTURE // PATCHES,
        "hidden_act": "gelu",
        "projection_dim": PROJECTION,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)


class Supervised(nn.Module):
    """The CLIP with the heads that only training needs."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.patch_head = nn.Linear(WIDTH, 1 + len(COLOURS) + 1 + len(SHAPES) + 3)
        n_pooled = (
            KINDS + 4 * len(COLOURS) + 4 * len(SHAPES) + len(BACKGROUNDS) + MAX_OBJECTS + len(CORRUPTIONS)
        )
        self.pooled_head = nn.Sequential(nn.Linear(WIDTH, 192), nn.GELU(), nn.Linear(192, n_pooled))

    def see(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (b, projection), pooled (b, width) and patch tokens (b, 64, width) of pictures."""
        pixels = ((pictures - MEAN) / STD).to(self.clip.device)
        out = self.clip.vision_model(pixel_values=pixels)
        return self.clip.visual_projection(out.pooler_output), out.pooler_output, out.last_hidden_state[:, 1:]

    def read(self, ids: Tensor) -> Tensor:
        """Embeddings (b, projection) of token ids."""
        pooled = self.clip.text_model(input_ids=ids.to(self.clip.device)).pooler_output
        out: Tensor = self.clip.text_projection(pooled)
        return out


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids (n, longest), padded with <|endoftext|>."""
    ids: Tensor = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt").input_ids
    return ids


def patch_loss(logits: Tensor, things: Tensor, cells: Tensor) -> Tensor:
    """What covers each patch: cross entropy of colours and shapes, and the offset to the object's centre.

    Args:
        logits: (b, 64, 9 + 7 + 3).
        things: (b, 3, 5) as in ``Edits``.
        cells: (b, 3, 64) shares of the patch that each object covers, 0..1.
    """
    b = len(things)
    covered = cells.sum(1).clamp(max=1)
    colour = torch.zeros(b, 64, 1 + len(COLOURS))
    shape = torch.zeros(b, 64, 1 + len(SHAPES))
    colour[..., 0] = shape[..., 0] = 1 - covered
    rows = torch.arange(b)[:, None].expand(b, MAX_OBJECTS)
    kinds = things[..., :2].long() + 1  # 0 for none, of which the share is 0
    colour.transpose(1, 2).index_put_((rows, kinds[..., 0]), cells, accumulate=True)
    shape.transpose(1, 2).index_put_((rows, kinds[..., 1]), cells, accumulate=True)
    colour_logits, shape_logits, place = torch.split(logits, [1 + len(COLOURS), 1 + len(SHAPES), 3], dim=-1)
    weight = 0.2 + 0.8 * (covered > 0.02).float()
    loss = -(colour * colour_logits.log_softmax(-1)).sum(-1) - (shape * shape_logits.log_softmax(-1)).sum(-1)
    owner = cells.argmax(1)
    centre = torch.gather(things[..., 2:], 1, owner[..., None].expand(-1, -1, 3))
    grid = (torch.arange(PATCHES, dtype=torch.float32) + 0.5) * (PICTURE / PATCHES)
    ys, xs = torch.meshgrid(grid, grid, indexing="ij")
    target = (centre - torch.stack([xs.flatten(), ys.flatten(), torch.full((64,), 8.0)], -1)) / 8
    offset = F.smooth_l1_loss(place, target, reduction="none").mean(-1) * (covered > 0.1)
    mean: Tensor = ((loss * weight).sum(1) / weight.sum(1)).mean() + offset.mean()
    return mean


def pooled_loss(logits: Tensor, things: Tensor, backgrounds: Tensor, levels: Tensor) -> Tensor:
    """Which objects there are, where each colour and shape lies, background, and the first pictures' corruption."""
    b = len(things)
    there = (things[..., 0] >= 0).float()
    colours, shapes = things[..., 0].long().clamp_min(0), things[..., 1].long().clamp_min(0)
    rows = torch.arange(b)[:, None].expand(b, MAX_OBJECTS)
    sizes = [KINDS, 4 * len(COLOURS), 4 * len(SHAPES), len(BACKGROUNDS), MAX_OBJECTS, len(CORRUPTIONS)]
    kind, of_colour, of_shape, background, total, corruption = torch.split(logits, sizes, dim=-1)
    present = torch.zeros(b, KINDS).index_put((rows, colours * len(SHAPES) + shapes), there, accumulate=True)
    # Held-out kinds are never there in training, and shall not be learned as impossible.
    known = F.binary_cross_entropy_with_logits(kind, (present > 0).float(), reduction="none")[:, TRAINED]
    loss = 4 * known.mean()
    for logit, index, number in ((of_colour, colours, len(COLOURS)), (of_shape, shapes, len(SHAPES))):
        count = torch.zeros(b, number).index_put((rows, index), there, accumulate=True)
        where = torch.zeros(b, number, 3).index_put(
            (rows, index),
            there[..., None] * (things[..., 2:] / 32 - torch.tensor([1, 1, 0.25])),
            accumulate=True,
        )
        where = where / count.clamp_min(1)[..., None]
        logit = logit.view(b, number, 4)
        loss = loss + 2 * F.smooth_l1_loss(logit[..., 0], count)
        seen = (count > 0).float()[..., None]
        loss = (
            loss
            + 6 * (F.smooth_l1_loss(logit[..., 1:], where, reduction="none") * seen).sum() / seen.sum() / 3
        )
    loss = loss + 0.3 * F.cross_entropy(background, backgrounds)
    loss = loss + 0.5 * F.cross_entropy(total, there.sum(1).long() - 1)
    return loss + 2 * F.mse_loss(corruption[: len(levels)], levels)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
    """InfoNCE over pictures of pairs and their texts, and the same within each pair.

    Args:
        image: (2 n, d) embeddings, the two sides of a pair next to each other.
        text: (4 n, d) embeddings: the 2 n true captions in the same order, then 2 n false ones.
        scale: the logit scale (a factor).
        texts: the 4 n texts; equal ones are no negatives of each other.

    Returns:
        The loss and the share of pictures whose own caption beats the other side's and the false one.
    """
    b = len(image)
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    logits = scale * image @ text.T
    _, names = np.unique(np.array(texts), return_inverse=True)
    same = torch.from_numpy(names[:b, None] == names[None, :])
    same[torch.arange(b), torch.arange(b)] = False
    logits = logits.masked_fill(same, -1e4)
    labels = torch.arange(b)
    loss = 0.5 * F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(logits[:, :b].T, labels)
    other = labels ^ 1
    own = torch.stack([logits[labels, labels], logits[labels, other], logits[labels, b + labels]], 1)
    turned = torch.stack([logits[labels, labels], logits[other, labels]], 1)
    hard = F.cross_entropy(own, torch.zeros(b, dtype=torch.long))
    hard = hard + F.cross_entropy(turned, torch.zeros(b, dtype=torch.long))
    return loss + hard, (own.argmax(1) == 0).float().mean()


def batch(data: Edits, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor, list[str]]:
    """Pairs by index: (2n) pictures in [0, 1], things, cells, backgrounds, and the 4n texts."""
    captions = [str(text) for text in data.captions[index].reshape(-1)]
    negatives = [str(text) for text in data.negatives[index].reshape(-1)]
    return (
        to_float(data.pictures[index].reshape(-1, PICTURE, PICTURE, 3)),
        torch.from_numpy(data.things[index].reshape(-1, MAX_OBJECTS, 5)),
        torch.from_numpy(data.cells[index].reshape(-1, MAX_OBJECTS, 64)).float() / 255,
        torch.from_numpy(data.backgrounds[index].reshape(-1)),
        captions + negatives,
    )


def build(vocabulary: int) -> Supervised:
    """An untrained CLIP with its training heads."""
    clip = CLIPModel(config(vocabulary))
    with torch.no_grad():
        clip.logit_scale.fill_(float(np.log(14.0)))
    return Supervised(clip)


def run(
    data: Edits,
    tokenizer: CLIPTokenizer,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device = CPU,
    *,
    shown: Edits | None = None,
    start: CLIPModel | None = None,
    stage: str = "clip",
) -> CLIPModel:
    """Train and return the averaged CLIP, without heads.  One CPU thread: about 240 pictures a second.

    Args:
        data: rendered pairs, corrupted as they are drawn.
        tokenizer: of the text tower.
        budget, folder, seed: see ``scripts.shapes_training.loop``.
        device: where the towers run.
        shown: described generated pictures; if given, three quarters of every batch.
        start: a trained CLIP to go on from.
        stage: name of the training state.
    """
    torch.manual_seed(seed)
    model = (Supervised(start) if start is not None else build(len(tokenizer))).to(device)
    rendered = PAIRS if shown is None else PAIRS // 4

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        pictures, *labels, texts = batch(data, rng.integers(len(data), size=rendered))
        pictures, levels = corrupt(pictures, rng)
        if shown is not None:
            others, *more, further = batch(shown, rng.integers(len(shown), size=PAIRS - rendered))
            labels = [torch.cat(two) for two in zip(labels, more, strict=True)]
            # Own captions of both first, then the false ones.
            own, false = len(pictures), len(others)
            texts = texts[:own] + further[:false] + texts[own:] + further[false:]
            pictures = torch.cat([pictures, others])
        image, pooled, patches = model.see(pictures)
        text = model.read(tokens(tokenizer, texts))
        scale = model.clip.logit_scale.exp().clamp(max=100)
        # Only the towers run on the device; the losses are small.
        contrast, right = contrastive_loss(image.cpu(), text.cpu(), scale.cpu(), texts)
        things, cells, backgrounds = labels
        dense = patch_loss(model.patch_head(patches).cpu(), things, cells)
        whole = pooled_loss(model.pooled_head(pooled).cpu(), things, backgrounds, levels)
        figures = {
            "contrast": float(contrast.detach()),
            "patch": float(dense.detach()),
            "pooled": float(whole.detach()),
            "right": float(right),
            "scale": float(scale.detach()),
        }
        return contrast + dense + whole, figures

    recipe = Recipe(
        learning_rate=1.5e-3 if start is None else 1e-3,
        budget=budget,
        average=0.998,
        weight_decay=0.02,
        warmup_steps=300,
    )
    averaged = train(stage, model, loss, recipe, folder, seed)
    assert isinstance(averaged, Supervised)
    return averaged.clip


@torch.no_grad()
def accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, data: Edits, size: int = 100) -> dict[str, float]:
    """How often the true caption of a picture beats a false one, and the true picture the other of its pair.

    Returns:
        "caption": against the caption of the edited scene; "words": against an edited caption;
        "picture": the right one of two pictures for a caption.
    """
    whole = Supervised(model).eval()
    right: dict[str, list[Tensor]] = {"caption": [], "words": [], "picture": []}
    for start in range(0, len(data), size):
        pictures, *_, texts = batch(data, np.arange(start, min(start + size, len(data))))
        image = F.normalize(whole.see(pictures)[0], dim=-1)
        text = F.normalize(whole.read(tokens(tokenizer, texts)), dim=-1)
        similarity = (image @ text.T).cpu()
        b = len(image)
        own = torch.arange(b)
        true = similarity[own, own]
        right["caption"].append(true > similarity[own, own ^ 1])
        right["words"].append(true > similarity[own, b + own])
        right["picture"].append(true > similarity[own ^ 1, own])
    return {name: float(torch.cat(values).float().mean()) for name, values in right.items()}
