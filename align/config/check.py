"""Options against each other and against the registries: what no single range can say."""

from __future__ import annotations

import os
import re

from align.checkpoints.layout import FORMS, PICKLES, convert_command, is_file
from align.checkpoints.reference import TRAINED
from align.config.check_budget import check_budget
from align.config.check_guider import check_guider
from align.config.check_judges import check_judges
from align.config.check_particles import check_particles
from align.config.check_sampler import check_sampler
from align.config.check_strategy import check_strategy
from align.config.check_switches import check_switches
from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.config.method import MethodConfig
from align.config.quirks import check_quirks
from align.config.schema import (
    BackboneConfig,
    Config,
    PromptsConfig,
    RewardConfig,
)
from align.config.semantics import SemanticsConfig

_OF_KIND = {
    "unet": "unet",
    "attention_stride": "unet",
    "transformer": "transformer",
    "attention_blocks": "transformer",
    "attention": "transformer",
    "max_sequence_length": "transformer",
}
"""Options of the backbone that only one kind of it has."""


def check_config(config: Config) -> None:
    """Refuse what cannot work, naming the option and the mend. Imports no torch. Raises ConfigError."""
    _backbone(config.backbone)
    if config.backbone.kind == "analytic":
        _analytic(config)
    _maps(config)
    check_sampler(config)
    check_guider(config)
    if config.negative and not config.reads_negative:
        raise ConfigError(
            f"negative={shown(config.negative)} is not read by backbone={config.backbone.name}, which has no negative half: "
            'leave it ""'
        )
    _method(config.method)
    check_particles(config)
    check_strategy(config)
    check_switches(config)
    check_budget(config)
    _reward(config)
    for option, names in (
        ("metrics.rewards", config.metrics.rewards),
        ("backbone.trained_for", config.backbone.trained_for),
    ):
        for place, name in enumerate(names):
            _registered(f"{option}[{place}]", name)
    if len(set(config.metrics.rewards)) < len(config.metrics.rewards):
        raise ConfigError(
            f"metrics.rewards={shown(list(config.metrics.rewards))} names one twice: name each once"
        )
    check_judges(config)
    _prompts(config.prompts)
    _semantics(config.semantics)
    if config.semantics.matching == "released" and config.backbone.kind == "transformer":
        raise ConfigError(
            f"semantics.matching=released finds CLIP's pieces alone, and backbone={config.backbone.name} is read by other encoders "
            "too: give semantics.matching=ours"
        )
    if config.run.folder is not None and not config.run.folder.strip():
        raise ConfigError("run.folder is empty: give a folder, or null for the default")


def _backbone(backbone: BackboneConfig) -> None:
    if (backbone.kind == "analytic") != (backbone.density is not None):
        raise ConfigError(
            f"backbone.density={shown(backbone.density)} and backbone.kind={backbone.kind} do not go together: "
            "give backbone.kind=analytic with a density such as gmm, or backbone.kind=unet with null"
        )
    if backbone.consistency and backbone.guidance != "embedded":
        raise ConfigError(
            f"backbone.consistency=true is of a network that reads the guidance scale, and backbone.guidance={backbone.guidance}: "
            "give backbone.guidance=embedded"
        )
    if (FORMS[backbone.layout].network == "transformer") != (backbone.kind == "transformer"):
        right = FORMS[backbone.layout].network
        raise ConfigError(
            f"backbone.layout={backbone.layout} is of a {right}: give backbone.kind={right}, or another layout"
        )
    for name, kind in _OF_KIND.items():
        if backbone.kind != kind and getattr(backbone, name) is not None:
            raise ConfigError(
                f"backbone.{name}={shown(getattr(backbone, name))} is of a {kind} and backbone.kind={backbone.kind}: leave it out"
            )
    if backbone.process == "flow" and (backbone.consistency or backbone.kind == "unet"):
        kind = "backbone.consistency=true" if backbone.consistency else "backbone.kind=unet"
        raise ConfigError(
            f"backbone.process=flow and {kind} do not go together: give backbone.process=diffusion, or another preset"
        )
    if backbone.lora is None and backbone.lora_required:
        raise ConfigError(
            f"backbone={backbone.name} has no published checkpoint: "
            "give backbone.lora=FILE.safetensors, a LoRA of your own training"
        )
    if backbone.kind == "transformer" and backbone.single_file is not None:
        raise ConfigError(
            f"backbone.single_file={shown(backbone.single_file)}: of a transformer's pipeline only diffusers' layout is read: give "
            "backbone.weights, or backbone.transformer for the network alone"
        )
    for role in ("weights", "single_file", "unet", "transformer", "vae", "lora"):
        if (reference := getattr(backbone, role)) is not None:
            _check_form(role, reference, backbone)


