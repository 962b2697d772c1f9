"""Every option of ``method``, typed; see ``schema``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.config.ranges import Between, Text
from align.config.search import BacktrackingConfig, RolloverConfig, SearchConfig
from align.config.strategy import (
    DraftConfig,
    LocalSearchConfig,
    NoiseGradientConfig,
    NoiseSearchConfig,
    PromptRewriteConfig,
    PromptSearchConfig,
    TreeSearchConfig,
)

Triple = tuple[float, float, float]
"""A number for each of the three phases of DyMO: semantic only, both, preference only."""
Rounds = tuple[int, int, int]
"""Likewise."""

QuirkName = Literal[
    "sign_blind",
    "raw_values",
    "steered_children",
    "forgetful_weights",
    "stale_gradients",
    "published_ladder",
    "lcm_variances",
    "any_level",
    "lost_gradient",
    "last_iterate",
    "idle_noise",
    "shared_noise",
    "forgetful_pivot",
]
"""Faults of published programs, see ``align.config.quirks``."""


STRATEGIES = {
    "noise_gradient": "iterations",
    "noise_search": "rounds",
    "local_search": "drafts",
    "draft": "candidates",
    "tree_search": "budget",
    "prompt_search": "budget",
    "prompt_rewrite": "by",
}
"""Sections of what wraps whole samplings, and of each the option that is 0 or null where it is not at work."""


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
    """Whether delta compares predictions normalised channel by channel (DyMO's code) or as they are (its paper)."""
    compare_with: Literal["evaluation", "timestep"] = "evaluation"
    """Delta is against the last evaluation, also within a step (DyMO's code), or the last timestep (its paper)."""
    detach_weight: bool = False
    """Keep w out of the gradient."""
    attention_half: Literal["both", "prompt"] = "both"
    """Whose maps L_A reads: those of both guidance halves, or the prompt's alone."""
    copies: Annotated[int, Between(0, 1000)] = 0
    """Randomly altered copies of the predicted picture that are scored beside it, each a reward evaluation more."""
    clamp: bool = False
    """Score the picture clamped to [0, 1], as it will be kept: a saturated pixel has no gradient then."""


@dataclass(frozen=True)
class GuidanceConfig:
    """How the gradient moves a step."""

    rule: Literal["none", "correction", "velocity", "polyak", "value", "constant", "variance", "noise"] = (
        "none"
    )
    """rho, the factor of the gradient g, over strength * coefficient[phase].  ``correction`` ||c||/||g||, c = eps_c - eps_u;
    ``velocity`` a ||eps - x0||/||g||, for models without a correction, a share of what a flow's step moves by;
    ``polyak`` ||eps||/||g||^2; ``value`` 1/|loss|; ``constant`` 1; ``variance`` sigma^2 times lambda/alpha of
    ``method.tempering``, or times 1 without it.  ``noise`` leaves the mean: strength * coefficient[phase] is the share rho of what is drawn
    that points against g, whatever its length."""
    form: Literal["mean", "eps"] = "mean"
    """``mean`` moves the step's mean by -rho g; ``eps`` adds sqrt(1 - abar) rho g to the predicted noise."""
    strength: Annotated[float, Between(0, 1e3)] = 1.0
    """Common factor of all phases and of ``method.clean``; 0 is plain sampling, bit for bit."""
    coefficient: Annotated[Triple, Between(0, 1e3)] = (1.5, 1.0, 1.0)
    """Factor of rho_t in each phase."""
    whiten: Literal["phase", "wgnc", "order"] = "phase"
    """Of ``noise``, how the gradient is made to pass for a draw: its phases with the magnitudes of one at each frequency of a channel; the
    nearest vector whose spectrum is white; or one whose order statistics are typical, tile by tile."""


@dataclass(frozen=True)
class CleanConfig:
    """How a gradient that stops at the clean prediction x0 moves it; the network is not differentiated."""

    rule: Literal["none", "correction", "velocity", "value", "constant"] = "none"
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

    estimate: Literal["posterior", "looks", "lookahead", "small_decoder", "network"] = "posterior"
    """``posterior``: the reward of the decoded one-step prediction; ``looks``: the mean over several predictions after noising
    the first again; ``lookahead``: the reward of the picture that a few further steps without noise make of it; ``small_decoder``: as
    posterior, through an AutoencoderTiny; ``network``: a regression network's answer on the noisy latents, for which nothing is
    predicted or decoded (SVDD-MC)."""
    looks: Annotated[int, Between(1, 100)] = 4
    """M, predictions of ``looks``."""
    steps: Annotated[int, Between(1, 1000)] = 2
    """k, evaluations of ``lookahead``, of which the first is the state's own; on the sampler's levels, and no more than are left."""
    weights: str | None = None
    """Folder or repository of the small decoder or of the value network; null for what comes with the backbone (shapes: both;
    sd15, lcm and sdxl: the decoders madebyollin/taesd and madebyollin/taesdxl)."""


@dataclass(frozen=True)
class SteeringConfig:
    """Feynman-Kac steering: particles are resampled at some steps by a potential of their expected rewards."""

    potential: Literal["none", "max", "diff", "add", "rt"] = "none"
    """log G over rate: the best value so far; the value less the last; the sum so far; the value alone."""
    rate: Annotated[float, Between(0, 1e9)] = 10.0
    """lambda: particles are drawn towards exp(lambda r)."""
    growth: Annotated[float, Between(0, 1e6)] = 0.0
    """gamma: the rate rises to lambda, by min((1 + gamma)^k - 1, 1) the k-th time that particles are resampled; 0 has all of it at
    once."""
    start: Annotated[float, Between(0, 1)] = 0.2
    """First step at which particles are resampled, as a share of all steps."""
    end: Annotated[float, Between(0, 1)] = 0.8
    """Last one."""
    every: Annotated[float, Between(0, 1)] = 0.2
    """Share of the steps from one to the next."""


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
    guide_reward: dict[str, float] = field(default_factory=dict)
    """What gradients follow, weight by name, where it is another than ``reward``, which then chooses and weighs alone."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    rollover: RolloverConfig = field(default_factory=RolloverConfig)
    backtracking: BacktrackingConfig = field(default_factory=BacktrackingConfig)
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    tempering: TemperingConfig = field(default_factory=TemperingConfig)
    resampling: ResamplingConfig = field(default_factory=ResamplingConfig)
    noise_gradient: NoiseGradientConfig = field(default_factory=NoiseGradientConfig)
    noise_search: NoiseSearchConfig = field(default_factory=NoiseSearchConfig)
    local_search: LocalSearchConfig = field(default_factory=LocalSearchConfig)
    draft: DraftConfig = field(default_factory=DraftConfig)
    tree_search: TreeSearchConfig = field(default_factory=TreeSearchConfig)
    prompt_search: PromptSearchConfig = field(default_factory=PromptSearchConfig)
    prompt_rewrite: PromptRewriteConfig = field(default_factory=PromptRewriteConfig)
    quirks: tuple[QuirkName, ...] = ()
    """Faults of published programs, brought back for comparison: see docs/methods.md."""

    @property
    def guided(self) -> bool:
        """Whether anything is differentiated."""
        return self.guidance.rule != "none" or self.clean.rule != "none"

    @property
    def follows_noise(self) -> bool:
        """Whether whole samplings are differentiated by their noise."""
        return self.noise_gradient.iterations > 0

    @property
    def differentiates(self) -> bool:
        """Whether a gradient comes back through network or decoder."""
        return self.guided or self.follows_noise

    @property
    def walks_back(self) -> bool:
        """Whether a gradient comes back through the network."""
        return self.follows_noise or (self.guidance.rule != "none" and self.guidance.strength > 0)

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
    def prunes(self) -> bool:
        """Whether particles are dropped, and nothing is searched beside it."""
        return self.searches and self.search.schedule == "never" and self.search.replace == 0

    @property
    def steers(self) -> bool:
        return self.steering.potential != "none"

    @property
    def tempers(self) -> bool:
        return self.tempering.rule != "none"

    @property
    def weighs(self) -> bool:
        """Whether particles carry weights."""
        return self.steers or self.tempers

    @property
    def rolls(self) -> bool:
        """Whether each particle has a budget that it spends level by level."""
        return self.rollover.budget > 0

    @property
    def backtracks(self) -> bool:
        """Whether particles go back to noisier levels."""
        return self.backtracking.budget > 0

    @property
    def strategies(self) -> tuple[str, ...]:
        """Sections of what wraps whole samplings that are at work; more than one are refused."""
        return tuple(name for name, number in STRATEGIES.items() if getattr(getattr(self, name), number))

    @property
    def spends(self) -> str:
        """What a budget makes more of, see ``BudgetConfig.spend``."""
        if self.strategies:
            return self.strategies[0]
        if self.rolls:
            return "rollover"
        if self.backtracks:
            return "backtracking"
        if self.search.candidates > 1:
            return "candidates"
        return "particles" if self.chooses else "steps"

    @property
    def chooses(self) -> bool:
        """Whether particles are more than the pictures that are returned."""
        return self.choose != "first" or self.weighs or self.search.drop != "none"

    @property
    def branches(self) -> bool:
        """Whether fresh noise at each step is needed to tell particles or candidates apart."""
        return (self.searches and not self.prunes) or self.weighs or self.rolls

    @property
    def values_states(self) -> bool:
        """Whether anything goes by the values of noisy states."""
        return self.branches or self.prunes or self.backtracks

    @property
    def reads_correction(self) -> bool:
        """Whether the classifier-free correction eps_c - eps_u decides anything beside the guided prediction."""
        rules = (self.guidance.rule, self.clean.rule)
        return ("correction" in rules and self.guidance.strength > 0) or self.tempering.rule == "freedom"

    @property
    def reward_needs_gradient(self) -> bool:
        """Whether the reward is differentiated."""
        by_noise = self.follows_noise and self.noise_gradient.estimate == "exact"
        return by_noise or (self.guided and self.objective.preference > 0)

    @property
    def uses_reward(self) -> bool:
        """Whether the reward decides anything about the pictures."""
        return self.judges or self.reward_needs_gradient

    @property
    def judges(self) -> bool:
        """Whether pictures or states are chosen or weighed by a reward."""
        by_strategy = any(
            name != "prompt_rewrite" or self.prompt_rewrite.keep == "better" for name in self.strategies
        )
        return self.choose == "best" or self.values_states or by_strategy
