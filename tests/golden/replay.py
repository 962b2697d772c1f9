"""A recorded run of the released DyMO scripts (tiny random models) and our own parts set up for it.

A folder holds ``dymo/trace_*.safetensors`` with ``.json`` beside, and ``tiny/<pipeline>``.
"""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from fakes import passes
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.ddim import ddim
from align.released.objective import SignBlindObjective
from align.rewards.clip import clip_config
from align.rewards.step_aware import StepAwareReward, load_step_aware, load_step_aware_model
from align.sampling.guidance import Guidance
from align.sampling.parts import Parts
from align.sampling.recurrence import Recurrence
from align.sampling.state import Pictures, State
from align.sampling.views import centres, shift_range
from align.semantics.attention_loss import pair_weights
from align.semantics.tokens import TokenPairs

CPU = torch.device("cpu")
TESTS = Path(__file__).parent.parent
SLIM = TESTS / "golden/data"
"""Traces that come with the tests: without what follows from the rest."""


def parameters(cases, soon=()):
    """Parameters of a test of traces, (folder, name) each; those that are not named for every change are slow."""
    return [
        pytest.param(
            (folder, name),
            id=f"{'slim' if folder is SLIM else 'given'}-{name}",
            marks=() if name in soon else pytest.mark.slow,
        )
        for folder, name in cases
    ]


VIEWS = {
    "brightness": "brightness_u",
    "saturation": "saturation_u",
    "contrast": "contrast_u",
    "row": "translation_rows",
    "column": "translation_cols",
    "resize": "resize_u",
    "cut_row": "cutout_row",
    "cut_column": "cutout_col",
}


def traces(folder):
    """Names of the traces in a folder."""
    return sorted(path.stem for path in (folder / "dymo").glob("trace_*.safetensors"))


def far(ours, recorded):
    """Largest difference over the largest magnitude of what was recorded."""
    ours, recorded = torch.as_tensor(ours), torch.as_tensor(recorded)
    return float((ours - recorded).abs().max() / recorded.abs().max())


def tiny_backbone(folder, height, width, attention_stride=None, guidance="pair"):
    """A tiny pipeline without its text encoders: embeddings are recorded."""
    modules = Modules(
        network=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text=(),
        zero_empty=True,
        scheduler_config=dict(DDIMScheduler.from_pretrained(folder / "scheduler").config),
        device=CPU,
    )
    return UNetBackbone(modules, height, width, attention_stride=attention_stride, guidance=guidance)


class Recorded:
    """A trace's draws in place of a noise stream."""

    def __init__(self, tensors, height, width):
        self.tensors = tensors
        self.sides = {"row": height, "column": width}

    def normal(self, purpose, step, round, shape):
        if purpose == "initial":
            return self.tensors["init/latents"][0]
        name = {"step": "variance_noise", "renoise": "renoise_noise"}[purpose]
        guided, plain = f"s{step:02d}/k{round:02d}/{name}", f"s{step:02d}/plain/{name}"
        return self.tensors[guided if guided in self.tensors else plain][0]

    def uniform(self, purpose, step, round, shape):
        drawn = self.tensors[f"s{step:02d}/k{round:02d}/aug/{VIEWS[purpose]}"].double()
        if purpose in ("row", "column"):  # The middle of the uniform numbers that give the recorded integer.
            shift = shift_range(self.sides[purpose])
            drawn = (drawn + shift + 0.5) / (2 * shift + 1)
        elif purpose.startswith("cut"):
            drawn = (drawn + 0.5) / centres(self.sides[purpose.removeprefix("cut_")])
        assert drawn.shape == shape
        return drawn


