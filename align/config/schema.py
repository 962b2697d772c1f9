"""Every option, typed.  A field's ``Annotated`` part is its range; its docstring says what it means.

Values are checked when plain values are turned into these classes (``convert``) and once more against each
other (``check``); nothing else in the project validates options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.config.ranges import Between, Multiple, Text

Triple = tuple[float, float, float]
"""A number for each of the three phases of DyMO: semantic only, both, preference only."""
Rounds = tuple[int, int, int]
"""Likewise."""


NO_GUIDANCE = "1 is the prompt without guidance, which other programs call 0"


@dataclass(frozen=True)
class BackboneConfig:
    """The model that draws."""

    name: Annotated[str, Text("name")]
    """What rows and folders call it."""
    kind: Literal["unet", "analytic"] = "unet"
    """Family of the denoiser; decides which backbone class loads it.  ``analytic`` is a known density's exact denoiser."""
    density: Literal["gaussian", "gmm", "gmm2", "swiss_roll"] | None = None
    """The known density (``align/toy/problems.py``); ``analytic`` reads this and the picture's size only."""
    family: Literal["shapes", "sd15", "sdxl", "lcm", "toy"] = "sd15"
    """Whose settings a method takes: those published for Stable Diffusion 1.5 or XL or for toy densities, or those of the
    shapes world.  ``lcm`` has those of ``sd15`` where it has none of its own."""
    layout: Literal["sd", "sdxl"] = "sd"
    """Modules of the pipeline: ``sdxl`` has two text encoders and reads pooled embeddings and picture sizes."""
    consistency: bool = False
    """A latent consistency model: steps by ``sampler=lcm``, and the network reads the guidance scale, so there is neither
    a negative half nor a classifier-free correction."""
    weights: str = "shapes"
    """``shapes`` for the weights that come with the package, a folder in diffusers' layout, or a repository of the
    hub: ``owner/name[@revision][:folder]``."""
    alternatives: tuple[str, ...] = ()
    """Further references, tried in order; the first whose files are all there counts.  Those of a preset stand in for its
    own ``weights`` only: a command that gives others starts with none."""
    single_file: str | None = None
    """UNet, autoencoder and text encoders in one file (the original layout, as web interfaces read it):
    FILE.safetensors or ``owner/name:FILE.safetensors``.  Sizes, tokenizers and scheduler are those of ``weights``."""
    unet: str | None = None
    """UNet to use instead of the pipeline's: a folder or repository, or a file as in ``single_file``."""
    vae: str | None = None
    """Autoencoder to use instead of the pipeline's: a folder or repository, or a file as in ``single_file``."""
    lora: str | None = None
    """Low-rank updates (LoRA, DoRA) of the UNet and the text encoders, merged into them, as diffusers, kohya or peft
    name them: FILE.safetensors or ``owner/name:FILE.safetensors``."""
    lora_required: bool = False
    """No checkpoint is published: ``lora`` has to be given."""
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
    guidance_scale: Annotated[float, Between(1, 100, below=NO_GUIDANCE)] = 4.0
    """Default of ``sampler.guidance_scale`` for this model."""
    attention_stride: Annotated[int, Between(1, 64)] | None = None
    """Read the cross-attention layers this many times coarser than the latents; null for the finest."""

    @property
    def reads_negative(self) -> bool:
        """Whether a negative prompt has a part in the pictures: neither densities nor consistency models have a negative half."""
        return self.kind != "analytic" and not self.consistency


@dataclass(frozen=True)
class SamplerConfig:
    """The process: how noise becomes a picture."""

    name: Annotated[str, Text("name")]
    kind: Literal["ddim", "lcm"] = "ddim"
    """DDIM (arXiv 2010.02502, equations 12 and 16), or multistep consistency sampling (arXiv 2310.04378, algorithm 3)."""
    steps: Annotated[int, Between(1, 1000)] = 25
    """N, number of sampling steps."""
    eta: Annotated[float, Between(0, 1)] = 1.0
    """Share of the ancestral noise: 1 is ancestral sampling, 0 is deterministic.  ``lcm`` always draws all of it (and reads
    this only with ``method=das_released``, whose guidance and weights take it, and the noise not)."""
    guidance_scale: Annotated[float, Between(1, 100, below=NO_GUIDANCE)] = 4.0
    """s of classifier-free guidance, eps = eps_u + s (eps_c - eps_u), or what a consistency model reads of it.  1 is no
    guidance: the negative half is not computed where nothing reads it."""
    guidance_rescale: Annotated[float, Between(0, 1)] = 0.0
    """phi of arXiv 2305.08891, section 3.4: bring the deviation of eps back to that of eps_c; 0 leaves it."""


