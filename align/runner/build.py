"""The only place where a configuration turns into heavy objects.  Everything is imported when it is needed.

A multirun builds a backbone or reward once for all its runs.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from align.config.judges import JudgesConfig
from align.config.schema import BackboneConfig, Config, RewardConfig
from align.rewards.registry import REWARDS
from align.runner.devices import torch_device
from align.runner.files import Files, recipe
from align.runner.guiders import guider_of
from align.runner.judges import options_of
from align.runner.processes import process_of
from align.runner.selecting import backtracking_of, rollover_of, search_of, selection_of
from align.runner.strategies import strategy_of

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from align.backbones.base import Backbone
    from align.backbones.guider import Guider
    from align.checkpoints.layout import Piece
    from align.processes.base import Process
    from align.rewards.base import Reward
    from align.sampling.batching import Calls
    from align.sampling.parts import Parts
    from align.sampling.sampler import Samples
    from align.sampling.values import Value
    from align.semantics.tokens import PairSource


def build_sampler(config: Config, calls: Calls, files: Files | None = None) -> Samples:
    """The method of a checked configuration on its backbone, loaded. Raises WeightsError."""
    device = torch_device(config.run.device)
    files = files or Files(config)
    backbone = _backbone(config.backbone, files.pieces, device)
    reward = build_reward(config.reward, device, config.judges) if config.method.uses_reward else None
    return assemble(
        config, backbone, reward, pairs_of(config), calls, device, files, guide_of(config, device)
    )


def assemble(
    config: Config,
    backbone: Backbone,
    reward: Reward | None,
    pairs: PairSource,
    calls: Calls,
    device: torch.device,
    files: Files | None = None,
    guide: Reward | None = None,
) -> Samples:
    """The method of a configuration on any backbone, with any reward, and any ``guide`` whose gradients it follows instead."""
    from align.sampling.sampler import Population, Sampler

    process = process_of(config, backbone)
    guider = guider_of(config, backbone)
    parts = _parts(files or Files(config), backbone, process, guider, (reward, guide), calls, device)
    method = config.method
    population = Population(method.particles, method.returned, method.choose)
    return strategy_of(config, Sampler(parts, pairs, device, population))


def _parts(
    files: Files,
    backbone: Backbone,
    process: Process,
    guider: Guider,
    rewards: tuple[Reward | None, Reward | None],
    calls: Calls,
    device: torch.device,
) -> Parts:
    from align.released.objective import SignBlindObjective
    from align.sampling.guidance import CleanGuidance, Guidance, NoiseGuidance
    from align.sampling.judge import Judge
    from align.sampling.objective import Objective
    from align.sampling.parts import Parts
    from align.sampling.predict import Predict
    from align.sampling.recurrence import Recurrence

    config, method, (reward, guide) = files.config, files.config.method, rewards
    guidance: Guidance | None = None
    clean = objective = None
    noisy, mean = method.guidance, method.clean
    if noisy.rule == "noise":
        guidance = NoiseGuidance(noisy.strength, noisy.coefficient, whiten=noisy.whiten)
    elif noisy.rule != "none":
        guidance = Guidance(noisy.strength, noisy.coefficient, noisy.rule, noisy.form)
    if mean.rule != "none" and mean.rate * noisy.strength > 0:
        clean = CleanGuidance(mean.iterations, mean.rate * noisy.strength, mean.rule, mean.form)
    if clean is not None or (guidance is not None and guidance.strength > 0):
        options = {f.name: getattr(method.objective, f.name) for f in fields(method.objective)}
        kind = SignBlindObjective if "sign_blind" in method.quirks else Objective
        objective = kind(**options | asdict(options.pop("phases")))
    recurrence = Recurrence(
        method.recurrence.rule, method.recurrence.rounds, method.recurrence.rate, method.recurrence.cap
    )
    value = None
    if method.values_states and reward is not None:
        value = _value(files, backbone, guider, process, device)
    return Parts(
        Predict(backbone, guider, calls, method.reads_correction),
        Judge(backbone, calls, reward, objective, clean, value, config.run.views_together, guide),
        process,
        guidance,
        recurrence,
        select=selection_of(config),
        search=search_of(config),
        rollover=rollover_of(config),
        backtracking=backtracking_of(config),
        weigh=method.weighs and (guidance is not None or clean is not None),
        select_children="steered_children" in method.quirks,
    )


def _value(files: Files, backbone: Backbone, guider: Guider, process: Process, device: torch.device) -> Value:
    import torch

    from align.sampling.values import Lookahead, Looks, PosteriorMean

    config, piece = files.config, files.value_piece
    value = config.method.value
    if value.estimate == "looks":
        return Looks(backbone, guider, value.looks)
    if value.estimate == "lookahead":
        return Lookahead(backbone, guider, process, value.steps)
    if piece is None:
        return PosteriorMean(backbone.decode)
    if value.estimate == "network":
        return _regressed(config, piece.folder, backbone, device)
    from align.backbones.small_decoder import load_small_decoder
    from align.checkpoints.layout import entry

    dtype = getattr(torch, config.backbone.decoder_dtype or config.backbone.dtype)
    weights = entry(piece.paths[1:]).name
    decode = load_small_decoder(piece.folder, weights, backbone.latent_shape(), device, dtype)
    return PosteriorMean(decode, own_decoder=False)


def _regressed(config: Config, folder: Path, backbone: Backbone, device: torch.device) -> Value:
    from align.errors import WrongWeights
    from align.sampling.value_network import load_value_network
    from align.sampling.values import Regressed

    network = load_value_network(folder, device)
    trained = (network.shape.latents, network.shape.text_width)
    found = (backbone.latent_shape(), backbone.encode("", "").prompt.shape[-1])
    if trained != found:
        raise WrongWeights(
            f"the value network in {folder} reads latents {trained[0]} and text of width {trained[1]}; "
            f"backbone={config.backbone.name} has {found[0]} and {found[1]}"
        )
    try:
        return Regressed(network, config.reward.terms)
    except ValueError as error:
        raise WrongWeights(f"{folder}: {error}") from None


def pairs_of(config: Config) -> PairSource:
    """Where the token pairs of a prompt come from; none at all if nothing reads them."""
    from align.runner.graphs import graphs_of, reads_graphs
    from align.semantics.sources import no_pairs

    return graphs_of(config).pairs if reads_graphs(config) else no_pairs


_OF_KIND = {
    "unet": ("attention_stride",),
    "transformer": ("attention_blocks", "attention_maps", "max_sequence_length"),
}
"""Options that only one kind of network has."""


def load_backbone(backbone: BackboneConfig, pieces: tuple[Piece, ...], device: torch.device) -> Backbone:
    """A backbone of one's own, to be changed. Raises WeightsError."""
    if backbone.kind == "analytic":
        from align.backbones.analytic import SCHEDULES, AnalyticBackbone
        from align.toy.problems import DENSITIES

        density = DENSITIES[str(backbone.density)]()
        schedule = SCHEDULES[backbone.process]
        return AnalyticBackbone(density, device, backbone.height, backbone.width, schedule)
    from align.backbones.registry import load

    names = _OF_KIND[backbone.kind]
    loaded: Any = load(
        recipe(backbone),
        device,
        backbone.height,
        backbone.width,
        backbone.checkpointing,
        pieces,
        **{name: getattr(backbone, name) for name in names},
    )
    if backbone.compile:
        from align.backbones.compiling import compile_blocks

        # A decoder whose layers are recomputed one by one has no block to compile.
        compile_blocks(loaded.network, *([] if backbone.checkpointing else [loaded.vae.decoder]))
    made: Backbone = loaded
    return made