class Trace:
    """A recorded run by folder and name."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.tensors = load_file(folder / f"dymo/{name}.safetensors")
        self.facts = json.loads((folder / f"dymo/{name}.json").read_text())
        settings = self.facts["settings"]
        self.height, self.width = settings["height"], settings["width"]
        self.number = settings.get("num_timesteps") or settings["num_inference_steps"]
        self.scale = settings["cfg_scale"]
        self.prompt = self.facts["prompt_used"]
        self.xl = self.facts["backbone"] == "sdxl"
        self.draws = Recorded(self.tensors, self.height, self.width)

    @cached_property
    def backbone(self):
        folder = self.folder / "tiny" / self.facts["pipeline"]
        factor = 2 ** (len(AutoencoderKL.load_config(folder / "vae")["block_out_channels"]) - 1)
        stride = self.height // factor // self.facts["attention_resolution"][0]
        backbone = tiny_backbone(folder, self.height, self.width, stride)
        with torch.no_grad():
            for name, parameter in backbone.unet.named_parameters():
                if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                    parameter *= self.facts["attn_gain"]
        return backbone

    @cached_property
    def reward(self):
        whole = self.folder / "dymo/spm_tiny"
        if whole.is_dir():
            return load_step_aware(
                "spm_tiny", whole, self.folder / "tiny/tiny-sd/tokenizer", weights=whole / "spm.safetensors"
            )
        # Of the text tower the slim copy has only what it made of this prompt.
        slim = TESTS / "rewards/data/spm_tiny"
        config = clip_config(slim)
        model = load_step_aware_model(config, slim / "model.safetensors")
        embedding = self.tensors["init/preference_text"][0]
        return StepAwareReward(
            "spm_tiny",
            model,
            model.see,
            lambda prompt: embedding,
            float(model.logit_scale.exp()),
            config.vision_config.image_size,
            "spo",
            torch.float32,
            CPU,
            {},
        )

    @cached_property
    def process(self):
        return ddim(self.backbone.scheduler_config, self.number, self.facts["eta"])

    @cached_property
    def objective(self):
        """Phases by the fraction between the recorded steps' timesteps."""
        steps, settings = self.facts["steps"], self.facts["settings"]
        first, second = ((steps[settings[name] - 1]["t"] - 0.5) / 1000 for name in ("time1", "time2"))
        return SignBlindObjective(
            preference=1,
            semantic=50 if self.xl else 10,
            semantic_until=first,
            both_until=second,
            preference_until=(steps[-4]["t"] + 0.5) / 1000 if self.xl else 0,
            copies=self.facts["n_replicas"],
        )

    @cached_property
    def parts(self):
        strength = self.facts["settings"]["opt_stength"]  # the scripts' spelling
        coefficient = (
            (0.2 * self.scale, 0.2 * self.scale, 0.6 * self.scale) if self.xl else (0.2 * self.scale, 1, 1)
        )
        rate = (0.5, 0.5, 1.5) if self.xl else (1.0, 1.0, 3.0)
        rescale = self.facts["settings"].get("cfg_rescale", 0.0)
        return Parts(
            *passes(self.backbone, self.scale, 1, self.objective, self.reward, rescale=rescale),
            self.process,
            Guidance(strength, coefficient),
            Recurrence("gradient_norm", rate=rate, cap=1000),
        )

    @cached_property
    def pictures(self):
        embeddings = self.tensors["init/prompt_embeds"]
        pooled = self.tensors.get("init/add_text_embeds", torch.zeros(2, 0))
        size = self.tensors.get("init/add_time_ids")
        pairs = TokenPairs(
            *(
                tuple((one, two) for one, two in self.facts[name])
                for name in ("positive_pairs", "negative_pairs")
            )
        )
        return Pictures(
            [self.prompt],
            Conditioning(
                embeddings[1:],
                embeddings[:1],
                pooled[1:] if self.xl else None,
                pooled[:1] if self.xl else None,
                size[:1] if self.xl else None,
            ),
            pair_weights([pairs], embeddings.shape[1]),
            torch.tensor([bool(pairs)]),
        )

    def recorded(self, prefix):
        """The tensors of one evaluation by their last names."""
        return {
            key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)
        }

    def state(self, latents, previous):
        """One particle with latents and the previous clean prediction, if there is one."""
        if previous is None:
            previous = torch.full_like(latents, torch.nan)
        return replace(State.of(latents, torch.zeros(1, dtype=torch.long)), previous_x0=previous)
