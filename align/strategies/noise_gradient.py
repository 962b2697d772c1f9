"""The reward's gradient by the noise of a sampling, walked back through all of its steps (DNO, ReNO).

An iterate is a whole sampling.  Its picture is scored, and the gradient goes back in stages: reward to picture, decoder to clean
latents, network calls to the noise, of which each keeps what goes into it and is made once more on the way (unless there are
few).  A penalty joins it, the norm of the sum is cut, and the noise takes a step of an optimiser; both can be projected on what is
white (WGNC).  Each picture has its own norm,
optimiser and penalty; one whose reward or gradient is not finite stays where it is.  The best iterate is kept; the noise after the
last update is sampled too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from align.config.strategy import KEPT_STEPS, NoiseGradientConfig
from align.processes.base import Process
from align.sampling.host import read, send
from align.sampling.ledger import Ledger
from align.sampling.noise import Given, Noise
from align.sampling.predict import Differentiable
from align.sampling.sampler import Request, Sampler, root_mean_square
from align.sampling.whitening import spectrum
from align.strategies.base import Finished, Strategy, Trial, Trials
from align.strategies.hybrid import neighbour, surrogate
from align.strategies.moves import Sphere, clipped
from align.strategies.penalties import gaussian_penalty, norm_penalty

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From rows, what they are decoded to and their rewards to what is carried through the decoder."""
Slot = tuple[str, int]
"""Purpose and step of a draw."""


def slots_of(process: Process, over: str, last: int | None) -> list[Slot]:
    """The draws that are optimised, the last step's first: of the last steps alone, or of all and the start."""
    steps = process.steps if last is None else process.steps[-last:]
    found = [("step", step.index) for step in reversed(steps) if step.std > 0] if over == "all" else []
    return found if last is not None else [*found, ("initial", 0)]


