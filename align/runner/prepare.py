"""Everything that can be found wrong with a run before any work: prompts, weights, device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any

from align.backbones.stated import check_small_decoder
from align.checkpoints.needed import joint_fingerprint, missing_text
from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.sampler import SamplerConfig
from align.config.schema import Config, PromptsConfig
from align.errors import WrongWeights
from align.processes.schedule import check_steps, is_flow, listed_timesteps
from align.reading import read_json
from align.rewards.registry import REWARDS
from align.runner.calls import calls_of
from align.runner.devices import check_device, torch_device
from align.runner.exits import FilesMissing
from align.runner.files import Files, files_of
from align.runner.graphs import check_graphs, graph_identity
from align.runner.guiders import weak_of
from align.runner.judges import check_packages, check_prompts
from align.runner.plan import Item, identity, make_plan
from align.runner.prompts import PromptSet, load_prompts
from align.runner.rewriting import check_rewrites, rewrite_identity
from align.runner.strategies import skipped_of
from align.runner.switches import check_machine, check_quantised
from align.runner.words import words_of

if TYPE_CHECKING:
    from align.sampling.batching import Calls


@dataclass(frozen=True)
class Prepared:
    """A run that can start.

    Attributes:
        identity: all that decides its pictures, prompts and seeds aside.
        kept: what its record says of its files, see ``Files.record``.
        metrics: fingerprint of what measures its pictures, by metric.
        unread: what the scheduler's file says of its own solver's steps, which ``sampler`` takes otherwise.
        budget: what its budget came to, in words, where it has one.
    """

    config: Config
    prompts: PromptSet
    identity: dict[str, Any]
    items: list[Item]
    calls: Calls
    files: Files
    kept: dict[str, dict[str, str]]
    metrics: dict[str, str]
    unread: list[str]
    budget: str = ""


def prepare(configs: Sequence[Config], beside: Files | None = None) -> list[Prepared]:
    """Make the runs of a command ready, all of them before one starts; ``beside`` has looked for files already.

    Raises ConfigError, FilesMissing (for all that is missing for any of the runs), and WrongWeights: a backbone
    states something
    that cannot be sampled.
    """
    found = files_of(configs, beside)
    # Mistakes in prompts that are here come before downloads; a data set that is not here is among the missing files.
    here = [files for files in found if not missing_text(files.prompts)]
    sets = [load_prompts(files.config.prompts, files.prompts) for files in here]
    for config in configs:
        check_device(config.run.device)
        _check_compiler(config)
        check_machine(config)
        _check_runner(config)
    for files in found:
        check_packages(files.scoring)
    if text := missing_text(dict.fromkeys(one for files in found for one in files.all())):
        raise FilesMissing(text)
    for files, prompts in zip(found, sets, strict=True):
        _check_columns(files.config.prompts)
        _check_negatives(files.config, prompts)
        check_prompts(files.scoring, files.config.judges, [(row.text, row.tags) for row in prompts.rows])
        check_graphs(files.config, prompts.prompts)
        words_of(files.config)
        check_rewrites(files.config, prompts.prompts)
        _check_value(files)
    _check_seeds(configs, sets)
    unread = [check_backbone(files) for files in found]
    return [_within_budget(_prepared(*one)) for one in zip(found, sets, unread, strict=True)]


def _within_budget(prepared: Prepared) -> Prepared:
    """A run as its budget has it. Raises ConfigError, WeightsError."""
    if not prepared.config.budget.asked:
        return prepared
    from align.runner.budget import plan_within

    files = prepared.files
    config, told = plan_within(
        files, prepared.items, prepared.calls, lambda one: check_backbone(Files(one, files))
    )
    return replace(_prepared(Files(config, files), prepared.prompts, prepared.unread), budget=told)


def _prepared(files: Files, prompts: PromptSet, unread: list[str]) -> Prepared:
    config, kept = files.config, files.record(files.all(), files.scoring)
    if config.method.uses_reward and config.reward.shorter is not None:
        kept["fingerprints"]["guiding rewards: dtype"] = config.reward.shorter
    what = identity(
        config,
        joint_fingerprint(files.backbone),
        {name: files.reward_fingerprint(name) for name in files.guiding},
        graph_identity(config, prompts.prompts),
        next((one.fingerprint() for one in files.value), None),
        None if (words := words_of(config)) is None else words.fingerprint(),
        rewrite_identity(config),
    )
    reads = any(REWARDS[name].reads_metadata for name in files.guiding)
    items = make_plan(
        what, prompts.rows, config.seed, config.samples, config.negative, prompts.whole, metadata=reads
    )
    calls, metrics = calls_of(config, items, files), files.metric_fingerprints()
    return Prepared(config, prompts, what, items, calls, files, kept, metrics, unread)


def _check_columns(prompts: PromptsConfig) -> None:
    """Refuse names of columns for a set that has none; a score reads them of its own table."""
    usual = PromptsConfig(prompts.name)
    for key in ("column", "negative_column", "seed_column", "tag_columns"):
        if prompts.kind in ("text", "shapes") and getattr(prompts, key) != getattr(usual, key):
            raise ConfigError(
                f"prompts.{key} is not read by prompts={prompts.name}, which has no columns: give prompts=file, or leave it out"
            )


def _check_negatives(config: Config, prompts: PromptSet) -> None:
    """Refuse rows with negative prompts of their own where nothing reads them."""
    row = next((row for row in prompts.rows if row.negative is not None), None)
    if row is not None and (config.one_half or not config.reads_negative):
        by = "at sampler.guidance_scale=1" if config.one_half else f"by backbone={config.backbone.name}"
        raise ConfigError(
            f"{row.place}: its negative prompt {shown(row.negative)} is not read {by}: "
            "give prompts.negative_column=null to keep it as a tag"
        )


def _check_seeds(configs: Sequence[Config], sets: Sequence[PromptSet]) -> None:
    """Refuse to run several seeds of prompts that have seeds of their own: the same pictures would be made again."""
    seen: dict[str, int] = {}
    for config, prompts in zip(configs, sets, strict=True):
        row = next((row for row in prompts.rows if row.seed is not None), None)
        if row is None:
            continue
        rest = replace(config, seed=0, run=replace(config.run, folder=None))
        if (other := seen.setdefault(repr(rest), config.seed)) != config.seed:
            raise ConfigError(
                f"seed={other},{config.seed}: {row.place} has a seed of its own, {row.seed}, and would be drawn again by it: "
                "give one seed, or prompts.seed_column=null"
            )


def check_backbone(files: Files) -> list[str]:
    """Refuse what the backbone's files do not allow; what they say of their own solver, which is not read."""
    sampler, backbone = files.config.sampler, files.config.backbone
    if backbone.kind == "analytic":
        from align.backbones.analytic import SCHEDULES

        _check_steps(sampler, SCHEDULES[backbone.process], f"backbone={backbone.name}")
        return []
    stated = files.stated
    check_quantised(files.config, stated.network)
    if is_flow(stated.schedule) != (backbone.process == "flow"):
        found = "flow" if is_flow(stated.schedule) else "diffusion"
        raise WrongWeights(
            f"{stated.path} is a {found}'s, and backbone.process={backbone.process}: give backbone.process={found} with a network "
            "of that kind, or other weights"
        )
    _check_steps(sampler, stated.schedule, str(stated.path))
    stride = backbone.attention_stride
    if stride is not None and stride not in stated.strides:
        known = ", ".join(map(str, sorted(stated.strides))) or "null"
        raise ConfigError(
            f"backbone.attention_stride={stride} is of no cross-attention layer of the network: give {known}"
        )
    if (weak := weak_of(files.config.guider)) is not None:
        from align.backbones.weakened import check_weak

        try:
            check_weak(stated.network, weak)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if (weak := skipped_of(files.config.method.draft)) is not None:
        from align.backbones.weakened import check_weak

        try:
            check_weak(stated.network, weak)
        except ValueError as error:
            said = str(error).replace("guider.layers", "method.draft.skip")
            said = said.replace("guider=cfg", "method.draft.skip=[]")
            raise ConfigError(said.replace("guider.stack", "method.draft.stack")) from error
    for name in ("height", "width"):
        value = getattr(backbone, name)
        if value % stated.side:
            raise ConfigError(
                f"backbone.{name}={value} is no multiple of {stated.side}, the side of the smallest part of a picture: "
                f"give {max(value // stated.side, 1) * stated.side}"
            )
        if stated.largest is not None and value > stated.largest:
            raise ConfigError(
                f"backbone.{name}={value} is beyond the network's positions: give at most {stated.largest}"
            )
    beyond = [block for block in backbone.attention_blocks or () if block >= stated.blocks]
    if beyond:
        raise ConfigError(
            f"backbone.attention_blocks: the network has no block {beyond[0]}: give 0 to {stated.blocks - 1}"
        )
    piece = files.value_piece
    if piece is not None and piece.role == "small_decoder":
        try:
            check_small_decoder(piece.folder / "config.json", stated)
        except (OSError, ValueError) as error:
            raise WrongWeights(f"method.value.estimate=small_decoder: {error}") from error
    return stated.unread


