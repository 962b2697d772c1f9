"""Stages ``shapes_pick``, ``shapes_hps``, ``shapes_imagereward``, ``shapes_aesthetic``, ``shapes_spm``.

All start from the base CLIP (``clip``) and learn the one definition of preference from groups of four
pictures for two captions (``groups``).  The models differ as their big counterparts do: pairs for the PickScore-like
and the BLIP, whole rankings for the HPSv2-like, one-step predictions for the step-aware one, regression for
the aesthetic one.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection

from align.rewards.aesthetic import Head
from align.rewards.imagereward import BlipRegressor, padded
from align.rewards.preprocess import normalise
from align.rewards.step_aware import StepAwareModel
from scripts.shapes_training.clip import tokens
from scripts.shapes_training.groups import GROUP, Batch, Pools, draw
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.preference import preference_stage
from scripts.shapes_training.shown import moved
from scripts.shapes_training.spoil import to_float
from scripts.shapes_training.tokenizer import MAX_LENGTH
from scripts.shapes_training.towers import HEAD, make_blip, sizes, start_modulation, to_open_clip


def grid(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Scaled cosines (n, k, m) of image embeddings (n, m, d) and text embeddings (n, k, d)."""
    return scale * F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).transpose(1, 2)


def _pixels(batch: Batch, device: torch.device) -> Tensor:
    return normalise(batch.pictures.flatten(0, 1)).to(device)


def _ids(tokenizer: CLIPTokenizer, batch: Batch, device: torch.device) -> Tensor:
    return tokens(tokenizer, [text for texts in batch.texts for text in texts]).to(device)


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
        scores: Tensor = model.head(hidden.last_hidden_state[:, 0]).view(n, 2, GROUP)
        return scores

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


def run_spm(
    pick: CLIPModel, tokenizer: CLIPTokenizer, pools: Pools, budget: Budget, folder: Path, seed: int
) -> StepAwareModel:
    """The step-aware model: the PickScore-like one plus modulation, trained on one-step predictions."""
    torch.manual_seed(seed)
    model = StepAwareModel(pick.config).to(pick.device)
    start_modulation(model)
    left = model.load_state_dict(pick.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all("adaLN" in name or "t_embedder" in name for name in left.missing_keys)

    def scorer(batch: Batch) -> Tensor:
        n = len(batch.texts)
        image = model.see(_pixels(batch, pick.device), batch.steps.repeat_interleave(GROUP).to(pick.device))
        text = model.read(_ids(tokenizer, batch, pick.device))
        return grid(image.view(n, GROUP, -1), text.view(n, 2, -1), model.logit_scale.exp())

    tuned = preference_stage("shapes_spm", model, scorer, pools, budget, folder, seed, early=True)
    assert isinstance(tuned, StepAwareModel)
    return tuned


def run_aesthetic(
    base: CLIPModel, pools: Pools, budget: Budget, folder: Path, seed: int
) -> tuple[CLIPVisionModelWithProjection, Head]:
    """The aesthetic predictor: a head on unit embeddings of the base CLIP's image tower.

    The tower is tuned along (LAION's stays as it is): a CLIP of three minutes' training has no eye for how well an
    edge is drawn.
    """
    tower = CLIPVisionModelWithProjection(sizes(base)[0])
    own = base.state_dict()
    tower.load_state_dict({name: own[name] for name in tower.state_dict()})
    torch.manual_seed(seed)
    model = nn.ModuleDict({"tower": tower, "head": Head([tower.config.projection_dim, *HEAD], "gelu")})
    model.to(base.device)

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        shown, wanted = [], []
        for part, size in ((pools.spoiled, 16), (pools.generated, 48)):
            for k, j in zip(rng.integers(len(part), size=size), rng.integers(GROUP, size=size), strict=True):
                # Neither a move nor a mirror changes how well anything is drawn.
                picture = moved(part.pictures[k, j], part.seen[k][j], rng)[0]
                shown.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
                wanted.append(part.aesthetics[k, j])
        pixels = normalise(to_float(np.stack(shown))).to(base.device)
        embedding = tower(pixel_values=pixels).image_embeds
        value = model["head"](F.normalize(embedding, dim=-1)).cpu()
        return F.smooth_l1_loss(value, torch.from_numpy(np.array(wanted, np.float32))), {}

    recipe = Recipe(learning_rate=1e-3, budget=budget, average=0.995, weight_decay=0.02, warmup_steps=100)
    trained = train("shapes_aesthetic", model, loss, recipe, folder, seed)
    assert isinstance(trained, nn.ModuleDict)
    tower, head = trained["tower"], trained["head"]
    assert isinstance(tower, CLIPVisionModelWithProjection)
    assert isinstance(head, Head)
    return tower, head