class NoiseGradient(Strategy):
    """Optimises noise by gradients, see above.

    Faults of published programs are arguments of their own, see ``align.config.quirks``: ``differentiable``, how network calls are
    walked back; ``rest``, the noise of a request that is not optimised; ``keep_last``, whether the last picture is kept instead
    of the best; ``idle``, whether the optimiser has draws too that no gradient reaches.

    Attributes:
        slots: the draws that the optimiser has.
        walked: those of them that the gradient reaches.
        penalised: those of them that the penalty reads.
    """

    def __init__(
        self,
        sampler: Sampler,
        options: NoiseGradientConfig,
        *,
        differentiable: type[Differentiable] = Differentiable,
        rest: Callable[[Request], Noise] | None = None,
        keep_last: bool = False,
        idle: bool = False,
    ) -> None:
        parts, wrapped = sampler.parts, copy(sampler)
        steps, predict = parts.process.steps, parts.predict
        walking = differentiable(
            predict.backbone,
            predict.guider,
            predict.calls,
            predict.correction,
            recompute=len(steps) > KEPT_STEPS,
        )
        wrapped.parts = replace(parts, predict=walking)
        super().__init__(wrapped)
        self.options, self.keep_last = options, keep_last
        self.rest = rest or (lambda request: sampler.noise(request, 0))
        self.slots = slots_of(parts.process, options.over, options.last)
        self.walked = self.penalised = frozenset(self.slots)
        if idle:
            self.slots = [*(("step", step.index) for step in reversed(steps)), ("initial", 0)]
            if self.walked != {("initial", 0)}:
                self.penalised |= {("step", steps[-1].index)}
        neighbours = options.neighbours if options.estimate == "hybrid" else 0
        self.samplings = options.iterations * (1 + neighbours) + (not keep_last)

    def rows(self) -> int:
        """Those of one call, as all of them keep what goes back."""
        return self.sampler.parts.predict.calls.most

    def work(self, trials: Trials) -> None:
        noises = [self.sampler.noise(request, 0) for request in trials.requests]
        leaves = [self.drawn(noise) for noise in noises]
        movers = [self.mover(leaf) for leaf in leaves]
        trials.encode(trials.requests)  # outside of any graph
        for iteration in range(self.options.iterations):
            gradients, finite = self.walk_back(trials, noises, leaves, iteration)
            for number, (leaf, mover, gradient) in enumerate(zip(leaves, movers, gradients, strict=True)):
                if not finite[number]:
                    trials.figures[number]["nonfinite_gradients"] += 1
                    continue
                leaf.grad = self.projected(clipped(gradient, self.options.clip))
                mover.step()
                leaf.data.copy_(self.projected(leaf.data))
        if not self.keep_last:
            rows = self.trials_of(trials, leaves)
            self.offer(trials, trials(rows), leaves, self.options.iterations)

    def walk_back(
        self, trials: Trials, noises: Sequence[Noise], leaves: Sequence[Tensor], iteration: int
    ) -> tuple[list[Tensor], list[bool]]:
        """Sample and offer an iterate of each request: loss gradients (S, ...) by its noise, and whether all of them is finite."""
        slope = self.neighbourhood(trials, noises, leaves, iteration) if self.hybrid else None
        owners = list(range(len(leaves)))
        ledger, judge = Ledger(len(leaves)), self.sampler.parts.judge
        with torch.enable_grad():
            rows = self.trials_of(trials, leaves)
            latents = trials.run(rows, ledger)
        prompts = [request.prompt for request in trials.requests]
        pictures, values, by_latents = judge.differentiate(latents, prompts, owners, slope)
        gradients = torch.autograd.grad(latents, leaves, by_latents, allow_unused=True)
        for what in ("decoder_forward", "decoder_backward", "reward_forward"):
            ledger.charge(owners, what)
        if not self.hybrid:
            ledger.charge(owners, "reward_backward")
        if judge.guide is not None and not self.hybrid:  # and what chooses scored them too
            ledger.charge(owners, "reward_forward")
        trials.charge(rows, ledger)
        values = finite_values(pictures, values)
        found = Finished(latents.detach(), pictures, values, values)
        self.offer(trials, found, leaves, iteration)
        whole = []
        for number, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            gradient = torch.zeros_like(leaf) if gradient is None else gradient
            whole.append(gradient + self.penalty_gradient(noises[number], leaf, iteration))
        finite = read(torch.stack([torch.isfinite(one).all() for one in whole])) & torch.isfinite(
            found.values
        )
        return whole, finite.tolist()

    @property
    def hybrid(self) -> bool:
        return self.options.estimate == "hybrid"

    def drawn(self, noise: Noise) -> Tensor:
        """Where one picture's noise begins: (S, ...), to be differentiated."""
        shape = self.sampler.parts.predict.backbone.latent_shape()
        drawn = torch.stack([noise.normal(purpose, step, 0, shape) for purpose, step in self.slots])
        return send(drawn, self.sampler.device).requires_grad_()

    def mover(self, leaf: Tensor) -> torch.optim.Optimizer:
        """The optimiser of one picture's noise, with a state of its own."""
        options = self.options
        if options.optimiser == "sphere":
            return Sphere([leaf], options.rate)
        if options.optimiser == "sgd":
            nesterov = options.nesterov and options.momentum > 0
            return torch.optim.SGD([leaf], options.rate, options.momentum, nesterov=nesterov)
        return torch.optim.AdamW([leaf], options.rate, eps=options.epsilon, weight_decay=options.decay)

    def projected(self, noise: Tensor) -> Tensor:
        """One picture's noise (S, ...), or a step of it, with a white spectrum where that is asked for: each draw by itself."""
        return spectrum(noise) if self.options.project == "wgnc" else noise

    def trials_of(self, trials: Trials, leaves: Sequence[Tensor]) -> list[Trial]:
        """A candidate of each request, with its noise as it is now."""
        return [self.trial(trials, number, leaf) for number, leaf in enumerate(leaves)]

    def trial(self, trials: Trials, owner: int, leaf: Tensor) -> Trial:
        """A candidate of a request whose optimised draws are (S, ...); all others come from where they do."""
        request = trials.requests[owner]
        draws = {
            slot: one if slot in self.walked else one.detach()
            for slot, one in zip(self.slots, leaf, strict=True)
        }
        return Trial(owner, request, Given(draws, self.rest(request)))

    def offer(self, trials: Trials, found: Finished, leaves: Sequence[Tensor], iteration: int) -> None:
        for number, (value, leaf) in enumerate(zip(found.values.tolist(), leaves, strict=True)):
            best = trials.best[number]
            if self.keep_last and math.isfinite(value):
                best.value = -math.inf
            norm = root_mean_square(read(leaf))
            best.offer(
                value, found.pictures[number], found.latents[number], iterate=iteration, noise_norm=norm
            )

    def penalty_gradient(self, noise: Noise, leaf: Tensor, iteration: int) -> Tensor | float:
        """Of the weighed penalty with respect to one picture's noise (S, ...)."""
        options = self.options
        if options.penalty == "none" or options.weight == 0:
            return 0.0
        with torch.enable_grad():
            own = leaf.detach().requires_grad_()
            read_ = [one for slot, one in zip(self.slots, own, strict=True) if slot in self.penalised]
            entries = torch.stack(read_).flatten()
            if options.penalty == "norm":
                penalty = norm_penalty(entries)
            else:
                orders = self.orders(noise, iteration, len(entries))
                width = min(4**options.subsample, len(entries))
                penalty = gaussian_penalty(entries, orders, width)
            (gradient,) = torch.autograd.grad(options.weight * penalty, own)
        return gradient

    def orders(self, noise: Noise, iteration: int, number: int) -> Tensor:
        """Random orders of so many entries for one picture's penalty, (k, number)."""
        drawn = noise.uniform("orders", iteration, 0, (1,))
        generator = torch.Generator().manual_seed(int(drawn * 2**53))
        orders = [torch.randperm(number, generator=generator) for _ in range(self.options.permutations)]
        return torch.stack(orders) if orders else torch.empty(0, number, dtype=torch.long)

    def neighbourhood(
        self, trials: Trials, noises: Sequence[Noise], leaves: Sequence[Tensor], iteration: int
    ) -> Slope:
        """Pictures from noise nearby, and what they tell of the reward's slope."""
        q, radius = self.options.neighbours, self.options.radius
        rows = []
        for number, (noise, leaf) in enumerate(zip(noises, leaves, strict=True)):
            moves = (self.drawn(neighbour(noise, k, iteration)).detach() for k in range(q))
            rows += [self.trial(trials, number, leaf.detach() + radius * move) for move in moves]
        owners, ledger, judge = [row.owner for row in rows], Ledger(len(rows)), self.sampler.parts.judge
        decoded = judge.decode(trials.run(rows, ledger), owners, clamp=False)
        prompts = [trials.requests[owner].prompt for owner in owners]
        scored = judge.score(decoded.clamp(0, 1), prompts, owners)
        for what in ("decoder_forward", "reward_forward"):
            ledger.charge(list(range(len(rows))), what)
        trials.charge(rows, ledger)
        nearby, values = decoded.view(-1, q, *decoded.shape[1:]), scored.view(-1, q)

        def slope(some: Tensor, shown: Tensor, base: Tensor) -> Tensor:
            there = send(some, shown.device)
            return surrogate(nearby[there], values[there], shown, base)

        return slope


def finite_values(pictures: Tensor, values: Tensor) -> Tensor:
    """(P,) values on the host, NaN where the value or its picture (P, 3, H, W) is not finite."""
    sound = torch.isfinite(pictures).flatten(1).all(dim=1) & torch.isfinite(values)
    return read(torch.where(sound, values, torch.nan))
