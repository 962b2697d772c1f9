"""Stages ``shapes_pick``, ``shapes_hps``, ``shapes_imagereward``, ``shapes_aesthetic``, ``shapes_spm``.

All start from the base CLIP (:mod:`clip`) and learn the one definition of preference from groups of four
pictures for one or two captions (:func:`draw`): rendered edits, spoiled pictures, slips, and generated ones
where there are any.  The models differ as their big counterparts do: pairs for the PickScore-like
and the BLIP, whole rankings for the HPSv2-like, one-step predictions for the step-aware one, regression for
the aesthetic one.  Every stage writes its averaged weights in half precision.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import (
    BlipTextConfig,
    BlipVisionConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from align.rewards import open_clip
from align.rewards.aesthetic import Head
from align.rewards.base import Reward
from align.rewards.imagereward import BlipRegressor, padded
from align.rewards.preprocess import normalise
from align.rewards.step_aware import StepAwareModel
from align.shapes.preferences import CONTENT_WEIGHT, MARGIN
from align.shapes.render import PICTURE
from scripts.shapes_training.clip import tokens
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.pairs import Edits, Judged, corrupt, gaussian_blur, to_float

GENERATED = 20_000
"""So many generated pictures would deserve to be all that is learned from."""
GROUP = 4
"""Pictures in a group."""
MAX_LENGTH = 24
STEPS = 1000
"""Training timesteps of the diffusion model."""
ROBUST = 1.0
"""How far pictures are moved against the model that guides; see :func:`preference_stage`."""
HEAD = (64, 16)
"""Widths of the regression heads after their input."""


@dataclass
class Pools:
    """What preferences are learned from; ``generated`` is ``None`` until there is a diffusion model."""

    edits: Edits
    spoiled: Judged
    slips: Judged
    generated: Judged | None = None


@dataclass
class Batch:
    """``n`` groups: pictures (n, 4, 3, 64, 64), n texts of k, utilities (n, k, 4), timesteps (n,)."""

    pictures: Tensor
    texts: list[list[str]]
    utilities: Tensor
    steps: Tensor


# ---------------------------------------------------------------- groups


def from_edits(data: Edits, index: np.ndarray, rng: np.random.Generator) -> Batch:
    """Both sides of a pair, each clean and mildly spoiled; utilities follow from how they were made."""
    sides = to_float(data.pictures[index].reshape(-1, PICTURE, PICTURE, 3)).view(-1, 2, 3, PICTURE, PICTURE)
    worse, levels = corrupt(sides.flatten(0, 1), rng, share=1.0, strength=0.6)
    pictures = torch.cat([sides, worse.view(sides.shape)], dim=1)
    quality = torch.cat([torch.zeros(len(index), 2), -levels.sum(1).view(-1, 2)], dim=1)
    content = torch.eye(2).repeat(1, 2)[None]
    # A wrong fact costs about a fifth of the content.
    utilities = CONTENT_WEIGHT * (0.8 + 0.2 * content) + quality[:, None]
    return Batch(
        pictures, data.captions[index].tolist(), utilities, torch.zeros(len(index), dtype=torch.int64)
    )


def from_judged(data: Judged, index: np.ndarray, rng: np.random.Generator, *, early: bool = False) -> Batch:
    """Four pictures of each group, or with ``early`` their one-step predictions at one timestep."""
    m = data.pictures.shape[1]
    chosen = np.argsort(rng.random((len(index), m)), axis=1)[:, :GROUP]
    rows = index[:, None]
    pictures = data.pictures[rows, chosen]
    steps = np.zeros(len(index), np.int64)
    if early and data.predictions is not None and data.timesteps is not None:
        at = rng.integers(len(data.timesteps), size=len(index))
        pictures = data.predictions[rows, chosen, at[:, None]]
        steps = data.timesteps[at]
    flat = to_float(pictures.reshape(-1, PICTURE, PICTURE, 3))
    captions = data.captions[index]
    if captions.shape[1] == 1:
        captions = np.repeat(captions, 2, axis=1)
    utilities = np.take_along_axis(data.utilities[index], chosen[:, None], axis=2)
    utilities = np.broadcast_to(utilities, (len(index), 2, utilities.shape[2]))
    return Batch(
        flat.view(*chosen.shape, 3, PICTURE, PICTURE),
        captions.tolist(),
        torch.from_numpy(utilities.copy()),
        torch.from_numpy(steps),
    )


def foresee(pictures: Tensor, steps: Tensor, rng: np.random.Generator) -> Tensor:
    """Make pictures look like one-step predictions: soft, mixed with the others, washed out.

    Args:
        pictures: (n, m, 3, 64, 64); the m pictures of a group are mixed with the next group's.
        steps: (n,) in 0..999.
        rng: source of randomness.
    """
    n, m = pictures.shape[:2]
    noise_level = (steps.float() / STEPS).square().view(n, 1, 1, 1, 1)
    strength = torch.from_numpy(rng.uniform(0.5, 1.2, (n, 1, 1, 1, 1)).astype(np.float32))
    share = (0.75 * noise_level * strength).clamp(max=0.9)
    mixed = (1 - share) * pictures + share * pictures.roll(1, 0).mean(dim=1, keepdim=True)
    sigma = (0.1 + 2.4 * noise_level * strength).expand(n, m, 1, 1, 1).flatten()
    soft = gaussian_blur(mixed.flatten(0, 1), sigma)
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    grain = F.interpolate(
        torch.randn(n * m, 3, 16, 16, generator=seed), scale_factor=4, mode="bilinear", align_corners=False
    )
    soft = soft + 0.12 * noise_level.expand(n, m, 1, 1, 1).flatten(0, 1) * grain
    return soft.clamp(0, 1).view_as(pictures)


def draw(pools: Pools, rng: np.random.Generator, n: int, *, early: bool = False) -> Batch:
    """``n`` groups from all pools.

    A fifth are rendered edits, a fifth spoiled pictures, the rest slips and generated pictures; of these as
    large a share as their number allows without being learned by heart.  A faint grain is laid over all
    pictures of a group alike, so that scores are smooth in the picture.

    Args:
        pools: where from.
        rng: source of randomness.
        n: how many groups.
        early: one-step predictions with their timesteps instead of finished pictures (a quarter stay
            finished).
    """
    made = (
        0.0 if pools.generated is None else min(0.4, pools.generated.pictures[..., 0, 0, 0].size / GENERATED)
    )
    shares = {"edits": 0.2, "spoiled": 0.2, "slips": 0.6 - made, "generated": made}
    parts = []
    bounds = np.round(n * np.cumsum([0.0, *shares.values()]) + rng.random() - 0.5).clip(0, n).astype(int)
    bounds[0], bounds[-1] = 0, n
    for kind, number in zip(shares, np.diff(bounds), strict=True):
        if number == 0:
            continue
        if kind == "edits":
            part = from_edits(pools.edits, rng.integers(len(pools.edits), size=number), rng)
        elif kind == "spoiled":
            part = from_judged(pools.spoiled, rng.integers(len(pools.spoiled), size=number), rng)
        elif kind == "slips":
            part = from_judged(pools.slips, rng.integers(len(pools.slips), size=number), rng)
        else:
            assert pools.generated is not None
            index = rng.integers(len(pools.generated), size=number)
            part = from_judged(pools.generated, index, rng, early=early)
        if early and not part.steps.any():
            part.steps = torch.from_numpy(rng.integers(0, STEPS, size=number)) * torch.from_numpy(
                (rng.random(number) < 0.75).astype(np.int64)
            )
            part.pictures = foresee(part.pictures, part.steps, rng)
        parts.append(part)
    pictures = torch.cat([part.pictures for part in parts])
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    grain = 0.05 * torch.rand(len(pictures), 1, 1, 1, 1, generator=seed).pow(3)
    pictures = pictures + grain * torch.randn(pictures.shape, generator=seed)
    return Batch(
        pictures.clamp(0, 1),
        [texts for part in parts for texts in part.texts],
        torch.cat([part.utilities for part in parts]),
        torch.cat([part.steps for part in parts]),
    )


# ---------------------------------------------------------------- losses


def pair_loss(scores: Tensor, utilities: Tensor) -> tuple[Tensor, Tensor]:
    """Two-way cross entropy of all pairs along the last axis that differ by more than the margin.

    Returns:
        The loss and the share of pairs in the right order.
    """
    difference = utilities[..., :, None] - utilities[..., None, :]
    chosen = difference > MARGIN
    gap = (scores[..., :, None] - scores[..., None, :])[chosen]
    weight = difference[chosen].clamp(max=1.0)
    return (F.softplus(-gap) * weight).sum() / weight.sum().clamp_min(1e-6), (gap > 0).float().mean()


def ranking_loss(scores: Tensor, utilities: Tensor) -> Tensor:
    """Plackett-Luce negative log-likelihood of the order of the last axis, a place."""
    order = utilities.argsort(dim=-1, descending=True)
    ranked = scores.gather(-1, order)
    rest = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return (rest - ranked)[..., :-1].mean()


Scorer = Callable[[Batch], Tensor]
"""Scores (n, k, 4) of a batch, to be compared along k and along 4."""


def preference_stage(
    name: str,
    model: nn.Module,
    scorer: Scorer,
    pools: Pools,
    budget: Budget,
    folder: Path,
    seed: int,
    *,
    rankings: bool = False,
    early: bool = False,
    learning_rate: float = 1e-3,
    groups: int = 16,
    robust: float = 0.0,
) -> nn.Module:
    """Train a model on preferences between pictures for a caption, and between captions for a picture.

    With ``robust`` every picture is first moved by up to that distance (L2 over all channel values in
    0..1) the way that raises the loss most.  A model that guidance climbs needs this: otherwise its
    gradient points to invisible patterns that raise the score of wrong pictures.  (Recolouring an object
    moves a picture by about 10.)
    """

    def forward(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        scores = scorer(batch).cpu()
        pictures, right = pair_loss(scores, batch.utilities)
        captions, captions_right = pair_loss(scores.transpose(1, 2), batch.utilities.transpose(1, 2))
        if rankings:
            pictures = ranking_loss(scores, batch.utilities)
        figures = {"right": float(right), "captions": float(captions_right)}
        return pictures + 0.5 * captions, figures

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = draw(pools, rng, groups, early=early)
        if robust:
            batch.pictures.requires_grad_(True)
            (gradient,) = torch.autograd.grad(forward(batch)[0], batch.pictures)
            worst = against(batch.pictures.detach(), gradient, rng, robust)
            batch = dataclasses.replace(batch, pictures=worst)
        return forward(batch)

    recipe = Recipe(
        learning_rate=learning_rate, budget=budget, average=0.995, weight_decay=0.02, warmup_steps=100
    )
    return train(name, model, loss, recipe, folder, seed)


def against(pictures: Tensor, gradient: Tensor, rng: np.random.Generator, distance: float) -> Tensor:
    """Pictures (n, m, 3, H, W) moved along a gradient by random L2 distances up to ``distance``, clipped.

    For half of the groups the gradient is smoothed first: decoders make smooth changes.
    """
    n, m = pictures.shape[:2]
    flat = gradient.flatten(0, 1)
    smooth = torch.from_numpy(rng.random(n) < 0.5).repeat_interleave(m)
    if smooth.any():
        flat[smooth] = gaussian_blur(flat[smooth], torch.full((int(smooth.sum()),), 1.5))
    length = flat.flatten(1).norm(dim=1).clamp_min(1e-12).view(n, m, 1, 1, 1)
    reach = torch.from_numpy((distance * rng.random((n, 1, 1, 1, 1))).astype(np.float32))
    return (pictures + reach * flat.view_as(pictures) / length).clamp(0, 1)


def grid(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Scaled cosines (n, k, m) of image embeddings (n, m, d) and text embeddings (n, k, d)."""
    return scale * F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).transpose(1, 2)


