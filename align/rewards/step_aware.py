"""The step-aware preference model of SPO (arXiv 2406.04314), with which DyMO guides.

A CLIP whose image tower is modulated by the diffusion timestep through adaptive layer norm, so that it can
judge one-step predictions of any noise level.  With ``tau`` the timestep's embedding, each layer does::

    shift1, scale1, gate1, shift2, scale2, gate2 = Linear(SiLU(tau))
    h = h + gate1 * Attention(LN1(h) * (1 + scale1) + shift1)
    h = h + gate2 * MLP(LN2(h) * (1 + scale2) + shift2)

and the class token is read out as ``LN(h) * (1 + scale) + shift`` before the projection.  Names of the
parameters are those of the released checkpoints (without their prefix ``model.``), sizes come from the
config, so the released ViT-H/14 and the toy one are the same class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from transformers import CLIPTextModel
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, CLIPVisionEmbeddings

from align.checkpoints.weight_files import build, existing, fill, sha256
from align.rewards.clip import ContrastiveReward, clip_config, load_tokenizer, settle, token_ids
from align.rewards.pickles import read_weights

FREQUENCIES = 256
"""Length of the sinusoidal timestep embedding."""


class TimestepEmbedder(nn.Module):
    """Timesteps (P,) to embeddings (P, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, step: Tensor) -> Tensor:
        waves = get_timestep_embedding(step, FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out


def _modulation(width: int, parts: int) -> nn.Sequential:
    """SiLU and the linear map to ``parts`` vectors; the linear map is number 1, as in the checkpoints."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class Layer(nn.Module):
    """One transformer layer with shift, scale and gate from the timestep."""

    def __init__(self, config: Any):
        super().__init__()
        width = config.hidden_size
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens: Tensor, tau: Tensor) -> Tensor:
        """Tokens (P, n, width) and timestep embeddings (P, width) to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(tau)[:, None].chunk(6, dim=-1)
        tokens = tokens + gate1 * self.self_attn(self.layer_norm1(tokens) * (1 + scale1) + shift1)[0]
        out: Tensor = tokens + gate2 * self.mlp(self.layer_norm2(tokens) * (1 + scale2) + shift2)
        return out


class StepAwareVisionModel(nn.Module):
    """CLIP's image tower under adaptive layer norm; ``config`` is a CLIPVisionConfig."""

    def __init__(self, config: Any):
        super().__init__()
        self.embeddings = CLIPVisionEmbeddings(config)
        # The name is misspelt in CLIP, and so in every checkpoint.
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.adaLN_modulation = _modulation(config.hidden_size, 2)

    def forward(self, pixels: Tensor, tau: Tensor) -> Tensor:
        """Pixels (P, 3, size, size) and timestep embeddings (P, width) to pooled tokens (P, width)."""
        tokens = self.pre_layrnorm(self.embeddings(pixels))
        for layer in self.encoder["layers"].children():
            tokens = layer(tokens, tau)
        shift, scale = self.adaLN_modulation(tau).chunk(2, dim=-1)
        out: Tensor = self.post_layernorm(tokens[:, 0]) * (1 + scale) + shift
        return out


class StepAwareModel(nn.Module):
    """Both towers, projections and the scale, under the checkpoints' names; ``config`` is a CLIPConfig."""

    SEEING = ("vision_model", "visual_projection", "t_embedder")
    """The parts that see pictures."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.text_model = CLIPTextModel._from_config(config.text_config)
        config.vision_config._attn_implementation = "sdpa"
        self.vision_model = StepAwareVisionModel(config.vision_config)
        self.visual_projection = nn.Linear(
            config.vision_config.hidden_size, config.projection_dim, bias=False
        )
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.t_embedder = TimestepEmbedder(config.vision_config.hidden_size)

    def see(self, pixels: Tensor, step: Tensor | None) -> Tensor:
        """Normalised pixels (P, 3, size, size) and timesteps (P,), which it needs, to image embeddings (P, projection)."""
        assert step is not None
        out: Tensor = self.visual_projection(self.vision_model(pixels, self.t_embedder(step)))
        return out

    def read(self, ids: Tensor) -> Tensor:
        """Token ids (n, length) to text embeddings (n, projection)."""
        out: Tensor = self.text_projection(self.text_model(input_ids=ids).pooler_output)
        return out


class StepAwareReward(ContrastiveReward):
    """exp(logit_scale) times the cosine at a timestep (0 for finished pictures)."""

    takes_timestep = True

    def image_embeddings(self, pictures: Tensor, step: Tensor | None = None) -> Tensor:
        """Unit image embeddings (P, d) float32."""
        if step is None:
            step = torch.zeros(len(pictures), dtype=torch.int64)
        return super().image_embeddings(pictures, step.to(self.device))


def load_step_aware(
    name: str,
    folder: Path,
    tokenizer_folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    weights: Path | None = None,
) -> StepAwareReward:
    """A step-aware preference model from a folder.

    It has ``config.json`` (a CLIP's, for the released models PickScore's) and, unless they are elsewhere, the tokenizer
    and the weights as ``model.safetensors``; a pickle will do.  ``dtype`` is the image tower's. Raises MissingWeights,
    WrongWeights.
    """
    config = clip_config(folder)
    tokenizer = load_tokenizer(tokenizer_folder or folder)
    path = existing(weights or folder / "model.safetensors")
    model, device = load_step_aware_model(config, path), torch.device(device)
    settle(model, StepAwareModel.SEEING, device, dtype)
    length = config.text_config.max_position_embeddings

    def read(prompt: str) -> Tensor:
        return model.read(token_ids(tokenizer, prompt, length))[0]

    scale, size = float(model.logit_scale.float().exp()), config.vision_config.image_size
    facts = {"architecture": "step-aware CLIP", path.name: sha256(path), "preprocess": "spo"}
    return StepAwareReward(name, model, model.see, read, scale, size, "spo", dtype, device, facts)


def load_step_aware_model(config: Any, path: Path) -> StepAwareModel:
    """The bare model with the weights of a file (safetensors or a pickle), float32, strictly checked."""
    tensors = read_weights(path)
    if all(key.startswith("model.") for key in tensors):
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    return fill(build(lambda: StepAwareModel(config)), tensors, path, optional=("position_ids",))
