"""Every option, typed.  A field's ``Annotated`` part is its range; its docstring says what it means.

Values are checked when plain values are turned into these classes (``convert``) and once more against each other
(``check_config``); what a file may say at all is in ``no_code``.  What files, prompts and devices alone can tell, such as whether
a checkpoint's schedule has as many steps, is checked by ``align.runner.prepare``, before any work too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.backbones.recipe import Guidance
from align.checkpoints.layout import Layout
from align.config.budget import BudgetConfig
from align.config.guider import GuiderConfig
from align.config.judges import JudgesConfig
from align.config.method import MethodConfig
from align.config.online import RoundsConfig, SurrogateConfig
from align.config.ranges import Between, Multiple, Text
from align.config.sampler import NO_GUIDANCE, SamplerConfig
from align.config.semantics import SemanticsConfig
from align.config.table import TableConfig
from align.config.training import TrainingConfig

Attention = Literal[
    "native",
    "_native_math",
    "_native_flash",
    "_native_efficient",
    "_native_cudnn",
    "flash",
    "_flash_3",
    "sage",
    "xformers",
]
"""diffusers' names of kernels of attention: torch's own, and those of packages."""


@dataclass(frozen=True)
class BackboneConfig:
    """The model that draws."""

    name: Annotated[str, Text("name")]
    """What rows and folders call it."""
    kind: Literal["unet", "transformer", "analytic"] = "unet"
    """Family of the denoiser; decides which backbone class loads it.  ``analytic`` is a known density's exact denoiser."""
    density: Literal["gaussian", "gmm", "gmm2", "swiss_roll"] | None = None
    """The known density (``align/toy/problems.py``); ``analytic`` reads this and the picture's size only."""
    family: Literal["shapes", "sd15", "sdxl", "lcm", "toy", "sd3", "flux", "flow", "shapes_flow"] = "sd15"
    """Whose settings a method takes: those published for Stable Diffusion 1.5 or XL or for toy densities, or those of the
    shapes world.  ``lcm`` has those of ``sd15`` where it has none of its own, ``sd3``, ``flux`` and ``flow`` (all other flow
    models) those of ``sdxl``, ``shapes_flow`` those of ``shapes``."""
    layout: Layout = "sd"
    """The pipeline's modules (``align/checkpoints/layout.py``), and how its network is fed."""
    process: Literal["diffusion", "flow"] = "diffusion"
    """What the network was trained on; ``flow`` predicts velocities between noise and pictures and is sampled by ``sampler=flow``."""
    consistency: bool = False
    """A latent consistency model: steps by ``sampler=lcm``, and the network reads the guidance scale (``guidance``)."""
    guidance: Guidance = "pair"
    """What the network makes of the guidance scale: a ``pair`` of halves goes through it, of the prompt and of the negative
    prompt; it is ``embedded``, read by the network itself, which knows no negative prompt and no classifier-free correction;
    or ``none``: there is no scale."""
    weights: str = "shapes"
    """``shapes`` for the weights that come with the package, a folder in diffusers' layout, or a repository of the
    hub: ``owner/name[@revision][:folder]``."""
    alternatives: tuple[str, ...] = ()
    """Further references, tried in order; the first whose files are all there counts.  Those of a preset stand in for its
    own ``weights`` only: a command that gives others starts with none."""
    single_file: str | None = None
    """UNet, autoencoder and text encoders in one file (the original layout, as web interfaces read it):
    FILE.safetensors or ``owner/name:FILE.safetensors``.  Sizes, tokenizers and scheduler are those of ``weights``."""
    t5: bool = True
    """Read prompts by T5 too, where the pipeline can do without (``sd3``); its rows are zeros otherwise."""
    max_sequence_length: Annotated[int, Between(1, 4096)] | None = None
    """Tokens of a transformer's long text encoder, by which a prompt's embedding depends on what fills it up; null for what its
    pipeline takes by itself (``sd3`` 256, ``flux`` 512)."""
    transformer: str | None = None
    """Transformer to use instead of the pipeline's: a folder or repository, or a file in diffusers' names."""
    unet: str | None = None
    """UNet to use instead of the pipeline's: a folder or repository, or a file as in ``single_file``."""
    vae: str | None = None
    """Autoencoder to use instead of the pipeline's: a folder or repository, or a file as in ``single_file``."""
    lora: str | None = None
    """Low-rank updates (LoRA, DoRA) of the network and the text encoders, merged into them, as diffusers, kohya or peft
    name them: FILE.safetensors or ``owner/name:FILE.safetensors``."""
    lora_required: bool = False
    """No checkpoint is published: ``lora`` has to be given."""
    trained_for: tuple[str, ...] = ()
    """Rewards that its training followed, which rows name with those that the method follows: as metrics they are no evidence for it."""
    height: Annotated[int, Between(8, 4096), Multiple(8)] = 64
    """Picture height in pixels."""
    width: Annotated[int, Between(8, 4096), Multiple(8)] = 64
    """Picture width in pixels."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers of the network; objectives, weights and norms are float32 always.  Never chosen by the device: pictures
    depend on it, and a run shall be the same run wherever it goes on."""
    decoder_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Numbers of the autoencoder; null for ``dtype``, or float32 where that is float16 and the autoencoder overflows."""
    text_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Numbers of the text encoders; null for ``dtype``."""
    checkpointing: bool = False
    """Recompute the activations of a block on the way back instead of keeping them: less memory, more time."""
    storage: Literal["float8"] | None = None
    """Keep weights of the network in 8 bit (norms, positions and convolutions aside) and compute in ``dtype``: half of 16 bit, and
    slightly other pictures.  With a gradient less is spared unless ``checkpointing``."""
    offload: bool = False
    """Keep the network's blocks off the GPU and bring each for its turn: little memory, much time.  No gradient passes."""
    attention: Attention | None = None
    """Which of diffusers' attention backends a transformer takes; null for torch's choice.  Those that are not torch's own need
    their package and pass no gradient, or none that is the same twice."""
    compile: bool = False
    """Compile the blocks that network and decoder repeat (``torch.compile``): minutes at the start, less time for each picture.
    Pictures differ in rounding, so it is part of their identity, as ``dtype`` is."""
    guidance_scale: Annotated[float, Between(1, 100, below=NO_GUIDANCE)] = 4.0
    """Default of ``sampler.guidance_scale`` for this model."""
    attention_stride: Annotated[int, Between(1, 64)] | None = None
    """Read a UNet's cross-attention layers this many times coarser than the latents; null for the finest."""
    attention_blocks: Annotated[tuple[int, ...], Between(0, 999)] | None = None
    """Blocks of a transformer whose joint attention is read; null for the first half of them, or those of two streams."""
    attention_maps: Literal["share", "joint", "joint_share"] = "share"
    """What its maps are: which text a place looks at, of what it looks at text at all; or of all that it looks at; or the latter
    over its sum over text, so that heads that look at text more count more.  The first needs far less memory."""

    @property
    def pair(self) -> bool:
        """Whether both halves of classifier-free guidance go through the network."""
        return self.kind != "analytic" and self.guidance == "pair"