def _check_form(role: str, reference: str, backbone: BackboneConfig) -> None:
    option = f"backbone.{role}={shown(reference)}"
    convert = convert_command(reference, role, backbone.layout)
    if reference.endswith(PICKLES):
        raise ConfigError(f"{option} is a pickle, which is not read: convert it once with {convert}")
    embedded = role == "lora" and reference in TRAINED
    if role in ("single_file", "lora") and not (embedded or is_file(reference)):
        raise ConfigError(
            f"{option} is no safetensors file: give backbone.{role}=FILE.safetensors or owner/name:FILE.safetensors"
        )
    if role == "weights" and is_file(reference):
        raise ConfigError(
            f"{option} is one file, which does not say its sizes, tokenizers and scheduler: give it as "
            f"backbone.single_file, with backbone.weights a pipeline of its kind, or convert it once with {convert}"
        )


def _analytic(config: Config) -> None:
    """A density has no prompt; its pictures are colours that stand for numbers."""
    method, name = config.method, config.backbone.name
    if method.guided and method.objective.copies > 0:
        raise ConfigError(
            f"method.objective.copies={method.objective.copies} alters colours, which are coordinates on backbone={name}: "
            "give method.objective.copies=0"
        )
    if config.backbone.compile:
        raise ConfigError(
            f"backbone.compile=true compiles a network, and backbone={name} has none: give backbone.compile=false"
        )
    if config.run.device == "mps":
        raise ConfigError(f"backbone={name} computes in float64, which mps lacks: give run.device=cpu")


def _maps(config: Config) -> None:
    """Maps are read from a UNet, and from a transformer whose layers of attention are known."""
    method, backbone = config.method, config.backbone
    if backbone.kind != "analytic" and FORMS[backbone.layout].maps:
        return
    if method.guidance.rule != "none" and method.objective.semantic > 0:
        raise ConfigError(
            f"method.objective.semantic={method.objective.semantic:g} reads attention maps, and backbone={backbone.name} has none: "
            "give method.objective.semantic=0, or another method"
        )
    if backbone.attention_blocks is not None:
        raise ConfigError(
            f"backbone.attention_blocks={shown(list(backbone.attention_blocks))} is not read by backbone={backbone.name}, of which "
            "no attention maps are read: leave it out"
        )


