"""What all kinds of trainings are made of: the policy, who examines it, and what a kind makes of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.backbones.base import Backbone, Conditioning
from align.runner.build import assemble, load_backbone, load_reward
from align.runner.guiders import guider_of
from align.runner.processes import process_of
from align.sampling.batching import Calls
from align.semantics.sources import no_pairs
from align.training.base import Examiner, Lesson, Trainable
from align.training.examiner import HeldOut
from align.training.lora import Lora
from align.training.plan import CHECKER, Plan
from align.training.policy import Policy


@dataclass(frozen=True)
class Course:
    """What a kind of training makes of a plan.

    Attributes:
        epoch: rounds of an epoch.
        told: what it costs, in lines for people.
    """

    lesson: Lesson[Any]
    trained: Trainable
    examiner: Examiner | None
    epoch: int
    told: Sequence[str]


def policy_of(plan: Plan, device: torch.device) -> Policy:
    """The backbone of a plan with fresh updates. Raises WeightsError."""
    config, training = plan.config, plan.training
    backbone = load_backbone(config.backbone, plan.files.pieces, device)
    lora = Lora(backbone.network, "unet", training.lora.rank, training.lora.modules, config.seed)  # type: ignore[attr-defined]

    def conditioning(prompts: Sequence[str]) -> Conditioning:
        return Conditioning.of([backbone.encode(prompt, config.negative) for prompt in prompts])

    return Policy(
        backbone,
        lora,
        process_of(config, backbone),
        guider_of(config, backbone),
        conditioning,
        device,
        config.run.batch_size or Policy.most,
    )


def held_out(plan: Plan, backbone: Backbone, device: torch.device) -> HeldOut | None:
    """Who examines pictures of the backbone. Raises WeightsError."""
    if plan.held_out is None:
        return None
    names = plan.training.examine.judges
    sampler = assemble(plan.held_out, backbone, None, no_pairs, Calls(Policy.most), device)
    judges = [load_reward(name, device) for name in names if name != CHECKER]
    return HeldOut(names, judges, sampler, plan.held_out_prompts, plan.config.seed)