_backbone = lru_cache(maxsize=1)(load_backbone)


def forget_backbone() -> None:
    """What is loaded next finds the room that it took."""
    _backbone.cache_clear()


@lru_cache(maxsize=16)
def load_reward(
    name: str, device: torch.device, dtype: str | None = None, judges: JudgesConfig | None = None
) -> Reward:
    """A registered reward, loaded once, in numbers of its own unless told otherwise. Raises WeightsError."""
    import torch

    from align.released.surrogates import washed_out
    from align.rewards.registry import load, spec
    from align.surrogates.reward import SurrogateReward

    if dtype == spec(name).dtype:  # which is there already where it is also a metric
        return load_reward(name, device, **with_judges(name, judges))
    options = {} if judges is None else options_of(name, judges)
    reward = load(name, device, None if dtype is None else getattr(torch, dtype), **options)
    if isinstance(reward, SurrogateReward) and reward.surrogate.released:
        return replace(reward, shown=washed_out)
    return reward


def forget_rewards() -> None:
    """Likewise."""
    load_reward.cache_clear()


def check_reward(name: str, device: torch.device, judges: JudgesConfig | None = None) -> None:
    """Find out whether a registered reward loads, without taking memory of an accelerator. Raises WeightsError.

    Of one whose own numbers are short, which is large, only names and shapes of the weights are looked at.
    """
    from align.rewards.registry import load, spec

    if device.type == "cpu":
        load_reward(name, device, **with_judges(name, judges))
    else:
        options = {} if judges is None else options_of(name, judges)
        load(name, "cpu" if spec(name).dtype == "float32" else "meta", **options)


def with_judges(name: str, judges: JudgesConfig | None) -> dict[str, Any]:
    """The options of judges for ``load_reward``, where a reward reads any: all others are loaded once whatever they are."""
    return {} if judges is None or REWARDS[name].section is None else {"judges": judges}


def build_reward(reward: RewardConfig, device: torch.device, judges: JudgesConfig | None = None) -> Reward:
    """What guides or selects: a weighted sum, of which a single one of weight 1 is itself; or ranks. Raises WeightsError."""
    from align.rewards.combination import RankSum, WeightedSum

    # What is also a metric is there once where both compute in the same numbers.
    numbers = () if reward.shorter is None else (reward.shorter,)
    parts = [
        (weight, load_reward(name, device, *numbers, **with_judges(name, judges)))
        for name, weight in sorted(reward.terms.items())
    ]
    if reward.combine == "ranks":
        return RankSum(parts)
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else WeightedSum(parts)


def guide_of(config: Config, device: torch.device) -> Reward | None:
    """What gradients follow, where it is another reward. Raises WeightsError."""
    return None if config.guide is None else build_reward(config.guide, device, config.judges)


def set_up_torch(threads: int | None) -> None:
    """Threads, and algorithms that give the same bits each time wherever torch has them."""
    import os

    # Segments that can grow waste little to fragmentation, which took a third beyond the peak for large pictures.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    import torch
    from torch.utils import deterministic

    from align.startup import fix_workspace

    if threads is not None:
        torch.set_num_threads(threads)
    # As use_deterministic_algorithms(True), which imports all of inductor.  Where it only warned, fused attention would
    # take the backward pass that adds up in any order.
    # With another workspace it would refuse every product.
    torch.set_deterministic_debug_mode("error" if fix_workspace() else "warn")
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