def _method(method: MethodConfig) -> None:
    check_quirks(method)
    objective = method.objective
    for later, earlier in (("both_until", "semantic_until"), ("preference_until", "both_until")):
        end, before = getattr(objective.phases, later), getattr(objective.phases, earlier)
        if before < end:
            raise ConfigError(
                f"method.objective.phases.{earlier}={before:g} is below {later}={end:g}: "
                f"give {earlier} >= {later}, as t/T falls"
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
    repeats = method.recurrence.rule
    if repeats != "none" and not method.guided and not (repeats == "fixed" and method.searches):
        raise ConfigError(
            f"method.recurrence.rule={repeats} repeats guided steps and nothing guides: "
            "give method.guidance.rule=correction, or method.recurrence.rule=none"
        )
    if repeats != "none" and method.weighs:
        raise ConfigError(
            f"method.recurrence.rule={repeats} would take weighted particles back, and their weights mean nothing then: "
            "give method.recurrence.rule=none, or neither method.steering nor method.tempering"
        )


def _reward(config: Config) -> None:
    from align.rewards.registry import REWARDS, usual

    reward, method, guide = config.reward, config.method, config.guide
    for name in reward.files.keys() - reward.terms.keys() - method.guide_reward.keys():
        raise ConfigError(f"reward.files.{name} has no weight: give reward.terms.{name}=1, or leave it out")
    _terms("reward.terms", reward)
    if guide is not None:
        _terms("method.guide_reward", guide)
        if not method.reward_needs_gradient:
            raise ConfigError(
                f"method.guide_reward={guide.label}: method={method.name} follows no gradient of a reward: leave it out, or give "
                "method=das"
            )
        if not method.judges:
            raise ConfigError(
                f"method.guide_reward={guide.label}: method={method.name} chooses nothing by reward={reward.name}: give "
                "method.particles and method.choose=best, or what guides as the reward"
            )
    if method.uses_reward and not reward.terms:
        raise ConfigError(
            f"method={method.name} needs a reward: give reward.terms.<name>=<weight>, "
            f"names: {', '.join(usual())}"
        )
    if reward.combine == "ranks" and method.uses_reward:
        _ranks(config)
    if not method.reward_needs_gradient:
        return
    for name in (guide or reward).terms:
        if not REWARDS[name].differentiable:
            able = ", ".join(known for known in usual() if REWARDS[known].differentiable)
            raise ConfigError(
                f"reward {name} has no gradient and method={method.name} needs one: "
                f"give one of {able}, or method=best_of_n"
            )


def _ranks(config: Config) -> None:
    """Ranks are of a choice among finished pictures: none has a value by itself."""
    method, option = config.method, "reward.combine=ranks"
    if len(config.reward.terms) < 2:
        raise ConfigError(
            f"{option} ranks by several rewards: give reward=sum and two or more reward.terms, or reward.combine=sum"
        )
    others = {
        f"method={method.name} compares states on the way call by call, or weighs them by": method.values_states,
        f"method={method.name} follows a gradient of": method.reward_needs_gradient and config.guide is None,
        **{
            f"method.{name} goes by": name in method.strategies
            for name in ("noise_gradient", "tree_search", "prompt_search")
        },
    }
    for what, there in others.items():
        if there:
            more = ", method.guide_reward for gradients" if what.endswith("gradient of") else ""
            raise ConfigError(
                f"{option} chooses among finished pictures, and {what} values that last: give reward.combine=sum{more}, or a method "
                "such as best_of_n or local_search"
            )


def _terms(option: str, reward: RewardConfig) -> None:
    from align.rewards.registry import REWARDS

    for name, weight in reward.terms.items():
        _registered(f"{option}.{name}", name)
        if weight == 0:
            raise ConfigError(
                f"{option}.{name}=0 does nothing: give a weight, or drop it with ~{option}.{name}"
            )
        if reward.shorter is not None and not REWARDS[name].network:
            raise ConfigError(
                f"reward.dtype={reward.shorter}: {name} is no network of ours and computes in numbers of its own: "
                "give reward.dtype=null"
            )
        if reward.dtype == "float32" and (own := REWARDS[name].dtype) != "float32":
            raise ConfigError(
                f"reward.dtype=float32: {name} computes in {own}, as published: give reward.dtype=null"
            )


def _registered(path: str, name: str) -> None:
    from align.rewards.registry import REWARDS

    if name not in REWARDS:
        raise ConfigError(f"{path}: there is no reward {shown(name)}{suggestion(name, REWARDS, 'rewards')}")


_PROMPTS = {
    "text": ("text", "tags"),
    "file": ("path",),
    "dataset": ("dataset", "files"),
    "shapes": ("split", "number", "objects", "counts", "set_seed"),
}
"""Where the prompts of each kind of set come from; columns are left to ``align score``, which reads them of its own table."""


def _prompts(prompts: PromptsConfig) -> None:
    usual = PromptsConfig(prompts.name)
    for key in dict.fromkeys(key for keys in _PROMPTS.values() for key in keys):
        value = getattr(prompts, key)
        if key not in _PROMPTS[prompts.kind] and value not in (None, "", (), {}, getattr(usual, key)):
            reader = next(kind for kind, keys in _PROMPTS.items() if key in keys)
            mend = f"prompts={reader}" if reader in ("text", "file") else f"a set of kind {reader}"
            raise ConfigError(
                f"prompts.{key} is not read by prompts={prompts.name}, which is of kind {prompts.kind}: give {mend}, or leave it out"
            )
    if prompts.kind == "file" and not prompts.path:
        raise ConfigError(f"prompts={prompts.name} needs a file: give prompts.path=FILE")
    if prompts.kind == "dataset" and not (prompts.dataset and prompts.files):
        raise ConfigError(
            f"prompts={prompts.name} needs a data set: "
            "give prompts.dataset=owner/name and 'prompts.files=[FILE]'"
        )
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
        if semantics.endpoint is not None:
            from align.web import address_fault, key_fault

            if not re.fullmatch(r"[A-Za-z_]\w{0,39}", semantics.key_variable or "_", re.ASCII):
                raise ConfigError(
                    "semantics.key_variable is no name of a variable: give the name, never the key, which would be recorded"
                )
            key = os.environ.get(semantics.key_variable, "") if semantics.key_variable else ""
            endpoint = semantics.endpoint
            if fault := address_fault(endpoint, "semantics") or key_fault(endpoint, key, "semantics"):
                raise ConfigError(fault)
            if not semantics.model:
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
