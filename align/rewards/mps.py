"""MPS, the multi-dimensional preference score (arXiv 2405.14705): a CLIP whose picture is asked about a condition.

All tokens of the picture attend to those tokens of the prompt that resemble the words of a condition; the score is
exp(logit_scale) times the cosine of the prompt's embedding and what the picture's first token became.  As published there is no
attention mask, so the padding's token counts, and there are always as many tokens as the model has places.  How much like the
condition a token must be, relative to the prompt's best, is 0.3 in the authors' evaluation and 0.01 in their model's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from align.checkpoints.weight_files import build, fill, read_tensors, sha256
from align.errors import WrongWeights
from align.rewards.base import TextCache, check_pairing
from align.rewards.clip import TowerReward, clip_config, load_tokenizer, settle, token_ids

CROSS, TOWERS = "cross_model.", "model."


class Mixed(nn.Module):
    """Gated unit: the first half times the second half's silu."""

    def forward(self, x: Tensor) -> Tensor:
        first, gate = x.chunk(2, dim=-1)
        return first * F.silu(gate)


class Looking(nn.Module):
    """Queries of the picture, one key and one value head of the text, and a feed-forward branch beside them."""

    def __init__(self, dim: int, heads: int, dim_head: int, inner: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(dim, 2 * inner, bias=False), Mixed(), nn.Linear(inner, dim, bias=False)
        )

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """What is added to x (P, n, dim), of the text (P, m, dim) and its mask (P, m), 0 or minus infinity."""
        y = self.norm(x)
        keys, values = self.to_kv(text).chunk(2, dim=-1)
        found = _attend(_heads(self.to_q(y), self.heads), keys, values, mask)
        out: Tensor = self.to_out(found) + self.ff(y)
        return out


