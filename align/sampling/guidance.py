"""How a gradient moves a step: the noisy latents (``Guidance``), their noise (``NoiseGuidance``), the clean prediction (``CleanGuidance``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Gaussian, Pulled, Step, clean_and_noise
from align.sampling.noise import Draws
from align.sampling.objective import Terms
from align.sampling.state import Estimate, per_row
from align.sampling.whitening import Whitening, phases, ranks, spectrum

Rule = Literal["correction", "velocity", "polyak", "value", "constant", "variance"]
"""What the factor rho of a gradient g is, besides the coefficient; all norms per particle in float32.

* ``correction``: ||c|| / ||g||, c the classifier-free correction (released DyMO, FreeDoM): the step's length does not depend
  on the loss's scale;
* ``velocity``: a ||eps - x0|| / ||g||, a share of what a flow moves by, in units of noise as c is: for models without a correction;
* ``polyak``: ||eps|| / ||g||^2 (DyMO as printed);
* ``value``: 1 / |loss| (DPS, arXiv 2209.14687, with a reward in the residual's place);
* ``constant``: 1;
* ``variance``: sigma^2 lambda / alpha, the kernel's variance and the particle's tilt: to first order the proposal that a
  particle filter of that temperature would draw from (DAS, arXiv 2501.05803, equation 11).
"""


def step_size(rule: Rule, estimate: Estimate, norm: Tensor, step: Step) -> Tensor:
    """The factor rho without its coefficient, (P,); zero where ``norm`` (P,), the gradient's, is."""
    safe = norm.clamp(min=1e-30)
    if rule == "correction":
        rho = estimate.correction.float().flatten(1).norm(dim=1) / safe
    elif rule == "velocity":
        rho = step.a * (estimate.eps - estimate.x0).float().flatten(1).norm(dim=1) / safe
    elif rule == "polyak":  # Divided twice: the square of a small norm underflows.
        rho = estimate.eps.float().flatten(1).norm(dim=1) / safe / safe
    elif rule == "value":
        rho = 1 / estimate.loss.abs().clamp(min=1e-30)
    else:
        rho = torch.ones_like(norm)
    return torch.where(norm > 0, rho, torch.zeros_like(norm))


@dataclass(frozen=True)
class Guidance:
    """A step against the gradient of the loss with respect to the noisy latents.

    Attributes:
        strength: common factor, at least 0; with 0 nothing is differentiated at all.
        coefficient: factor of each of the three phases.
        rule: what else the factor is made of.
        form: ``mean`` moves the kernel's mean by -rho g (DyMO, FreeDoM, DPS); ``eps`` adds s rho g to
            the predicted noise, and x0 follows (universal guidance's forward part, arXiv 2302.07121).
    """

    strength: float
    coefficient: tuple[float, float, float]
    rule: Rule = "correction"
    form: Literal["mean", "eps"] = "mean"

    def step(self, estimate: Estimate, terms: Terms, step: Step, tilt: Tensor) -> Tensor:
        """-rho g, (P, C, h, w); zero where there is no gradient.  ``tilt`` is (P,), lambda / alpha of each particle."""
        length = self.strength * self.coefficient[terms.phase]
        if self.rule == "variance":
            rho = length * step.std**2 * tilt.to(estimate.gradient_norm)
        else:
            rho = length * step_size(self.rule, estimate, estimate.gradient_norm, step)
        return -per_row(rho, estimate.gradient) * estimate.gradient

    def adjust(self, estimate: Estimate, terms: Terms, step: Step, tilt: Tensor) -> Estimate:
        """The predictions that the kernel is formed from."""
        # Without any signal the noise is known, z/s, and x0 does not depend on z: a gradient by z says nothing.
        if self.form == "mean" or step.a == 0:
            return estimate
        change = -step.s * self.step(estimate, terms, step, tilt)
        # What a noise prediction stands for is linear in z and in the noise, and z stays.
        x0, eps = clean_and_noise(change, torch.zeros_like(change), step, "epsilon")
        return replace(estimate, eps=estimate.eps + eps, x0=estimate.x0 + x0)

    def propose(
        self, kernel: Gaussian, estimate: Estimate, terms: Terms, step: Step, tilt: Tensor, draws: Draws
    ) -> Gaussian:
        """What the next latents are drawn from, of the kernel that ``adjust`` led to."""
        shift = self.shift(estimate, terms, step, tilt)
        return kernel if shift is None else kernel.shifted(shift)

    def shift(self, estimate: Estimate, terms: Terms, step: Step, tilt: Tensor) -> Tensor | None:
        """What to add to the kernel's mean, (P, C, h, w), if anything."""
        return self.step(estimate, terms, step, tilt) if self.form == "mean" else None


@dataclass(frozen=True)
class NoiseGuidance(Guidance):
    """The gradient as noise (NTRK, arXiv 2606.18066): the mean stays where it is, and a share of what is drawn points against it.

    The noise is sqrt(rho) w + sqrt(1 - rho) xi, where rho, at most 1, is ``strength`` times the phase's ``coefficient`` and w is minus
    the gradient, made to pass for a draw; its length does not count.

    Attributes:
        whiten: how it is made to, see ``align.sampling.whitening``; ``phase`` takes magnitudes of a draw of its own.
    """

    whiten: Whitening = "phase"

    def propose(
        self, kernel: Gaussian, estimate: Estimate, terms: Terms, step: Step, tilt: Tensor, draws: Draws
    ) -> Gaussian:
        rho = self.strength * self.coefficient[terms.phase]
        away = -estimate.gradient
        if self.whiten == "phase":
            along = phases(away, draws.normal("white"))
        else:
            along = spectrum(away) if self.whiten == "wgnc" else ranks(away)
        share = torch.where(estimate.gradient_norm > 0, rho, torch.zeros_like(estimate.gradient_norm))
        return Pulled(kernel.mean, kernel.std, along, share)


@dataclass(frozen=True)
class CleanGuidance:
    """Gradient steps on the predicted clean latents; the network is not differentiated.

    Attributes:
        iterations: m, steps from each prediction, at least 1.
        rate: mu, factor of each step, at least 0.
        rule: what else the factor is made of.
        form: ``x0`` keeps the predicted noise (MPGD, arXiv 2311.16424); ``eps`` turns the move into the change of noise that
            it amounts to, eps - (a/s) delta (universal guidance's backward part).
    """

    iterations: int
    rate: float
    rule: Rule = "correction"
    form: Literal["x0", "eps"] = "x0"

    def step(self, gradient: Tensor, estimate: Estimate, step: Step) -> Tensor:
        """One move of x0 against (P, C, h, w) gradients."""
        norm = gradient.float().flatten(1).norm(dim=1)
        return -per_row(self.rate * step_size(self.rule, estimate, norm, step), gradient) * gradient

    def adjust(self, estimate: Estimate, step: Step) -> Estimate:
        """The predictions with x0 moved."""
        moved = replace(estimate, x0=estimate.x0 + estimate.clean_shift)
        if self.form == "x0":
            return moved
        return replace(moved, eps=estimate.eps - step.a / step.s * estimate.clean_shift)
