"""Options of ``python -m align train``: what is learned, by which numbers, and who examines it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.config.ranges import Between, Text

Kind = Literal["spo", "spm", "dpo", "kto", "alignprop"]
Board = Literal["tensorboard", "wandb"]


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank updates of the network; alpha is the rank, so their scale is 1."""

    rank: Annotated[int, Between(1, 1024)] = 4
    modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Ends of the names of the linear maps that have them."""


@dataclass(frozen=True)
class ExamineConfig:
    """A fixed set of held-out prompts, sampled as ``sampler=ddim`` does, by whose pictures the best weights are found."""

    judges: tuple[str, ...] = ()
    """Registered rewards, and ``checker`` for the share of a caption's facts that the exact checker finds; the first decides,
    so it is not the reward that is followed.  None: no examination, and the last weights are the best."""
    prompts: str = "shapes_val_pair"
    """The config group's name."""
    number: Annotated[int, Between(2, 100_000)] = 48
    """The first so many of them."""
    every: Annotated[int, Between(1, 10**6)] = 10
    """Rounds from one examination to the next."""
    sampler: str = "ddim"
    """Likewise the group's name."""


@dataclass(frozen=True)
class SpoConfig:
    """Step-by-step preference optimisation."""

    candidates: Annotated[int, Between(2, 64)] = 4
    """K, states that are drawn from one and compared."""
    threshold: Annotated[float, Between(0, 1)] = 0.3
    """By how much the two-way probabilities of best and worst have to differ to be a pair."""
    first: Annotated[int, Between(0, 999)] = 4
    """Index of the first step that is split."""
    inner: Annotated[int, Between(0, 999)] = 0
    """Ordinary steps that candidates walk before they are compared; all of them are learned from."""
    beta: Annotated[float, Between(0, 1e6)] = 10.0
    clip: Annotated[float, Between(1e-6, 0.999)] = 0.1
    """c: ratios of probabilities are clipped to 1 - c and 1 + c."""


@dataclass(frozen=True)
class PairsConfig:
    """Pairs of pictures for Diffusion-DPO and Diffusion-KTO."""

    labels: Literal["world", "reward", "data"] = "world"
    """Who prefers: the model draws pictures that the shapes world's own preferences or ``reward=`` judge, or ``path`` holds a data
    set of pictures with labels."""
    path: str | None = None
    """A folder of drawn pictures, made where they are not there; null for one of the backbone and seed beside the runs.  Of a data
    set a table, or a folder of .parquet files, with the columns caption, jpg_0, jpg_1 and label_0."""
    each: Annotated[int, Between(2, 1000)] = 4
    """Pictures drawn for a prompt; any two of them that differ enough are a pair."""
    margin: Annotated[float, Between(0, 1e9)] = 0.0
    """By how much labels have to differ; what the world says is at least 0.15 apart."""
    empty: Annotated[float, Between(0, 1)] = 0.1
    """Share of examples that are looked at without their prompt."""


@dataclass(frozen=True)
class DpoConfig:
    """Diffusion-DPO."""

    beta: Annotated[float, Between(0, 1e9)] = 5000.0
    """On differences of mean squared errors of the noise."""


@dataclass(frozen=True)
class KtoConfig:
    """Diffusion-KTO."""

    beta: Annotated[float, Between(0, 1e9)] = 1000.0
    """Likewise."""
    liked: Annotated[float, Between(0, 1)] = 0.5
    """Share of examples that are the preferred picture of their pair."""
    utility: Literal["kahneman_tversky", "loss_averse", "risk_seeking"] = "kahneman_tversky"
    """What a gain x is worth: sigmoid(x), ln sigmoid(x), or -ln sigmoid(-x)."""


@dataclass(frozen=True)
class AlignPropConfig:
    """AlignProp."""

    least: Annotated[int, Between(1, 1000)] = 1
    """Fewest last steps that are walked back; how many is drawn for each round."""
    most: Annotated[int, Between(1, 1000)] | None = None
    """Most of them; null for all steps."""


@dataclass(frozen=True)
class TrainingConfig:
    """A training."""

    name: Annotated[str, Text("name")]
    kind: Kind = "spo"
    prompts: str = "shapes_train_pair"
    """Which group of prompts is learned from, unless the command says ``prompts=``."""
    reward: str | None = None
    """Likewise which reward is followed, unless it says ``reward=``."""
    epochs: Annotated[int, Between(1, 10**6)] = 1
    """How often each prompt is taken."""
    rounds: Annotated[int, Between(1, 10**9)] | None = None
    """Stop after so many rounds; null for all of the epochs."""
    each: Annotated[int, Between(1, 10**6)] = 8
    """Prompts (or pairs, where these are given) of a round, over all processes."""
    batch: Annotated[int, Between(1, 10**6)] = 10
    """Examples of a mini-batch, over all processes."""
    together: Annotated[int, Between(1, 10**6)] | None = None
    """Most of them that a process differentiates in one go: fewer take less memory, to the same gradient.  Null for its share."""
    accumulation: Annotated[int, Between(1, 10**6)] = 1
    """Mini-batches of an update."""
    learning_rate: Annotated[float, Between(0, 10)] = 1e-4
    warmup: Annotated[int, Between(0, 10**6)] = 0
    """Updates that lead to it in equal steps."""
    decay: Literal["none", "linear"] = "none"
    """``linear``: it falls to 0 over the rounds."""
    weight_decay: Annotated[float, Between(0, 10)] = 1e-4
    clip: Annotated[float, Between(1e-9, 1e9)] | None = 1.0
    """Norm to which gradients are cut."""
    save_every: Annotated[int, Between(1, 10**6)] = 1
    """Rounds from one checkpoint to the next: what a kill costs at most."""
    boards: tuple[Board, ...] = ()
    """Where figures go beside log.jsonl."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    examine: ExamineConfig = field(default_factory=ExamineConfig)
    spo: SpoConfig = field(default_factory=SpoConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    kto: KtoConfig = field(default_factory=KtoConfig)
    alignprop: AlignPropConfig = field(default_factory=AlignPropConfig)

    @property
    def follows_reward(self) -> bool:
        """Whether ``reward=`` is read."""
        return self.kind in ("spo", "alignprop") or (self.kind != "spm" and self.pairs.labels == "reward")
