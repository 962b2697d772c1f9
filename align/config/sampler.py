"""Options of the process; see ``schema``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between, Text

NO_GUIDANCE = "1 is the prompt without guidance, which other programs call 0"


@dataclass(frozen=True)
class SamplerConfig:
    """The process: how noise becomes a picture."""

    name: Annotated[str, Text("name")]
    kind: Literal["ddim", "lcm", "flow", "few", "glass"] = "ddim"
    """DDIM (arXiv 2010.02502, equations 12 and 16), multistep consistency sampling (arXiv 2310.04378, algorithm 3), flow matching
    on the levels of the checkpoint, or ``few``: listed timesteps down to clean latents, for distilled diffusions.  ``glass`` takes the
    levels of DDIM or of a flow and several network calls for the noise of a step (arXiv 2509.25170)."""
    steps: Annotated[int, Between(1, 1000)] = 25
    """N, number of sampling steps."""
    eta: Annotated[float, Between(0, 1)] = 1.0
    """Share of the ancestral noise: 1 is ancestral sampling, 0 is deterministic.  ``lcm`` always draws all of it (and reads
    this only with the quirk ``lcm_variances``, whose guidance and weights take it, and the noise not)."""
    timesteps: Annotated[tuple[int, ...], Between(0, 9999)] | None = None
    """Of ``few``, at which of the training's timesteps the steps begin, falling; null for as many evenly trailing ones (999, 749, 499,
    249)."""
    start: Literal["level", "unit"] = "level"
    """Likewise the deviation of the first latents: that of their timestep's noise, as Euler's schedulers have it, or 1."""
    rho: Annotated[float, Between(0, 0.999999)] | None = 0.4
    """Of ``glass``, in place of eta: how far the noise before and after a step correlates, where 0 keeps none of it; null for as much
    as in ancestral sampling."""
    inner: Annotated[int, Between(1, 1000)] = 4
    """Likewise M, network calls of a step but the last; 1 is DDIM."""
    kernel: Literal["eta", "cps", "stochastic", "flow_grpo", "vp"] = "eta"
    """Of ``flow``, from the noise level s to s', which noise is drawn anew, of deviation: ``eta`` times the ancestral one, as DDIM;
    ``cps`` s' sin(eta pi/2); ``stochastic`` eta s', for models of few steps; ``flow_grpo`` and ``vp`` those of the programs of Flow-GRPO
    (its noise level is eta) and RBF, which add more than they take away: with few steps pictures are grainy.  ``few`` has ``eta``
    (ancestral Euler) and ``stochastic`` (as a consistency model)."""
    coefficient: Literal["square", "sigma", "constant", "sin", "linear", "clipping", "exp", "tan", "psi"] = (
        "square"
    )
    """Of ``kernel=vp``, the shape of its noise g(r), r from 1 to 0."""
    norm: Annotated[float, Between(0, 1e3)] = 3.0
    """Likewise the factor of g, besides eta."""
    grid: Literal["exp", "linear"] = "exp"
    """Likewise where its steps lie: ``exp`` crowds them where there is almost only noise, ends far from clean (of 10 steps at s = 0.71)
    and counts on a model whose one-step prediction is sharp there."""
    phases: Literal["snr", "steps"] = "snr"
    """What t/T is on a flow, by which phases of a method are placed: that of the timestep of Stable Diffusion of equal signal-to-noise
    ratio, or the share of steps that are left."""
    guidance_scale: Annotated[float, Between(1, 100, below=NO_GUIDANCE)] = 4.0
    """s of classifier-free guidance, eps = eps_u + s (eps_c - eps_u), or what a consistency model reads of it.  1 is no
    guidance: the negative half is not computed where nothing reads it."""
    guidance_rescale: Annotated[float, Between(0, 1)] = 0.0
    """phi of arXiv 2305.08891, section 3.4: bring the deviation of eps back to that of eps_c; 0 leaves it."""
    true_scale: Annotated[float, Between(1, 100, below=NO_GUIDANCE)] | None = None
    """Classifier-free guidance of a network that reads ``guidance_scale`` itself or has none (FLUX): a second half, that of the
    negative prompt, goes through it.  null for none: there is no negative prompt then."""

    @property
    def deterministic(self) -> bool:
        """Whether no step draws noise."""
        if self.kind == "few" and self.steps == 1:
            return True
        if self.kind == "glass":
            return self.steps == 1
        return self.kind != "lcm" and (self.eta == 0 or (self.kernel == "vp" and self.norm == 0))