def _check_steps(sampler: SamplerConfig, schedule: dict[str, Any], where: str) -> None:
    if sampler.kind == "lcm":
        most = min(schedule["original_inference_steps"], schedule["num_train_timesteps"])
        if sampler.steps > most:
            raise ConfigError(
                f"sampler.steps={sampler.steps} is more than {where} allows (original_inference_steps): "
                f"the largest number is {most}"
            )
        return
    try:
        if sampler.kind == "few":
            listed_timesteps(schedule, sampler.steps, sampler.timesteps)
        else:
            check_steps(schedule, sampler.steps)
    except ValueError as error:
        option = "steps" if sampler.timesteps is None else "timesteps"
        raise ConfigError(
            f"sampler.{option}={shown(getattr(sampler, option))} does not fit {where}: {error}"
        ) from None


def _check_value(files: Files) -> None:
    """Refuse a value network that was not trained for the rewards of the run."""
    piece = files.value_piece
    if piece is None or piece.role != "network":
        return
    try:
        trained = read_json(piece.folder / "config.json")["rewards"]
    except (ValueError, KeyError, TypeError):
        return  # no value network at all, which is told when it is loaded
    if unknown := sorted(files.config.reward.terms.keys() - set(trained)):
        raise ConfigError(
            f"method.value.estimate=network: the network in {piece.folder} was trained for {', '.join(trained)}, "
            f"not {', '.join(unknown)}: give one of those rewards, or method.value.weights=FOLDER of another network"
        )


def _check_runner(config: Config) -> None:
    if config.runner.kind != "ray":
        return
    if find_spec("ray") is None:
        raise ConfigError("runner=ray needs Ray: pip install -e '.[ray]', or give runner=local")
    if ":" in config.run.device:
        raise ConfigError(
            f"run.device={config.run.device} is one device and runner=ray gives each worker its own: "
            "give run.device=auto, cuda or cpu"
        )


def _check_compiler(config: Config) -> None:
    if not config.backbone.compile:
        return
    lacks = []
    if torch_device(config.run.device).type == "cuda" and find_spec("triton") is None:
        lacks.append("triton")
    if not any(which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++", "gcc", "cc")):
        lacks.append("a C++ compiler")
    if lacks:
        raise ConfigError(
            f"backbone.compile=true needs {' and '.join(lacks)}, not there: install it, or give backbone.compile=false"
        )