@dataclass(frozen=True)
class RewardConfig:
    """What guides or selects: registered rewards, by their weighted sum or by their ranks."""

    name: Annotated[str, Text("name")]
    terms: dict[str, float] = field(default_factory=dict)
    """Weight by name of the reward."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Numbers of what guides or selects; null for each reward's own, in which metrics always are: float32 but for large judges."""
    files: dict[str, str] = field(default_factory=dict)
    """Surrogates that ``python -m align online`` saved, FILE.safetensors each, by the names that ``terms`` calls them."""
    combine: Literal["sum", "ranks"] = "sum"
    """``sum`` of values times weights; or, for choices among finished pictures, the sum of weights times ``ranks`` within the choice: no
    scale has to be set then, and nothing has a value by itself."""

    @property
    def shorter(self) -> str | None:
        """Its numbers, where they are not float32."""
        return None if self.dtype == "float32" else self.dtype

    @property
    def label(self) -> str:
        """What rows call it: the only term's name, or the sum spelt out."""
        name = "+".join(f"{weight:g}*{name}" for name, weight in sorted(self.terms.items()))
        if len(self.terms) == 1 and next(iter(self.terms.values())) == 1:
            name = next(iter(self.terms))
        if self.combine == "ranks":
            name = f"ranks of {name}"
        return name if self.shorter is None else f"{name} in {self.shorter}"


