"""SPO: step-by-step preference optimisation (Liang et al., CVPR 2025, arXiv 2406.04314).

Ancestral sampling with the present weights.  From a step on, ``candidates`` states are drawn from one; the next prediction of each
is judged at its own noise level, best and worst become a pair if they differ by more than ``threshold``, and the sampling goes on from
one of them by chance.  Each pair is learned from once, right after: the loss is DPO's on the ratios of the two transitions'
probabilities under the network with and without the updates, each ratio clipped as PPO's are.

The log-probabilities are means over the elements of a latent, as in the published code, and not sums.  There too winner and loser of
a pair are separate rows of a call; where they come from one state their predictions are the same, and are computed once here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from align.processes.base import Gaussian, Step
from align.rewards.base import Reward
from align.sampling.noise import Noise, NoiseStream, candidate
from align.training.base import Example
from align.training.policy import Policy
from align.training.ranks import Ranks
from align.training.rounds import Rounds


@dataclass(frozen=True)
class Preferences:
    """How pairs are found and what is made of them.

    Attributes:
        candidates: K states that are drawn from one.
        threshold: by how much the two-way probabilities of best and worst have to differ.
        first: index of the first step that splits.
        inner: ordinary steps that every candidate walks before it is judged.
        beta: how strongly the loss holds to the reference.
        clip: c; ratios outside of 1 - c to 1 + c give no gradient.
    """

    candidates: int = 4
    threshold: float = 0.3
    first: int = 4
    inner: int = 0
    beta: float = 10.0
    clip: float = 0.1


@dataclass(frozen=True)
class Pair(Example):
    """Two transitions of one prompt at one step.

    Attributes:
        z: (1, ...) latents that both come from, or (2, ...) those of winner and loser.
        z_next: (2, ...) what they led to.
    """

    prompt: str
    step: int
    z: Tensor
    z_next: Tensor


@dataclass(frozen=True)
class Comparison:
    """What the K candidates of B prompts were judged by.

    Attributes:
        scores: (K, B).
        transitions: index of the step, latents (K or 1, B, ...) before and (K, B, ...) after, one for each step of the block.
    """

    scores: Tensor
    transitions: tuple[tuple[int, Tensor, Tensor], ...]


def blocks(steps: Sequence[Step], first: int, inner: int) -> list[Sequence[Step]]:
    """The steps from ``first`` on that draw noise, in blocks of one that splits and ``inner`` that walk.

    Where blocks are longer than one, the last step belongs to the block before rather than being one by itself.
    """
    there = [step for step in steps[first:] if step.std > 0]
    found = [there[k : k + inner + 1] for k in range(0, len(there), inner + 1)]
    if inner and len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [[*found[-2], *found[-1]]]
    return list(found)


def choose(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Best and worst of (K, B) scores for each prompt, and whether they are a pair: each (B,).

    The two-way probabilities differ by tanh of half the gap.  Scores that are not finite make no pair.
    """
    winner, loser = scores.argmax(dim=0), scores.argmin(dim=0)
    high, low = (scores.gather(0, one[None])[0] for one in (winner, loser))
    return winner, loser, (torch.tanh((high - low) / 2) > threshold) & scores.isfinite().all(dim=0)


@torch.no_grad()
def compare(
    policy: Policy, reward: Reward, prompts: Sequence[str], noises: Sequence[Noise], how: Preferences
) -> Iterator[Comparison]:
    """Sample B prompts, and compare candidates on the way."""
    steps, number, shape = policy.process.steps, len(prompts), policy.backbone.latent_shape()
    split = [one for block in blocks(steps, how.first, how.inner) for one in block[:1]]
    every = list(prompts) * how.candidates

    def drawn(purpose: str, step: int, k: int = 0) -> Tensor:
        rows = [candidate(noise, k).normal(purpose, step, 0, shape) for noise in noises]
        return torch.stack(rows).to(policy.device)

    def of_candidates(step: Step) -> Tensor:
        return torch.stack([drawn("step", step.index, k) for k in range(how.candidates)])

    z = policy.process.initial * drawn("initial", 0)
    for step in steps[: split[0].index]:
        x0, eps = policy.predict(z, [step] * number, prompts)
        z = policy.process.kernel(x0, eps, step).sample(drawn("step", step.index))
    x0, eps = policy.predict(z, [split[0]] * number, prompts)
    for block in blocks(steps, how.first, how.inner):
        here = z[None]
        transitions = []
        for step in block:
            if step is not block[0]:
                x0, eps = policy.predict(here.flatten(0, 1), [step] * len(every), every)
                x0, eps = (one.view(how.candidates, number, *shape) for one in (x0, eps))
            after = policy.process.kernel(x0, eps, step).sample(of_candidates(step))
            transitions.append((step.index, here, after))
            here = after
        rows, last = here.flatten(0, 1), block[-1].index + 1 == len(steps)
        if last:
            scores = policy.score(reward, rows, every, 0)
        else:
            coming = steps[block[-1].index + 1]
            x0, eps = policy.predict(rows, [coming] * len(every), every)
            scores = policy.score(reward, x0, every, coming.timestep)
        yield Comparison(scores.view(how.candidates, number), tuple(transitions))
        if last:
            return
        shares = [noise.uniform("continue", block[-1].index + 1, 0, (1,)) for noise in noises]
        kept = (torch.cat(shares) * how.candidates).long().to(rows.device) * number
        kept = kept + torch.arange(number, device=rows.device)
        z, x0, eps = rows[kept], x0[kept], eps[kept]


