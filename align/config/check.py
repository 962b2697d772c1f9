"""Options against each other and against the registries: what no single range can say."""

from __future__ import annotations

from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.config.schema import (
    BackboneConfig,
    Config,
    MethodConfig,
    PromptsConfig,
    RewardConfig,
    SemanticsConfig,
)

DISTILLED = 50
"""Steps that published consistency models are distilled on; theirs are among them."""


def check(config: Config) -> None:
    """Refuse what cannot work. Imports no torch.

    Raises:
        ConfigError: naming the option and the mend.
    """
    _backbone(config.backbone)
    _sampler(config)
    _method(config.method)
    _reward(config.reward, config.method)
    for place, name in enumerate(config.metrics.rewards):
        _registered(f"metrics.rewards[{place}]", name)
    if len(set(config.metrics.rewards)) < len(config.metrics.rewards):
        raise ConfigError(
            f"metrics.rewards={shown(list(config.metrics.rewards))} names one twice: name each once"
        )
    _prompts(config.prompts)
    _semantics(config.semantics)
    if config.run.folder is not None and not config.run.folder.strip():
        raise ConfigError("run.folder is empty: give a folder, or null for the default")


def _backbone(backbone: BackboneConfig) -> None:
    if backbone.lora is None:
        if backbone.lora_required:
            raise ConfigError(
                f"backbone={backbone.name} has no published checkpoint: "
                "give backbone.lora=FILE.safetensors, a LoRA of your own training"
            )
    elif not backbone.lora.endswith(".safetensors"):
        raise ConfigError(
            f"backbone.lora={shown(backbone.lora)} is no safetensors file: "
            "give backbone.lora=FILE.safetensors or owner/name:FILE.safetensors"
        )


def _sampler(config: Config) -> None:
    backbone, sampler, method = config.backbone, config.sampler, config.method
    if (sampler.kind == "lcm") != backbone.consistency:
        if backbone.consistency:
            raise ConfigError(
                f"sampler={sampler.name} does not fit backbone={backbone.name}, a consistency model: give sampler=lcm"
            )
        raise ConfigError(
            f"sampler={sampler.name} needs a consistency model and backbone={backbone.name} is none: "
            "give backbone=lcm, or sampler=ddim"
        )
    if not backbone.consistency:
        return
    if sampler.steps > DISTILLED:
        raise ConfigError(
            f"sampler.steps={sampler.steps} is more than the {DISTILLED} that consistency models are distilled on: "
            f"give 1 to {DISTILLED}; 4 to 8 are usual"
        )
    if sampler.eta != 1:
        raise ConfigError(
            f"sampler.eta={sampler.eta:g} is not read by sampler={sampler.name}, which draws all noise anew: "
            "leave it at 1"
        )
    if sampler.guidance_rescale != 0:
        raise ConfigError(
            f"sampler.guidance_rescale={sampler.guidance_rescale:g} is not read by backbone={backbone.name}: "
            "leave it at 0"
        )
    if config.negative:
        raise ConfigError(
            f"negative={shown(config.negative)} is not read by backbone={backbone.name}, which has no negative half: "
            'leave it ""'
        )
    for part, rule in (("guidance", method.guidance.rule), ("clean", method.clean.rule)):
        if rule == "correction":
            raise ConfigError(
                f"method.{part}.rule=correction scales by the classifier-free correction, which backbone={backbone.name} "
                f"has not: give method.{part}.rule=value or constant, or method=dps"
            )