@dataclass(frozen=True)
class MetricsConfig:
    """What is measured on the finished 8-bit pictures; never what guides."""

    name: Annotated[str, Text("name")]
    rewards: tuple[str, ...] = ()
    """Names of registered rewards, a column each."""
    checker: bool = False
    """Verdicts of the exact checker, for prompts of the shapes grammar."""


@dataclass(frozen=True)
class PromptsConfig:
    """Which prompts."""

    name: Annotated[str, Text("name")]
    kind: Literal["text", "file", "dataset", "shapes"] = "text"
    """``text`` lists them here, ``file`` and ``dataset`` read them, ``shapes`` draws captions from the grammar."""
    version: str = "1"
    """Raised when the set changes."""
    sha256: Annotated[str, Text("sha256")] | None = None
    """Pinned hash of the whole set, as ``run.json`` tells it; null where the set is the user's."""
    text: tuple[str, ...] = ()
    """The prompts themselves."""
    tags: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of ``text``: tags by column, each value with the number of prompts, one after another, that have it."""
    path: str | None = None
    """A .csv, .tsv or .parquet table, a .json list, a .jsonl file, or a .txt file with a prompt a line."""
    dataset: str | None = None
    """A data set on the hub, owner/name or owner/name@revision, or a folder that holds its files."""
    files: tuple[str, ...] = ()
    """Which of its files, one after another; ``*`` stands for the part of one file's name that is not known."""
    column: str = "prompt"
    """Where the prompt is: column of a table, key of JSON objects."""
    negative_column: str | None = "auto"
    """Where a row's own negative prompt is, if it has one; ``auto`` for ``negative_prompt`` or ``negative``, null for nowhere."""
    seed_column: str | None = "auto"
    """Where a row's own seed is, which replaces the run's; ``auto`` for ``seed``, null for nowhere."""
    tag_columns: tuple[str, ...] | None = None
    """Columns kept as tags of the rows, which decide nothing about pictures; null for all the others."""
    metadata: Literal["geneval"] | None = None
    """``geneval``: rows say by their prompt and tag which objects a picture must show (``include``, ``exclude``), as its data do."""
    unsafe: Literal["keep", "drop"] = "keep"
    """``drop`` leaves out prompts with words of a short English list of unsafe ones, before all that follows, and says how many."""
    split: Literal["train", "val", "test"] = "test"
    """Which captions: those of combinations never rendered in training are ``val`` and ``test``."""
    number: Annotated[int, Between(1, 1_000_000)] = 200
    """How many captions to draw."""
    objects: Annotated[int, Between(1, 3)] = 2
    """Kinds of objects in a caption."""
    counts: bool = True
    """Whether captions may ask for two or three equal objects ("two red circles")."""
    set_seed: Annotated[int, Between(0, 2**63 - 1)] = 0
    """Seed of the drawing."""
    offset: Annotated[int, Between(0, 10**9)] = 0
    """Leave out this many from the start (after shuffling)."""
    limit: Annotated[int, Between(1, 10**9)] | None = None
    """Then take at most this many."""
    shuffle_seed: Annotated[int, Between(0, 2**63 - 1)] | None = None
    """Shuffle first, by this seed; null keeps the order."""


@dataclass(frozen=True)
class RunConfig:
    """How the work is done; nothing here changes a picture's identity."""

    folder: str | None = None
    """Where results go; null: <root>/<backbone>-<method>-<prompts>-seed<seed>[-<other options>]."""
    root: str = "outputs"
    """Folder of the default folders."""
    batch_size: Annotated[int, Between(1, 4096)] | None = None
    """Most rows of a network call; a picture's company never changes it.  Null: 8, or the even parts of what a plan of few
    pictures brings together; fewer on a GPU with little memory, and 1 for full-size models on a CPU."""
    views_together: Annotated[int, Between(1, 1001)] | None = None
    """Altered copies (``objective.copies``) scored in one call; null for all. Fewer take less memory."""
    in_flight: Annotated[int, Between(1, 65536)] | None = None
    """Pictures sampled together and then committed, which is what a kill costs.  Null: as many as five minutes make by the time
    that the last ones took, at least one and at most 32."""
    threads: Annotated[int, Between(1, 4096)] | None = None
    """CPU threads of torch; null for all cores."""
    device: Annotated[str, Text("device")] = "auto"
    """auto, cpu, cuda, cuda:<number> or mps."""
    plugins: tuple[str, ...] = ()
    """Python files that add rewards. They are run, so only the command line may name them, never a config file."""
    extend: bool = False
    """Allow a folder of another configuration and keep its rows."""
    shared: bool = False
    """Share the folder with other processes that say so too."""
    on_error: Literal["continue", "stop"] = "continue"
    """What to do when an item fails."""
    verify: Literal["quick", "full"] = "quick"
    """How finished pictures are checked when a run goes on: by size and time, or by reading them all."""
    gallery: bool = True
    """Write gallery.html and contact_sheet.png at the end."""