def _pixels(batch: Batch, device: torch.device) -> Tensor:
    return normalise(batch.pictures.flatten(0, 1)).to(device)


def _ids(tokenizer: CLIPTokenizer, batch: Batch, device: torch.device) -> Tensor:
    return tokens(tokenizer, [text for texts in batch.texts for text in texts]).to(device)


# ---------------------------------------------------------------- stages


def run_pick(
    base: CLIPModel, tokenizer: CLIPTokenizer, pools: Pools, budget: Budget, folder: Path, seed: int
) -> CLIPModel:
    """The PickScore-like model: the base CLIP tuned on pairs."""
    model = copy.deepcopy(base).requires_grad_(True)

    def scorer(batch: Batch) -> Tensor:
        n = len(batch.texts)
        image = model.visual_projection(
            model.vision_model(pixel_values=_pixels(batch, base.device)).pooler_output
        )
        text = model.text_projection(
            model.text_model(input_ids=_ids(tokenizer, batch, base.device)).pooler_output
        )
        return grid(image.view(n, GROUP, -1), text.view(n, 2, -1), model.logit_scale.exp())

    tuned = preference_stage("shapes_pick", model, scorer, pools, budget, folder, seed)
    assert isinstance(tuned, CLIPModel)
    return tuned


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
    model.load_state_dict(open_clip.from_transformers(base.state_dict(), layers))
    return model.to(base.device)


