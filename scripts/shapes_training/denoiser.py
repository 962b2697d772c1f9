"""Stage ``denoiser``: the CLIP text encoder and the cross-attention UNet, trained together.

The target is v-prediction.  Beside it the cross-attention maps are taught where
each phrase's objects are (token-level supervision as in TokenCompose, CVPR 2024): in every cell the
probability mass on a phrase's words should be the share of the cell that its objects cover.  At high noise
that is the layout's posterior, at low noise a segmentation; it is what makes words bind to objects within an hour
on one core, and what gives the maps a meaning that a semantic objective can use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from align.backbones.attention import Recorder, cross_attention_layers
from align.shapes.grammar import Caption
from scripts.shapes_training.data import MASK_SIDE
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.tokenizer import MAX_LENGTH

WIDTH = 128
BATCH = 16
TIME_SPREAD = 1.3
DROP_CAPTION = 0.1
ATTENTION_WEIGHT = 0.1
OBJECT_WEIGHT = 2.0
CERTAIN = 400
"""Below this timestep the places of objects are certain, and cells that they cover weigh more in the loss."""
CPU = torch.device("cpu")


def scheduler() -> DDIMScheduler:
    """The noise schedule: Stable Diffusion's, but ending nearer to pure noise, with v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


class Denoiser(nn.Module):
    """Text encoder and UNet as one trainable module."""

    def __init__(self, vocabulary: int, latent_channels: int) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=MAX_LENGTH,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
                pad_token_id=vocabulary - 1,
                projection_dim=WIDTH,
                # Words must not lean on the company they were seen in: pairs at test time are new.
                attention_dropout=0.2,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=(WIDTH, WIDTH),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=16,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        )
        self.unet.to(memory_format=torch.channels_last)


def teach(unet: UNet2DConditionModel) -> list[Tensor]:
    """Make every cross-attention layer record its maps; returns the list that they are appended to."""
    maps: list[Tensor] = []
    for layers in cross_attention_layers(unet).values():
        for layer in layers:
            layer.set_processor(Recorder(maps.append))
    return maps


@dataclass
class Words:
    """Captions as the models read them.

    Attributes:
        ids: (n, 24) token ids.
        phrases: (n, 3, 24) float, 1 where a token is the size, colour or shape word of a phrase.
    """

    ids: Tensor
    phrases: Tensor


def words(captions: list[Caption], tokenizer: CLIPTokenizer) -> Words:
    """Token ids, and which tokens describe which phrase."""
    ids = torch.tensor(
        tokenizer([c.text() for c in captions], padding="max_length", truncation=True, max_length=MAX_LENGTH)[
            "input_ids"
        ]
    )
    phrases = torch.zeros(len(captions), 3, MAX_LENGTH)
    for n, caption in enumerate(captions):
        position = 1  # after the start token; every word of the grammar is one token
        for k, phrase in enumerate(caption.phrases):
            if k:
                position += len(str(caption.relation if k == 1 else "and").split())
            length = len(phrase.text().split())
            phrases[n, k, position + 1 : position + length] = 1
            position += length
    return Words(ids, phrases)


def attention_loss(maps: list[Tensor], phrases: Tensor, regions: Tensor) -> Tensor:
    """Cross entropy between where words look and where their objects are.

    Args:
        maps: per layer (b, cells, tokens), rows summing to 1.
        phrases: (b, 3, tokens), 1 for the words of each phrase.
        regions: (b, 3, 8, 8), area share of each phrase's objects in each cell, 0 to 1.

    Returns:
        Scalar mean over layers, pictures and cells.  Within a phrase the words share alike.
    """
    number = phrases.sum(dim=-1).clamp(min=1)
    total = torch.zeros((), device=phrases.device)
    for probabilities in maps:
        side = int(probabilities.shape[1] ** 0.5)
        share = nn.functional.adaptive_avg_pool2d(regions, side).flatten(2)  # (b, 3, cells)
        rest = (1 - share.sum(dim=1)).clamp(min=0)
        # Mean log-probability of a phrase's words, plus log(number): equals log(mass) when shared alike.
        logs = (probabilities + 1e-6).log()
        inside = torch.einsum("bpt,bct->bpc", phrases, logs) / number[..., None] + number.log()[..., None]
        mass = torch.einsum("bpt,bct->bc", phrases, probabilities)
        outside = (1 - mass).clamp(min=1e-6).log()
        total = total - ((share * inside).sum(dim=1) + rest * outside).mean()
    return total / len(maps)