@dataclass(frozen=True)
class PhasesConfig:
    """Where DyMO's phases end, as fractions t/T of the training timesteps, so they follow any step count."""

    semantic_until: Annotated[float, Between(0, 2)] = 0.8
    """The semantic objective alone while t/T is at least this (800 of 1000 in the paper)."""
    both_until: Annotated[float, Between(0, 2)] = 0.5
    """Both objectives while t/T is at least this (500 of 1000); the preference alone below it."""
    preference_until: Annotated[float, Between(0, 2)] = 0.0
    """Steps with t/T below this are not guided."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What guidance differentiates."""

    preference: Annotated[float, Between(0, 1e6)] = 0.0
    """Weight of L_R, the reward's loss on the predicted picture; 0 leaves it out: nothing is decoded then."""
    semantic: Annotated[float, Between(0, 1e6)] = 0.0
    """K, weight of L_A, the loss on cross-attention maps; 0 leaves it out."""
    phases: PhasesConfig = field(default_factory=PhasesConfig)
    content_rate: Annotated[float, Between(0, 1e3)] = 1.0
    """k in the middle phase's weight w = 1 - exp(-k delta), delta the relative change of the prediction."""
    dynamic: bool = True
    """Weigh the middle phase by w (K w on L_A, 1 - w on L_R); false for constant weights."""
    change: Literal["normalised", "raw"] = "normalised"
    """Whether delta compares predictions normalised channel by channel, as released, or as they are, as printed."""
    compare_with: Literal["evaluation", "timestep"] = "evaluation"
    """Delta is against the last evaluation, also within a step, as released, or the last timestep, as printed."""
    detach_weight: bool = False
    """Keep w out of the gradient (the released code differentiates through it)."""
    attention_half: Literal["both", "prompt"] = "both"
    """Whose maps L_A reads: those of both guidance halves, as released, or the prompt's alone."""
    copies: Annotated[int, Between(0, 1000)] = 0
    """Randomly altered copies of the predicted picture that are scored beside it, each a reward evaluation more."""
    clamp: bool = False
    """Score the picture clamped to [0, 1], as it will be kept: a saturated pixel has no gradient then."""
    score: Literal["plain", "released"] = "plain"
    """L_R of V views' scores: -sum(s) / sqrt(V), or the released code's sign-blind norm -sqrt(sum s^2)."""


@dataclass(frozen=True)
class GuidanceConfig:
    """How the gradient moves a step."""

    rule: Literal["none", "correction", "polyak", "value", "constant", "variance"] = "none"
    """rho, the factor of the gradient g, over strength * coefficient[phase].  ``correction`` ||c||/||g||, c = eps_c - eps_u;
    ``polyak`` ||eps||/||g||^2; ``value`` 1/|loss|; ``constant`` 1; ``variance`` sigma^2 times lambda/alpha of
    ``method.tempering``, or times 1 without it."""
    form: Literal["mean", "eps"] = "mean"
    """``mean`` moves the step's mean by -rho g; ``eps`` adds sqrt(1 - abar) rho g to the predicted noise."""
    strength: Annotated[float, Between(0, 1e3)] = 1.0
    """Common factor of all phases and of ``method.clean``; 0 is plain sampling, bit for bit."""
    coefficient: Annotated[Triple, Between(0, 1e3)] = (1.5, 1.0, 1.0)
    """Factor of rho_t in each phase."""


@dataclass(frozen=True)
class CleanConfig:
    """How a gradient that stops at the clean prediction x0 moves it; the network is not differentiated."""

    rule: Literal["none", "correction", "value", "constant"] = "none"
    """The factor of the gradient over ``rate``, as in ``guidance.rule``."""
    form: Literal["x0", "eps"] = "x0"
    """``x0`` keeps the predicted noise (MPGD); ``eps`` lets it follow (universal guidance, backward)."""
    iterations: Annotated[int, Between(1, 1000)] = 1
    """m, gradient steps from each prediction."""
    rate: Annotated[float, Between(0, 1e3)] = 1.0
    """mu, factor of each."""


@dataclass(frozen=True)
class RecurrenceConfig:
    """Time travel: how often a step is repeated after noising back to its own level."""

    rule: Literal["none", "fixed", "gradient_norm"] = "none"
    """``gradient_norm`` is DyMO's r_t = floor(h_t ||g||) by the first evaluation of the step."""
    rounds: Annotated[Rounds, Between(0, 1000)] = (0, 0, 0)
    """r of the fixed rule, in each phase."""
    rate: Annotated[Triple, Between(0, 1e6)] = (1.0, 1.0, 3.0)
    """h_t in each phase."""
    cap: Annotated[int, Between(0, 1000)] = 4
    """Most rounds that a step may take."""