def run_hps(
    base: CLIPModel, tokenizer: CLIPTokenizer, pools: Pools, budget: Budget, folder: Path, seed: int
) -> nn.Module:
    """The HPSv2-like model: the base CLIP in open_clip's class, tuned on whole rankings."""
    model = to_open_clip(base)

    def scorer(batch: Batch) -> Tensor:
        n = len(batch.texts)
        ids = _ids(tokenizer, batch, base.device)
        ids = F.pad(ids, (0, MAX_LENGTH - ids.shape[1]))
        image = model.encode_image(_pixels(batch, base.device))  # type: ignore[operator]
        text = model.encode_text(ids)  # type: ignore[operator]
        return grid(image.view(n, GROUP, -1), text.view(n, 2, -1), model.logit_scale.exp())  # type: ignore[operator]

    return preference_stage("shapes_hps", model, scorer, pools, budget, folder, seed, rankings=True)


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


def run_imagereward(
    base: CLIPModel, tokenizer: CLIPTokenizer, pools: Pools, budget: Budget, folder: Path, seed: int
) -> BlipRegressor:
    """The ImageReward-like model: text looks at the picture; trained on pairs, standardised afterwards."""
    torch.manual_seed(seed)
    model = make_blip(base, to_float(pools.edits.pictures[:32, 0]))

    def scorer(batch: Batch) -> Tensor:
        n = len(batch.texts)
        seen = model.vision_model(pixel_values=_pixels(batch, base.device)).last_hidden_state
        seen = seen.view(n, 1, GROUP, *seen.shape[1:]).expand(-1, 2, -1, -1, -1).flatten(0, 2)
        longest = max(len(tokenizer(text).input_ids) for texts in batch.texts for text in texts)
        read = torch.stack([padded(tokenizer, text, longest) for texts in batch.texts for text in texts])
        ids, mask = read.repeat_interleave(GROUP, dim=0).to(base.device).unbind(1)
        hidden = model.text_model(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen)
        return model.head(hidden.last_hidden_state[:, 0]).view(n, 2, GROUP)

    tuned = preference_stage(
        "shapes_imagereward",
        model,
        scorer,
        pools,
        budget,
        folder,
        seed,
        groups=8,
    )
    assert isinstance(tuned, BlipRegressor)
    values = []
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _ in range(20):
            batch = draw(pools, rng, 8)
            texts = [texts[0] for texts in batch.texts for _ in range(GROUP)]
            read = torch.stack([padded(tokenizer, text, MAX_LENGTH) for text in texts])
            ids, mask = read.to(base.device).unbind(1)
            values.append(tuned(_pixels(batch, base.device), ids, mask) * tuned.deviation + tuned.mean)
    tuned.mean, tuned.deviation = float(torch.cat(values).mean()), float(torch.cat(values).std())
    return tuned