@dataclass(frozen=True)
class RunnerConfig:
    """Which processes do the work; nothing here changes a picture."""

    name: Annotated[str, Text("name")]
    kind: Literal["local", "ray"] = "local"
    """``local``: this process; ``ray``: workers of a Ray cluster, each with a device of its own."""
    workers: Annotated[int, Between(1, 65536)] | None = None
    """How many; null for one on each GPU, or without GPUs one for each ``run.threads`` (1 where that is null) CPU cores."""
    address: str | None = None
    """Of a running cluster, or ``auto``; null starts one of this machine alone."""
    restarts: Annotated[int, Between(0, 65536)] = 3
    """How many workers may die, each being replaced, before the run stops."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    backbone: BackboneConfig
    sampler: SamplerConfig
    method: MethodConfig
    reward: RewardConfig
    metrics: MetricsConfig
    prompts: PromptsConfig
    judges: JudgesConfig = field(default_factory=JudgesConfig)
    semantics: SemanticsConfig = field(default_factory=lambda: SemanticsConfig("auto"))
    guider: GuiderConfig = field(default_factory=lambda: GuiderConfig("cfg"))
    runner: RunnerConfig = field(default_factory=lambda: RunnerConfig("local"))
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: Annotated[int, Between(0, 2**63 - 1, below="there is no random seed")] = 0
    """Seed of the noise of every picture."""
    samples: Annotated[int, Between(1, 1_000_000)] = 1
    """Pictures of each prompt."""
    negative: str = ""
    """Negative prompt of all prompts."""
    table: TableConfig | None = None
    """The table that the protocol is of; a run by itself does not read it."""
    surrogate: SurrogateConfig | None = None
    rounds: RoundsConfig | None = None
    blackbox: str | None = None
    """Of ``python -m align online`` alone: the registered reward that is asked in rounds."""
    training: TrainingConfig | None = None
    """What ``python -m align train`` does; a run has none."""

    @property
    def guide(self) -> RewardConfig | None:
        """What gradients follow, where it is not ``reward``."""
        terms = self.method.guide_reward
        return RewardConfig("guide", terms, self.reward.dtype, self.reward.files) if terms else None

    @property
    def followed(self) -> dict[str, float]:
        """Rewards that have any part in the pictures, with the weight of each."""
        return {**self.method.guide_reward, **self.reward.terms} if self.method.uses_reward else {}

    @property
    def reward_label(self) -> str:
        """What rows call that; empty where there is none."""
        if not self.method.uses_reward:
            return ""
        return self.reward.label + (f" with gradients of {self.guide.label}" if self.guide else "")

    @property
    def reads_negative(self) -> bool:
        """Whether a negative prompt has a part in the pictures: there is a half of it to go through the network."""
        return self.backbone.pair or self.sampler.true_scale is not None

    @property
    def pair_scale(self) -> float:
        """How many times the prompt's half counts; 1 where there is no other."""
        sampler = self.sampler
        return sampler.guidance_scale if self.backbone.pair else sampler.true_scale or 1.0

    @property
    def reads_both_halves(self) -> bool:
        """Whether anything but the guided prediction reads the negative half."""
        method = self.method
        maps = (
            method.guidance.rule != "none" and method.guidance.strength > 0 and method.objective.semantic > 0
        )
        return (maps and method.objective.attention_half == "both") or method.reads_correction

    @property
    def one_half(self) -> bool:
        """Whether the negative half is left out of every evaluation, which at scale 1 nothing else reads."""
        return self.reads_negative and self.pair_scale == 1 and not self.reads_both_halves


GROUPS = (
    "backbone", "sampler", "guider", "method", "reward", "metrics", "judges", "prompts", "semantics", "runner", "training",
    "surrogate", "rounds", "experiment",
)  # fmt: skip
"""The config groups, in the order of the help."""