def run(
    latents: Tensor,
    captions: list[Caption],
    regions: np.ndarray,
    tokenizer: CLIPTokenizer,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device = CPU,
    *,
    start: Denoiser | None = None,
    stage: str = "denoiser",
    learning_rate: float = 8e-4,
) -> Denoiser:
    """Train on scaled latents (n, c, 8, 8) and return the averaged model.

    Args:
        latents: posterior means times ``scaling_factor``.
        captions: their captions.
        regions: (n, 3, 8, 8) area shares of the phrases' objects.
        tokenizer: of the text encoder.
        budget, folder, seed: see ``scripts.shapes_training.loop``.
        device: where to train.
        start: a trained model to go on from; ``None`` for a new one.
        stage: name of the training state.
        learning_rate: at the top of the cosine.
    """
    assert regions.shape[-1] == MASK_SIDE
    torch.manual_seed(seed)
    model = (start or Denoiser(len(tokenizer), latents.shape[1])).to(device)
    maps = teach(model.unet)
    read = words(captions, tokenizer)
    all_ids, all_phrases = read.ids.to(device), read.phrases.to(device)
    empty = torch.tensor(tokenizer([""], padding="max_length", max_length=MAX_LENGTH)["input_ids"]).to(device)
    places = torch.from_numpy(regions).float().to(device)
    latents = latents.to(device)
    alphas = scheduler().alphas_cumprod.to(device)

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        index = torch.from_numpy(rng.integers(len(captions), size=BATCH)).to(device)
        dropped = torch.from_numpy(rng.random(BATCH) < DROP_CAPTION).to(device)
        ids = torch.where(dropped[:, None], empty, all_ids[index])
        # Logit-normal, stratified over the batch: neither nearly clean nor nearly pure noise teaches much.
        u = torch.from_numpy((rng.permutation(BATCH) + rng.random(BATCH)) / BATCH).float()
        t = (1000 * torch.sigmoid(TIME_SPREAD * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))).long()
        t = t.clamp(max=999).to(device)
        clean = latents[index]
        noise = torch.randn_like(clean)
        alpha = alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        states = model.text_encoder(ids)[0]
        maps.clear()
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        v = model.unet(noisy, t, states, return_dict=False)[0]
        # Objects are a small part of a picture and all that matters in it.  Only where noise has left no doubt
        # about their places: weighted by what cannot be known, the best prediction would be another one.
        there = places[index].sum(dim=1, keepdim=True).clamp(max=1) * (t < CERTAIN).view(-1, 1, 1, 1)
        weight = 1 + OBJECT_WEIGHT * there
        error = (weight * (v - target).square()).sum(dim=(1, 2, 3)) / (weight.sum(dim=(1, 2, 3)) * v.shape[1])
        kept = (~dropped).float()
        taught = attention_loss(
            maps, all_phrases[index] * kept[:, None, None], places[index] * kept[:, None, None, None]
        )
        value = error.mean() + ATTENTION_WEIGHT * taught
        return value, {"v": float(error.mean().detach()), "attention": float(taught.detach())}

    recipe = Recipe(
        learning_rate=learning_rate, budget=budget, average=0.999, weight_decay=0.01, warmup_steps=200
    )
    averaged = train(stage, model, loss, recipe, folder, seed)
    assert isinstance(averaged, Denoiser)
    return averaged


def restore(folder: Path, vocabulary: int, latent_channels: int, stage: str = "denoiser") -> Denoiser:
    """The averaged model of a finished (or running) stage."""
    model = Denoiser(vocabulary, latent_channels)
    state = torch.load(folder / f"{stage}.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["averaged"])
    return model


def shipped(weights: Path, vocabulary: int, latent_channels: int) -> Denoiser:
    """The exported model, to go on from."""
    model = Denoiser(vocabulary, latent_channels)
    model.text_encoder.load_state_dict(
        CLIPTextModel.from_pretrained(weights / "text_encoder").float().state_dict()
    )
    model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(weights / "unet").float().state_dict())
    return model