def run_aesthetic(
    base: CLIPModel, pools: Pools, budget: Budget, folder: Path, seed: int
) -> tuple[CLIPVisionModelWithProjection, Head]:
    """The aesthetic predictor: a head on the unit embeddings of the base CLIP, which stays as it is."""
    tower = CLIPVisionModelWithProjection(sizes(base)[0])
    own = base.state_dict()
    tower.load_state_dict({name: own[name] for name in tower.state_dict()})
    tower.to(device=base.device).eval().requires_grad_(False)
    judged = [part for part in (pools.spoiled, pools.slips, pools.generated) if part is not None]
    pictures = np.concatenate([part.pictures.reshape(-1, PICTURE, PICTURE, 3) for part in judged])
    targets = torch.from_numpy(np.concatenate([part.aesthetics.reshape(-1) for part in judged]))
    embeddings = embed(tower, pictures)
    torch.manual_seed(seed)
    head = Head([embeddings.shape[1], *HEAD], "gelu")

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        index = torch.from_numpy(rng.integers(len(targets), size=256))
        noisy = F.normalize(embeddings[index] + 0.01 * torch.randn(256, embeddings.shape[1]), dim=-1)
        value = F.smooth_l1_loss(head(noisy), targets[index])
        return value, {}

    recipe = Recipe(learning_rate=2e-3, budget=budget, average=0.995, weight_decay=0.02)
    trained = train("shapes_aesthetic", head, loss, recipe, folder, seed)
    assert isinstance(trained, Head)
    return tower, trained