def _method(method: MethodConfig) -> None:
    phases, objective = method.objective.phases, method.objective
    if phases.semantic_until < phases.both_until:
        raise ConfigError(
            f"method.objective.phases.semantic_until={phases.semantic_until:g} is below "
            f"both_until={phases.both_until:g}: give semantic_until >= both_until, as t/T falls"
        )
    if phases.both_until < phases.preference_until:
        raise ConfigError(
            f"method.objective.phases.both_until={phases.both_until:g} is below "
            f"preference_until={phases.preference_until:g}: give both_until >= preference_until, as t/T falls"
        )
    if method.guidance.rule != "none" and objective.preference == objective.semantic == 0:
        raise ConfigError(
            f"method.guidance.rule={method.guidance.rule} has nothing to follow: "
            "give method.objective.preference or method.objective.semantic a weight above 0"
        )
    if method.clean.rule != "none" and objective.preference == 0:
        raise ConfigError(
            f"method.clean.rule={method.clean.rule} has nothing to follow: give method.objective.preference a weight above 0"
        )
    if method.recurrence.rule != "none" and not method.guided:
        raise ConfigError(
            f"method.recurrence.rule={method.recurrence.rule} repeats guided steps and nothing guides: "
            "give method.guidance.rule=correction, or method.recurrence.rule=none"
        )


def _reward(reward: RewardConfig, method: MethodConfig) -> None:
    from align.rewards.registry import REWARDS

    for name, weight in reward.terms.items():
        _registered(f"reward.terms.{name}", name)
        if weight == 0:
            raise ConfigError(
                f"reward.terms.{name}=0 does nothing: give a weight, or drop it with ~reward.terms.{name}"
            )
    if method.uses_reward and not reward.terms:
        raise ConfigError(
            f"method={method.name} needs a reward: give reward.terms.<name>=<weight>, "
            f"names: {', '.join(sorted(REWARDS))}"
        )
    if not method.reward_needs_gradient:
        return
    for name in reward.terms:
        if not REWARDS[name].differentiable:
            able = ", ".join(sorted(known for known, spec in REWARDS.items() if spec.differentiable))
            raise ConfigError(
                f"reward {name} has no gradient and method={method.name} needs one: "
                f"give one of {able}, or method=best_of_n"
            )


def _registered(path: str, name: str) -> None:
    from align.rewards.registry import REWARDS

    if name not in REWARDS:
        raise ConfigError(f"{path}: there is no reward {shown(name)}{suggestion(name, REWARDS, 'rewards')}")


def _prompts(prompts: PromptsConfig) -> None:
    if prompts.kind == "file" and not prompts.path:
        raise ConfigError(f"prompts={prompts.name} needs a file: give prompts.path=FILE")
    if prompts.kind == "text" and not prompts.text:
        raise ConfigError(
            f'prompts={prompts.name} needs prompts: give \'prompts.text=["first prompt", "second"]\''
        )


def _semantics(semantics: SemanticsConfig) -> None:
    if semantics.source == "file" and not semantics.path:
        raise ConfigError(f"semantics={semantics.name} needs graphs: give semantics.path=FILE or FOLDER")
    if semantics.source == "llm":
        if (semantics.endpoint is None) == (semantics.local is None):
            raise ConfigError(
                f"semantics={semantics.name} needs one model: give semantics.endpoint=URL and semantics.model=NAME, "
                "or semantics.local=FOLDER"
            )
        if semantics.endpoint is not None and not semantics.endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"semantics.endpoint={shown(semantics.endpoint)} is no URL: give one such as http://localhost:8000/v1"
            )
        if semantics.endpoint is not None and not semantics.model:
            raise ConfigError("semantics.endpoint needs a model: give semantics.model=NAME")
    if semantics.matching == "released":
        if semantics.source not in ("file", "llm"):
            raise ConfigError(
                f"semantics.matching=released finds written words, semantics.source={semantics.source} has none: "
                "give semantics=file or llm, or semantics.matching=ours"
            )
        if semantics.missing == "rules":
            raise ConfigError(
                "semantics.matching=released and semantics.missing=rules would mix two ways of pairing: "
                "give semantics.missing=error or empty"
            )
        if semantics.global_words:
            raise ConfigError(
                "semantics.global_words=true is not read by semantics.matching=released: "
                "give semantics.matching=ours"
            )