def pairs_of(comparison: Comparison, prompts: Sequence[str], threshold: float) -> list[Pair]:
    """The pairs of a comparison, by transition and within it by prompt."""
    winner, loser, valid = (one.tolist() for one in choose(comparison.scores, threshold))
    found = []
    for step, before, after in comparison.transitions:
        for b in (b for b in range(len(prompts)) if valid[b]):
            both = [winner[b], loser[b]]
            z = before[:, b] if len(before) == 1 else before[both, b]
            found.append(Pair(f"{prompts[b]}\x1f{step}", prompts[b], step, z.cpu(), after[both, b].cpu()))
    return found


def mean_log_prob(kernel: Gaussian, z: Tensor) -> Tensor:
    """Log-density of (P, ...) under a kernel, its mean over the elements of each: (P,)."""
    each = -((z - kernel.mean) ** 2) / (2 * kernel.std**2) - math.log(kernel.std) - math.log(2 * math.pi) / 2
    return each.flatten(1).mean(dim=1)


def preference_loss(log_ratio: Tensor, beta: float, clip: float) -> tuple[Tensor, Tensor]:
    """- ln sigmoid(beta (ln rho_w - ln rho_l)) of each of n pairs, (n,), and the clipped ratios rho, (2, n).

    ``log_ratio`` (2, n): of winners and losers, log-probability under the policy minus that under the reference.
    """
    ratio = log_ratio.exp().clamp(1 - clip, 1 + clip)
    won, lost = ratio.log()
    return -F.logsigmoid(beta * won - beta * lost), ratio.detach()


@dataclass
class Spo:
    """The lesson.

    Attributes:
        prompts: those of a round.
        reward: judges candidates.
        noise: of a prompt in an epoch.
    """

    policy: Policy
    reward: Reward
    prompts: Rounds[str]
    how: Preferences
    noise: Callable[[str, int], Noise]

    @staticmethod
    def keyed(seed: int) -> Callable[[str, int], Noise]:
        """Noise by seed, prompt and epoch."""
        return lambda prompt, epoch: NoiseStream(seed, prompt, epoch)

    def collect(self, round_: int, ranks: Ranks) -> list[Pair]:
        epoch, every = self.prompts(round_)
        prompts = ranks.share(every)
        if not prompts:
            return []
        noises = [self.noise(prompt, epoch) for prompt in prompts]
        comparisons = compare(self.policy, self.reward, prompts, noises, self.how)
        return [pair for one in comparisons for pair in pairs_of(one, prompts, self.how.threshold)]

    def loss(self, examples: Sequence[Pair]) -> tuple[Tensor, dict[str, Tensor]]:
        with self.policy.lora.off(), torch.no_grad():
            reference = self.log_probs(examples)
        each, ratio = preference_loss(self.log_probs(examples) - reference, self.how.beta, self.how.clip)
        free = (ratio > 1 - self.how.clip) & (ratio < 1 + self.how.clip)
        return each.mean(), {
            "ratio_winner": ratio[0].mean(),
            "ratio_loser": ratio[1].mean(),
            "clipped": 1 - free.float().mean(),
        }

    def log_probs(self, pairs: Sequence[Pair]) -> Tensor:
        """Of the transitions of winners and losers with the present weights, (2, n)."""
        device = self.policy.device
        z, after = (torch.cat([getattr(pair, name) for pair in pairs]).to(device) for name in ("z", "z_next"))
        rows = [pair for pair in pairs for _ in pair.z]
        steps = [self.policy.process.steps[pair.step] for pair in rows]
        x0, eps = self.policy.predict(z, steps, [pair.prompt for pair in rows])
        found, row = [], 0
        for k, pair in enumerate(pairs):
            mine = slice(row, row + len(pair.z))
            kernel = self.policy.process.kernel(x0[mine], eps[mine], self.policy.process.steps[pair.step])
            found.append(mean_log_prob(kernel, after[2 * k : 2 * k + 2]))
            row += len(pair.z)
        return torch.stack(found, dim=1)


def costs(steps: Sequence[Step], how: Preferences, prompts: int) -> list[str]:
    """What the training takes for a prompt, in lines for people."""
    network, judged, pairs = per_prompt(steps, how)
    return [
        f"a prompt takes {network} network evaluations under guidance, {judged} decoded and judged pictures, and at most {pairs} "
        f"pairs, each an evaluation with its backward pass and one without; there are {prompts} prompts"
    ]


def per_prompt(steps: Sequence[Step], how: Preferences) -> tuple[int, int, int]:
    """Network evaluations and judged pictures of a prompt's sampling, and the most pairs that it gives."""
    found = blocks(steps, how.first, how.inner)
    splits, walked = len(found), sum(len(block) - 1 for block in found)
    last = found[-1][-1].index + 1 == len(steps)
    network = found[0][0].index + 1 + how.candidates * (splits - last + walked)
    return network, how.candidates * splits, splits + walked