class Thinking(nn.Module):
    """Attention among the picture's tokens, with rotary positions, and a feed-forward branch beside it, from one projection."""

    def __init__(self, dim: int, heads: int, dim_head: int, inner: int):
        super().__init__()
        self.heads = heads
        self.widths = (heads * dim_head, dim_head, dim_head, 2 * inner)
        self.norm = nn.LayerNorm(dim)
        self.fused_attn_ff_proj = nn.Linear(dim, sum(self.widths), bias=False)
        self.attn_out = nn.Linear(heads * dim_head, dim, bias=False)
        self.ff_out = nn.Sequential(Mixed(), nn.Linear(inner, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to x (P, n, dim)."""
        queries, keys, values, rest = self.fused_attn_ff_proj(self.norm(x)).split(self.widths, dim=-1)
        found = _attend(_heads(queries, self.heads), keys, values, turn=True)
        out: Tensor = self.attn_out(found) + self.ff_out(rest)
        return out


def _heads(x: Tensor, heads: int) -> Tensor:
    """(P, n, heads * d) as (P, heads, n, d)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, *, turn: bool = False
) -> Tensor:
    """Queries (P, heads, n, d) on keys and values (P, m, d) that all heads share, as (P, n, heads * d)."""
    if turn:
        queries, keys = _turned(queries), _turned(keys)
    added = None if mask is None else mask[:, None, None].to(queries.dtype)
    found = F.scaled_dot_product_attention(queries, keys[:, None], values[:, None], attn_mask=added)
    return found.transpose(1, 2).flatten(2)


def _turned(x: Tensor) -> Tensor:
    """(..., n, d) turned by rotary positions 0 to n - 1, of base 10000 on split halves."""
    length, width = x.shape[-2:]
    places = torch.arange(0, width, 2, device=x.device)
    angles = torch.outer(torch.arange(length, device=x.device), 10000.0 ** (-places / width)).repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    other = torch.cat([-second, first], dim=-1)
    return x * angles.cos().to(x.dtype) + other * angles.sin().to(x.dtype)


class CrossModel(nn.Module):
    """Layers of ``Looking`` and ``Thinking``."""

    def __init__(self, layers: int, **sizes: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([Looking(**sizes), Thinking(**sizes)]) for _ in range(layers)
        )

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """(P, n, dim), see ``Looking``."""
        for layer in self.layers:
            looking, thinking = layer.children()
            x = x + looking(x, text, mask)
            x = x + thinking(x)
        return x


def cross_model(tensors: dict[str, Tensor], origin: Path) -> CrossModel:
    """The cross module of a checkpoint's tensors, whose shapes tell its sizes. Raises WrongWeights."""
    named = {key.replace(".fn.", "."): value for key, value in tensors.items()}
    try:
        dim_head = named["layers.0.0.to_kv.weight"].shape[0] // 2
        queries, dim = named["layers.0.0.to_q.weight"].shape
        inner = named["layers.0.0.ff.2.weight"].shape[1]
    except KeyError as error:
        raise WrongWeights(f"{origin} has no cross module: {error} is missing") from None
    layers = len({key.split(".")[1] for key in named})
    made = build(
        lambda: CrossModel(layers, dim=dim, heads=queries // dim_head, dim_head=dim_head, inner=inner)
    )
    return fill(made, named, origin, optional=("inv_freq",))


class MPSReward(TowerReward):
    """``model`` holds the towers, settled; ``read`` makes of a prompt what ``texts`` keeps of it, on the CPU."""

    variant = "clip_floor"

    def __init__(
        self,
        name: str,
        model: Any,
        cross: CrossModel,
        tokenizer: Any,
        condition: str,
        threshold: float,
        fingerprint: dict[str, str],
    ):
        self.name, self.model, self.cross, self.fingerprint = name, model, cross, fingerprint
        self.tokenizer, self.threshold = tokenizer, threshold
        self.size = model.config.vision_config.image_size
        self.scale = float(model.logit_scale.exp())
        weight = model.visual_projection.weight
        self.device, self.dtype = weight.device, weight.dtype
        with torch.no_grad():
            self.condition = self.tokens(condition)[1]
        self.texts = TextCache(lambda prompt: self.read(prompt).to(self.device))

    def tokens(self, text: str) -> tuple[Tensor, Tensor]:
        """Embeddings (d,) of a text and (m, d) of its tokens."""
        length = self.model.config.text_config.max_position_embeddings
        ids = token_ids(self.tokenizer, text, length, self.tokenizer.pad_token_id)
        found = self.model.text_projection(self.model.text_model(input_ids=ids).last_hidden_state)[0]
        return found[ids[0].argmax()], found

    def read(self, prompt: str) -> Tensor:
        """(m + 1, d + 1): the prompt's embedding, then its tokens'; in the last column minus infinity for those left out."""
        whole, tokens = self.tokens(prompt)
        likeness = (tokens @ self.condition.T).amax(dim=1)
        left = torch.where(likeness / likeness.max() > self.threshold, 0.0, -torch.inf)
        return torch.cat([torch.cat([whole[None], tokens]), F.pad(left, (1, 0))[:, None]], dim=1)

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        texts = self.texts(prompts)
        pixels = self.pixels(pictures, self.device, self.dtype)
        seen = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).last_hidden_state)
        found = self.cross(seen, texts[:, 1:, :-1].to(self.dtype), texts[:, 1:, -1])[:, 0]
        return self.scale * F.cosine_similarity(texts[:, 0, :-1], found.float(), dim=-1)


def load_mps(
    name: str,
    weights: Path,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    condition: str,
    threshold: float,
) -> MPSReward:
    """MPS from its safetensors and a ``folder`` with the CLIP's ``config.json`` and tokenizer. Raises WeightsError.

    ``dtype`` is that of what sees pictures.
    """
    config = clip_config(folder)
    tensors = {key.removeprefix("mps."): value for key, value in read_tensors(weights).items()}
    towers = {key.removeprefix(TOWERS): value for key, value in tensors.items() if key.startswith(TOWERS)}
    others = {key.removeprefix(CROSS): value for key, value in tensors.items() if not key.startswith(TOWERS)}
    model = fill(build(lambda: CLIPModel(config)), towers, weights, optional=("position_ids",))
    cross = cross_model(others, weights)
    settle(model, ("vision_model", "visual_projection"), torch.device(device), dtype)
    facts = {"architecture": "cross module on transformers CLIPModel", weights.name: sha256(weights)}
    tokenizer = load_tokenizer(folder)
    return MPSReward(name, model, cross.to(device, dtype), tokenizer, condition, threshold, facts)