@torch.no_grad()
def embed(tower: CLIPVisionModelWithProjection, pictures: np.ndarray, size: int = 64) -> Tensor:
    """Unit embeddings (n, d) of (n, 64, 64, 3) uint8 pictures."""
    parts = [
        tower(pixel_values=normalise(to_float(pictures[k : k + size])).to(tower.device)).image_embeds.cpu()
        for k in range(0, len(pictures), size)
    ]
    return F.normalize(torch.cat(parts), dim=-1)


def run_spm(
    pick: CLIPModel, tokenizer: CLIPTokenizer, pools: Pools, budget: Budget, folder: Path, seed: int
) -> StepAwareModel:
    """The step-aware model: the PickScore-like one plus modulation, trained on one-step predictions."""
    torch.manual_seed(seed)
    model = StepAwareModel(pick.config).to(pick.device)
    model.start_modulation()
    left = model.load_state_dict(pick.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all("adaLN" in name or "t_embedder" in name for name in left.missing_keys)

    def scorer(batch: Batch) -> Tensor:
        n = len(batch.texts)
        image = model.see(_pixels(batch, pick.device), batch.steps.repeat_interleave(GROUP).to(pick.device))
        text = model.read(_ids(tokenizer, batch, pick.device))
        return grid(image.view(n, GROUP, -1), text.view(n, 2, -1), model.logit_scale.exp())

    tuned = preference_stage(
        "shapes_spm", model, scorer, pools, budget, folder, seed, early=True, robust=ROBUST
    )
    assert isinstance(tuned, StepAwareModel)
    return tuned


# ---------------------------------------------------------------- writing


def _save_half(module: nn.Module, path: Path) -> None:
    """Write a module's state in half precision, readable by everyone."""
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    path.chmod(0o644)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def export_clip(model: CLIPModel | CLIPVisionModelWithProjection, folder: Path) -> None:
    """A CLIP (or its image tower) in transformers' layout, half precision; the model is not changed."""
    copy.deepcopy(model).cpu().half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def export_open_clip(model: nn.Module, config: dict[str, object], folder: Path) -> None:
    """An open_clip model in open_clip's layout, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    from align.rewards.preprocess import CLIP_MEAN, CLIP_STD

    _write(
        folder / open_clip.CONFIG,
        {"model_cfg": config, "preprocess_cfg": {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}},
    )
    _save_half(model, folder / open_clip.WEIGHTS)


def export_imagereward(model: BlipRegressor, folder: Path) -> None:
    """A BLIP regressor, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "config.json",
        {
            "vision_config": model.vision_model.config.to_diff_dict(),
            "text_config": model.text_model.config.to_diff_dict(),
            "head": list(HEAD),
            "mean": model.mean,
            "deviation": model.deviation,
            "max_length": MAX_LENGTH,
        },
    )
    _save_half(model, folder / "model.safetensors")