@dataclass(frozen=True)
class ValueConfig:
    """The reward that a noisy state can expect, by which search and particle filters go."""

    estimate: Literal["posterior", "looks", "small_decoder", "network"] = "posterior"
    """``posterior``: the reward of the decoded one-step prediction; ``looks``: the mean over several predictions after noising
    the first again; ``small_decoder``: as posterior, through an AutoencoderTiny; ``network``: a regression network's answer on
    the noisy latents, for which nothing is predicted or decoded (SVDD-MC)."""
    looks: Annotated[int, Between(1, 100)] = 4
    """M, predictions of ``looks``."""
    weights: str | None = None
    """Folder or repository of the small decoder or of the value network; null for what comes with the backbone (shapes: both;
    sd15, lcm and sdxl: the decoders madebyollin/taesd and madebyollin/taesdxl)."""


@dataclass(frozen=True)
class SearchConfig:
    """Candidates for each particle's next state, of which one goes on (SVDD, DSearch)."""

    candidates: Annotated[int, Between(1, 65536)] = 1
    """M, candidates of a particle at a step; 1 does not search."""
    widen: Annotated[float, Between(0, 1e4)] = 1.0
    """w, factor of M at a searched step."""
    schedule: Literal["all", "uniform", "linear", "exponential", "list"] = "all"
    """How likely each step is searched: always, 0.7, (i + 10)/S, 1 - exp(-3 i/S); or as listed."""
    probabilities: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Of ``schedule=list``: one for each step but the last."""
    otherwise: Literal["few", "one"] = "few"
    """A step that is not searched draws M candidates (as released), or one that nobody looks at."""
    temperature: Annotated[float, Between(0, 1e9)] = 0.0
    """alpha: a candidate of value v goes on with probability proportional to exp(v/alpha); 0 takes the best."""
    drop: Literal["none", "exponential", "quadratic", "linear", "sigmoid", "list"] = "none"
    """How particles get fewer, from ``method.particles`` to ``method.returned``; searched steps widen as they do."""
    populations: Annotated[tuple[int, ...], Between(1, 65536)] = ()
    """Of ``drop=list``: particles after each step but the last."""
    force_last: bool = True
    """Drop to ``method.returned`` in the end whatever the formula says; the released code may keep more."""
    replace: Annotated[float, Between(0, 1)] = 0.0
    """rho: floor(rho * particles) of a group, the worst, are replaced at each step by copies of others (DSearch-R)."""
    replace_temperature: Annotated[float, Between(1e-9, 1e9)] = 1.0
    """Copies are drawn with probability proportional to exp(v/temperature)."""
    standardise: bool = True
    """Measure v in deviations of the group for that; false for raw reward units, as released."""


@dataclass(frozen=True)
class SteeringConfig:
    """Feynman-Kac steering: particles are resampled at some steps by a potential of their expected rewards."""

    potential: Literal["none", "max", "diff", "add", "rt"] = "none"
    """log G over rate: the best value so far; the value less the last; the sum so far; the value alone."""
    rate: Annotated[float, Between(0, 1e9)] = 10.0
    """lambda: particles are drawn towards exp(lambda r)."""
    start: Annotated[float, Between(0, 1)] = 0.2
    """First step at which particles are resampled, as a share of all steps."""
    end: Annotated[float, Between(0, 1)] = 0.8
    """Last one."""
    every: Annotated[float, Between(0, 1)] = 0.2
    """Share of the steps from one to the next."""
    floor: float | None = None
    """What is remembered before the first value; null for nothing at all with ``max`` and 0 with the others (the released
    code's is 0, so that with ``max`` all particles below it are alike)."""
    released: bool = False
    """As released: the children of a step are resampled by their parents' values, weights are clamped at 1e10 and
    forgotten where nothing is resampled, and the end counts the last prediction instead of the finished picture."""


@dataclass(frozen=True)
class TemperingConfig:
    """DAS: intermediate targets p(z_t) exp(lambda_t v(z_t) / alpha) with lambda rising to 1."""

    rule: Literal["none", "schedule", "adaptive", "freedom", "full"] = "none"
    """lambda: by the schedule; as far as the effective sample size allows; ||eps_c - eps_u|| over ||gradient||; always 1."""
    alpha: Annotated[float, Between(1e-12, 1e12)] = 1.0
    """Scale of the reward: the target is p(x) exp(r(x)/alpha)."""
    schedule: Literal["exp", "polynomial", "full", "previous"] = "exp"
    """(1 + gamma)^k - 1, or (gamma k)^exponent, at most 1, k steps after the start; 1; or, for ``adaptive``, no bound but the
    last temperature."""
    gamma: Annotated[float, Between(0, 1e6)] | None = 0.008
    """It belongs to a number of steps (0.008 to 100): of fewer, lambda jumps to 1 at the end.  null where ``full_at`` decides."""
    full_at: Annotated[float, Between(0, 1)] | None = None
    """Share of the steps at which lambda reaches 1, in place of a ``gamma``."""
    exponent: Annotated[float, Between(1e-3, 1e3)] = 1.0
    start: Annotated[float, Between(0, 1)] = 0.0
    """Share of the steps that are plain sampling first."""
    released: bool = False
    """As released: guidance and twists do not follow their particles when those are resampled, lambda is searched for with
    Adam, and a consistency model's guidance, noise and weights disagree."""

    def growth(self, steps: int) -> float:
        """The gamma of a number of steps: with ``full_at`` that with which lambda is 1 so far into them."""
        if self.gamma is not None:
            return self.gamma
        assert self.full_at is not None
        count = max((self.full_at - self.start) * steps, 1.0)
        # Rounded, so that a published gamma comes back as it is written.
        return round(1 / count if self.schedule == "polynomial" else 2 ** (1 / count) - 1, 8)


@dataclass(frozen=True)
class ResamplingConfig:
    """How particles are resampled by their weights."""

    scheme: Literal["multinomial", "stratified", "systematic", "residual", "ssp"] = "systematic"
    """How ancestors are drawn."""
    threshold: Annotated[float, Between(0, 1)] | None = 0.5
    """Resample where the effective sample size is below this share of the particles; null for always."""


@dataclass(frozen=True)
class MethodConfig:
    """A method: a choice of the loop's parts."""

    name: Annotated[str, Text("name")]
    particles: Annotated[int, Between(1, 4096)] = 1
    """P, pictures in the making of which ``returned`` are kept."""
    returned: Annotated[int, Between(1, 4096)] = 1
    """Pictures kept of each group of particles; a prompt's samples k*returned to (k+1)*returned - 1 come of one group."""
    choose: Literal["first", "best", "draw", "weight"] = "first"
    """Which: the first, those of the highest reward when finished, draws by weight, those of the largest weight."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    tempering: TemperingConfig = field(default_factory=TemperingConfig)
    resampling: ResamplingConfig = field(default_factory=ResamplingConfig)

    @property
    def guided(self) -> bool:
        """Whether anything is differentiated."""
        return self.guidance.rule != "none" or self.clean.rule != "none"

    @property
    def searches(self) -> bool:
        """Whether candidates are compared, or particles dropped or replaced."""
        search = self.search
        return (
            max(search.candidates, search.candidates * search.widen) >= 2
            or search.drop != "none"
            or search.replace > 0
        )

    @property
    def weighs(self) -> bool:
        """Whether particles carry weights."""
        return self.steering.potential != "none" or self.tempering.rule != "none"

    @property
    def branches(self) -> bool:
        """Whether fresh noise at each step is needed to tell particles or candidates apart."""
        return self.searches or self.weighs

    @property
    def reads_correction(self) -> bool:
        """Whether the classifier-free correction eps_c - eps_u decides anything beside the guided prediction."""
        rules = (self.guidance.rule, self.clean.rule)
        return ("correction" in rules and self.guidance.strength > 0) or self.tempering.rule == "freedom"

    @property
    def reward_needs_gradient(self) -> bool:
        """Whether the reward is differentiated."""
        return self.guided and self.objective.preference > 0

    @property
    def uses_reward(self) -> bool:
        """Whether the reward decides anything about the pictures."""
        return self.choose == "best" or self.branches or self.reward_needs_gradient


@dataclass(frozen=True)
class RewardConfig:
    """What guides or selects: a weighted sum of registered rewards."""

    name: Annotated[str, Text("name")]
    terms: dict[str, float] = field(default_factory=dict)
    """Weight by name of the reward."""

    @property
    def label(self) -> str:
        """What rows call it: the only term's name, or the sum spelt out."""
        if len(self.terms) == 1 and next(iter(self.terms.values())) == 1:
            return next(iter(self.terms))
        return "+".join(f"{weight:g}*{name}" for name, weight in sorted(self.terms.items()))


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
class SemanticsConfig:
    """Which words of a prompt are objects and which describe them, for methods with ``objective.semantic``."""

    name: Annotated[str, Text("name")]
    source: Literal["auto", "shapes", "none", "file", "llm", "rules"] = "auto"
    """``auto``: the grammar's own parse (``shapes``) on ``backbone=shapes``, else our rules of English."""
    path: str | None = None
    """Graphs in DyMO's published JSON format: a .json or .jsonl file, or a folder of them."""
    missing: Literal["error", "empty", "rules"] = "error"
    """For a prompt without a graph (file), or whose graph could not be had (llm)."""
    matching: Literal["ours", "released"] = "ours"
    """How words are found in the prompt; ``released`` does as DyMO's code, its oddities too."""
    global_words: bool = False
    """Pair the graph's style words ("watercolor") with every object."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1."""
    model: str | None = None
    """The endpoint's name of the model."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key, if it wants one; null sends none."""
    local: str | None = None
    """Instead of an endpoint: a chat model of transformers, a folder or owner/name in the hub's cache."""
    retries: Annotated[int, Between(0, 20)] = 2
    """How often to ask again after a failure or an answer that is no graph."""
    timeout: Annotated[float, Between(0.1, 3600)] = 60.0
    """Seconds to wait for an answer."""


@dataclass(frozen=True)
class RunConfig:
    """How the work is done; nothing here changes a picture's identity."""

    folder: str | None = None
    """Where results go; null: <root>/<backbone>-<method>-<prompts>-seed<seed>[-<other options>]."""
    root: str = "outputs"
    """Folder of the default folders."""
    batch_size: Annotated[int, Between(1, 4096)] | None = None
    """Rows of every network call; smaller ones are padded, so that company never changes a picture.  Null: 8 on shapes and toy
    backbones; on others 1 where a gradient goes through the network or on a CPU, else 4."""
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
class RowConfig:
    """A row of a published table, and the run that stands beside it."""

    paper: str | None = None
    """The row's name in the paper's file (``align/analysis/paper``); null for a run that the paper does not have."""
    of_table: Annotated[int, Between(1, 100)] | None = None
    """Number of the table that the paper has it in; null for this one."""
    label: str | None = None
    """What reports call it; null for ``paper``."""
    full: tuple[str, ...] | None = None
    """Options of the run on the published models; null: there is none."""
    shapes: tuple[str, ...] | None = None
    """Likewise on the shapes world."""
    needs: tuple[str, ...] = ()
    """Options without which it is not run: what the user has to bring (``--for ROW OPTION=VALUE``)."""
    why_not: str = ""
    """Why it is not run where it is not."""
    note: str = ""
    """In what the run is known to differ from the paper's."""


@dataclass(frozen=True)
class TableConfig:
    """A published table: ``python -m align table EXPERIMENT`` runs its rows under the experiment's protocol."""

    paper: Annotated[str, Text("name")]
    """The paper's file in ``align/analysis/paper``."""
    number: Annotated[int, Between(1, 100)]
    """Number of the table there."""
    title: str
    baseline: str
    """The row that others are compared with."""
    shapes: str
    """The experiment that holds the protocol of the same table on the shapes world."""
    rows: dict[str, RowConfig]
    """By the names that the command line calls them."""


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
    semantics: SemanticsConfig = field(default_factory=lambda: SemanticsConfig("auto"))
    runner: RunnerConfig = field(default_factory=lambda: RunnerConfig("local"))
    run: RunConfig = field(default_factory=RunConfig)
    seed: Annotated[int, Between(0, 2**63 - 1, below="there is no random seed")] = 0
    """Seed of the noise of every picture."""
    samples: Annotated[int, Between(1, 1_000_000)] = 1
    """Pictures of each prompt."""
    negative: str = ""
    """Negative prompt of all prompts."""
    table: TableConfig | None = None
    """The published table that the protocol is of; a run by itself does not read it."""

    @property
    def one_half(self) -> bool:
        """Whether the negative half is left out of every evaluation: at scale 1 nothing but these reads it."""
        method, network = self.method, self.backbone.kind == "unet" and not self.backbone.consistency
        maps = (
            method.guidance.rule != "none" and method.guidance.strength > 0 and method.objective.semantic > 0
        )
        both = maps and method.objective.attention_half == "both"
        return network and self.sampler.guidance_scale == 1 and not (both or method.reads_correction)


GROUPS = (
    "backbone",
    "sampler",
    "method",
    "reward",
    "metrics",
    "prompts",
    "semantics",
    "runner",
    "experiment",
)
"""The config groups, in the order of the help."""
