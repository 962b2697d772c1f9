"""Plans of Diffusion-DPO, Diffusion-KTO, AlignProp and the step-aware preference model to their parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from align.checkpoints.needed import joint_fingerprint
from align.config.errors import ConfigError
from align.rewards.clip import load_tokenizer, token_ids
from align.rewards.step_aware import StepAwareModel
from align.runner.build import assemble, build_reward, load_reward
from align.runner.plan import identity
from align.sampling.batching import Calls
from align.sampling.sampler import Sampler
from align.semantics.sources import no_pairs
from align.store.manifest import digest
from align.training import labels
from align.training.alignprop import AlignProp
from align.training.course import Course, held_out, policy_of
from align.training.dpo import Dpo
from align.training.encoding import encoder
from align.training.kto import Kto
from align.training.noised import Errors
from align.training.pairs import Label, Pairs, load, make
from align.training.picture_pairs import PicturePairs
from align.training.plan import Plan
from align.training.policy import Policy
from align.training.ranks import Ranks
from align.training.rounds import Rounds
from align.training.spm import Looks, PairAccuracy, Saved, Spm, from_clip


def dpo(plan: Plan, device: torch.device) -> Course:
    """Diffusion-DPO."""
    options, policy = plan.training.dpo, policy_of(plan, device)
    data = pairs_of(plan, policy)
    places = Rounds(range(len(data)), plan.training.each, plan.config.seed)
    lesson = Dpo(data, places, Errors(policy, plan.config.seed, plan.training.pairs.empty), options.beta)
    told = _cost(
        plan, data, "2 pictures, of which each is 2 network evaluations, one of them with its backward pass"
    )
    return Course(lesson, policy.lora, held_out(plan, policy.backbone, device), places.of_epoch, told)


def kto(plan: Plan, device: torch.device) -> Course:
    """Diffusion-KTO."""
    options, policy = plan.training.kto, policy_of(plan, device)
    data = pairs_of(plan, policy)
    places = Rounds(range(len(data)), plan.training.each, plan.config.seed)
    errors = Errors(policy, plan.config.seed, plan.training.pairs.empty)
    lesson = Kto(data, places, errors, options.beta, options.liked, options.utility)
    told = _cost(plan, data, "1 of its pictures, 3 network evaluations, one of them with its backward pass")
    return Course(lesson, policy.lora, held_out(plan, policy.backbone, device), places.of_epoch, told)


def alignprop(plan: Plan, device: torch.device) -> Course:
    """AlignProp."""
    options, policy, config = plan.training.alignprop, policy_of(plan, device), plan.config
    reward = build_reward(config.reward, device)
    sampler = assemble(config, policy.backbone, reward, no_pairs, Calls(policy.most), device)
    assert isinstance(sampler, Sampler)
    steps = config.sampler.steps
    last = (min(options.least, steps), min(options.most or steps, steps))
    prompts = Rounds(plan.prompts, plan.training.each, config.seed)
    lesson = AlignProp(sampler, prompts, last, config.seed)
    told = [
        f"a picture costs {steps} guided network evaluations, of which {last[0]} to {last[1]} are made once more and walked back, "
        f"and one of decoder and reward with their backward passes; an epoch has {len(plan.prompts)}"
    ]
    return Course(lesson, policy.lora, held_out(plan, policy.backbone, device), prompts.of_epoch, told)


def spm(plan: Plan, device: torch.device) -> Course:
    """The step-aware preference model, which begins as the CLIP that ``reward`` names. Raises WeightsError."""
    config, seed = plan.config, plan.config.seed
    name = next(iter(config.reward.terms))
    clip: Any = load_reward(name, device)
    if len(config.reward.terms) > 1 or not isinstance(getattr(clip, "model", None), CLIPModel):
        raise ConfigError(
            f"reward={config.reward.name} is no CLIP, which the step-aware model begins as: give shapes_pick or pickscore"
        )
    policy = policy_of(plan, device)  # whose updates stay zero
    data = pairs_of(plan, policy)
    held = [number for number in range(len(data)) if number % 10 == 9][: plan.training.examine.number]
    learned = sorted(set(range(len(data))) - set(held))
    places = Rounds(learned, plan.training.each, seed)
    folders = [path.parent for one in plan.files.reward(name) for path in one.paths] + [
        path for one in plan.files.reward(name) for path in one.paths
    ]
    folder = next(
        one for one in folders if (one / "tokenizer.json").is_file() or (one / "vocab.json").is_file()
    )
    tokenizer, shape = load_tokenizer(folder), clip.model.config
    model = from_clip(clip.model.state_dict(), StepAwareModel(shape), seed).to(device)
    length = shape.text_config.max_position_embeddings
    looks = Looks(policy.backbone, policy.guider, policy.conditioning, device)
    lesson = Spm(
        data,
        places,
        looks,
        model,
        lambda prompt: token_ids(tokenizer, prompt, length)[0],
        shape.vision_config.image_size,
        seed,
    )
    beside = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name.startswith(("token", "vocab", "merges"))
    }
    told = _cost(
        plan, data, "2 pictures, each a guided network evaluation and a decoding, and the model's own passes"
    )
    return Course(lesson, Saved(model, beside), PairAccuracy(lesson, held), places.of_epoch, told)


def _cost(plan: Plan, data: Pairs, each: str) -> list[str]:
    return [f"{len(data)} pairs from {place_of(plan)}; of each an epoch looks at {each}"]


def place_of(plan: Plan) -> Path:
    """Where the pairs are, or will be."""
    config, path = plan.config, plan.training.pairs.path
    return Path(path or f"{config.run.root}/pairs-{config.backbone.name}-seed{config.seed}")


def pairs_of(plan: Plan, policy: Policy) -> Pairs:
    """The pairs of a plan: a data set, or drawn and labelled first. Raises ConfigError."""
    options, config, path = plan.training.pairs, plan.config, place_of(plan)
    if options.labels == "data":
        return PicturePairs(path, encoder(policy.backbone, config.backbone.height, config.backbone.width))
    margin, label = _label(plan, policy.device)
    sampler = assemble(config, policy.backbone, None, no_pairs, Calls(policy.most), policy.device)
    assert isinstance(sampler, Sampler)
    with policy.lora.off():
        make(
            path,
            plan.prompts,
            sampler,
            label,
            options.each,
            config.seed,
            _stamp(plan),
            Ranks.here(policy.device),
        )
    return load(path, len(plan.prompts), margin)


def _label(plan: Plan, device: torch.device) -> tuple[float, Label]:
    """Who labels, and by how much two pictures have to differ."""
    options = plan.training.pairs
    if options.labels == "world":
        return max(options.margin, labels.WORLD_MARGIN), labels.world
    return options.margin, labels.by(build_reward(plan.config.reward, device))


def _stamp(plan: Plan) -> str:
    """What drawn pairs depend on, their prompts aside."""
    options, files, config = plan.training.pairs, plan.files, plan.config
    followed = config.reward.terms if plan.training.follows_reward else ()
    rewards = {name: files.reward_fingerprint(name) for name in followed}
    what = identity(replace(config, training=None), joint_fingerprint(files.backbone), rewards)
    return digest({"pictures": what, "seed": config.seed, "labels": options.labels})