def export_aesthetic(tower: CLIPVisionModelWithProjection, head: Head, folder: Path) -> None:
    """An aesthetic predictor, half precision."""
    export_clip(tower, folder)
    widths = [layer.in_features for layer in head.layers]
    _write(folder / "head.json", {"widths": widths, "activation": head.activation})
    _save_half(head, folder / "head.safetensors")


def export_spm(model: StepAwareModel, folder: Path) -> None:
    """A step-aware model under the released checkpoints' names, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    _save_half(model, folder / "model.safetensors")


# ---------------------------------------------------------------- measuring


@torch.no_grad()
def score_all(
    reward: Reward, pictures: np.ndarray, texts: Sequence[str], step: int | None = None, size: int = 64
) -> np.ndarray:
    """Scores (n,) of (n, 64, 64, 3) uint8 pictures for n texts, all at one timestep."""
    parts = []
    for k in range(0, len(pictures), size):
        part = to_float(pictures[k : k + size])
        steps = None if step is None else torch.full((len(part),), step)
        parts.append(reward.score(part, list(texts[k : k + size]), steps).cpu())
    return torch.cat(parts).numpy()


def pair_accuracy(scores: np.ndarray, utilities: np.ndarray, margin: float = MARGIN) -> tuple[float, int]:
    """Share of right orders among pairs within groups, (n, m) each, that differ by more than ``margin``.

    Returns:
        The share and the number of pairs; a score tie counts half.
    """
    difference = utilities[:, :, None] - utilities[:, None, :]
    gap = (scores[:, :, None] - scores[:, None, :])[difference > margin]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean()) if gap.size else float("nan"), int(gap.size)


def evaluate(rewards: dict[str, Reward], data: Judged) -> dict[str, float]:
    """How well rewards follow the definition of preference on pictures of held-out prompts.

    Args:
        rewards: loaded rewards by name.
        data: judged groups, of which the first caption counts (``generated("test", ...)``).

    Returns:
        ``<name>``: pair accuracy of each reward on finished pictures (Spearman's correlation with
        :func:`align.shapes.preferences.aesthetic` for ``shapes_aesthetic``); ``<name>@<timestep>``: pair
        accuracy on one-step predictions for ``shapes_pick`` and ``shapes_spm``; ``pairs``: number of pairs.
    """
    n, m = data.pictures.shape[:2]
    texts = [str(text) for text in np.repeat(data.captions[:, 0], m)]
    flat = data.pictures.reshape(-1, PICTURE, PICTURE, 3)
    utilities = data.utilities[:, 0]
    found: dict[str, float] = {}
    for name, reward in rewards.items():
        scores = score_all(reward, flat, texts)
        if name == "shapes_aesthetic":
            found[name] = float(spearmanr(scores, data.aesthetics.reshape(-1)).statistic)
            continue
        found[name], pairs = pair_accuracy(scores.reshape(n, m), utilities)
        found["pairs"] = pairs
        if data.predictions is None or data.timesteps is None or name not in ("shapes_pick", "shapes_spm"):
            continue
        for k, step in enumerate(data.timesteps):
            early = data.predictions[:, :, k].reshape(-1, PICTURE, PICTURE, 3)
            scores = score_all(reward, early, texts, int(step))
            found[f"{name}@{int(step)}"] = pair_accuracy(scores.reshape(n, m), utilities)[0]
    return found
