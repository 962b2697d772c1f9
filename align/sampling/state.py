"""What rides along with the particles, and what is known of their pictures.

Everything that belongs to a particle is re-indexed together by ``take``, so a selection can never leave a
gradient or a previous prediction with the wrong particle.  Indices and the numbers of pictures and groups are the host's
(int64 on the CPU), everything else is on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from align.backbones.base import Conditioning
from align.sampling.host import send

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Rows = TypeVar("Rows", bound="DataclassInstance")
"""Of (P, ...) tensors: a state, an estimate, a prediction..."""
HOST = ("picture", "group")


def take(rows: Rows, index: Tensor) -> Rows:
    """Rows by (Q,) index on the host; all of them in order are themselves."""
    columns: dict[str, Tensor | None] = {f.name: getattr(rows, f.name) for f in fields(rows)}
    first = next(iter(columns.values()))
    assert first is not None
    if len(index) == len(first) and bool((index == torch.arange(len(index))).all()):
        return rows
    there = send(index, first.device)  # once, not again for every field
    picked = (
        part if part is None else part[index if name in HOST else there] for name, part in columns.items()
    )
    return type(rows)(*picked)


def join(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    columns = ([getattr(part, f.name) for part in parts] for f in fields(first))
    return type(first)(*(None if column[0] is None else torch.cat(column) for column in columns))


def gather(parts: Sequence[tuple[Tensor, Rows]]) -> Rows:
    """Rows that were computed apart, each part's (n,) places with it, as one in the order of their places."""
    return take(join([rows for _, rows in parts]), torch.argsort(torch.cat([places for places, _ in parts])))


def in_order(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """As ``gather``, of one tensor."""
    if len(parts) == 1:  # cut from a whole, so in order
        return parts[0][1]
    found = torch.cat([part for _, part in parts])
    return found[send(torch.argsort(torch.cat([places for places, _ in parts])), found.device)]


def per_row(x: Tensor, like: Tensor) -> Tensor:
    """(P,) numbers that multiply the rows of ``like``, (P, ...) of any rank."""
    return x.view(-1, *(1,) * (like.ndim - 1))


@dataclass(frozen=True)
class Pictures:
    """What is known of the pictures of a batch, by picture number.

    Attributes:
        prompts: n texts.
        conditioning: embeddings, n rows.
        pair_weights: (n, L, L) of ``align.semantics.attention_loss.pair_weights``.
        has_pairs: (n,) bool on the host.
        truncated: whether a prompt is longer than the model reads; empty where nobody asked.
        cut_by: encoders that did not read all of it, where others did; likewise.
    """

    prompts: Sequence[str]
    conditioning: Conditioning
    pair_weights: Tensor
    has_pairs: Tensor
    truncated: Sequence[bool] = ()
    cut_by: Sequence[str] = ()

    @staticmethod
    def join(parts: Sequence[Pictures]) -> Pictures:
        """Of pictures one after the other."""
        return Pictures(
            prompts=[prompt for part in parts for prompt in part.prompts],
            conditioning=join([part.conditioning for part in parts]),
            pair_weights=torch.cat([part.pair_weights for part in parts]),
            has_pairs=torch.cat([part.has_pairs for part in parts]),
            truncated=[one for part in parts for one in part.truncated],
            cut_by=[one for part in parts for one in part.cut_by],
        )

    def prompts_of(self, state: State) -> list[str]:
        return [self.prompts[k] for k in state.picture.tolist()]

    def conditioning_of(self, state: State) -> Conditioning:
        return self.conditioning.take(send(state.picture, self.conditioning.prompt.device))


@dataclass(frozen=True)
class State:
    """What the next step needs; P particles, those of one group side by side.

    Attributes:
        z: latents (P, ...).
        picture: (P,) int64 on the host: which of the batch's prompts a particle draws.
        group: (P,) int64 on the host, non-decreasing: particles are selected among those of their own group only; the
            same as ``picture`` but for replays of released code that lets prompts compete.
        log_weights: (P,) float64 importance weights in log space, not normalised: over a group their log-sum-exp is
            the running estimate of the log evidence.
        twist: (P,) float64, log of the potentials that the weights hold of a particle's ancestors.
        statistic: (P,) float64, what a particle filter remembers of a particle's ancestors beside that.
        tilt: (P,) float64, how strongly the next proposal follows the reward's gradient (lambda / alpha).
        previous_x0: (P, ...) prediction of the last evaluation, NaN before the first.
    """

    z: Tensor
    picture: Tensor
    group: Tensor
    log_weights: Tensor
    twist: Tensor
    statistic: Tensor
    tilt: Tensor
    previous_x0: Tensor

    @staticmethod
    def of(z: Tensor, picture: Tensor) -> State:
        """Particles at the start: latents (P, ...) of pictures (P,); each group's weights sum to one."""
        # Not on Apple's devices, which have no float64.
        kind = torch.float32 if z.device.type == "mps" else torch.float64
        zero = torch.zeros(len(z), dtype=kind, device=z.device)
        return State(
            z=z,
            picture=picture,
            group=picture,
            log_weights=send(-torch.bincount(picture)[picture].to(kind).log(), z.device),
            twist=zero,
            statistic=zero,
            tilt=zero + 1,
            previous_x0=torch.full_like(z, torch.nan),
        )

    def take(self, index: Tensor) -> State:
        return take(self, index)

    def slots(self) -> Tensor:
        """(P,) number of each particle within its group, from 0."""
        return torch.arange(len(self.group)) - torch.searchsorted(self.group, self.group)

    def groups(self) -> Iterator[Tensor]:
        counts = torch.bincount(self.group)
        yield from torch.split(torch.arange(len(self.group)), counts[counts > 0].tolist())


@dataclass(frozen=True)
class Estimate:
    """One evaluation of P particles.

    Attributes:
        eps, x0, correction: as in ``align.backbones.base.Prediction``, (P, ...).
        gradient: of the objective's *loss* with respect to z, (P, ...); zero where a particle is not guided.
        gradient_norm: (P,) float32 Euclidean norm of it (with clean guidance alone, of the gradient with respect to x0).
        clean_shift: (P, ...), how far clean guidance moves x0; zero without.
        loss: (P,) float32, the objective; NaN where there is none.
        value: (P,) float32, the expected reward (larger is better); NaN where it was not asked for.
        finite: (P,) bool, false where the loss or its gradient was not finite (the gradient is zero then).
    """

    eps: Tensor
    x0: Tensor
    correction: Tensor
    gradient: Tensor
    gradient_norm: Tensor
    clean_shift: Tensor
    loss: Tensor
    value: Tensor
    finite: Tensor

    @staticmethod
    def of(eps: Tensor, x0: Tensor, correction: Tensor) -> Estimate:
        """Predictions (P, ...) alone."""
        number, device = len(eps), eps.device
        return Estimate(
            eps=eps,
            x0=x0,
            correction=correction,
            gradient=torch.zeros_like(eps),
            gradient_norm=torch.zeros(number, device=device),
            clean_shift=torch.zeros_like(eps),
            loss=torch.full((number,), torch.nan, device=device),
            value=torch.full((number,), torch.nan, device=device),
            finite=torch.ones(number, dtype=torch.bool, device=device),
        )

    def take(self, index: Tensor) -> Estimate:
        return take(self, index)


@dataclass(frozen=True)
class Kept:
    """P evaluated states, of which each has (P,) its ``value`` on the host; -inf where it is not finite."""

    state: State
    estimate: Estimate
    value: Tensor

    def take(self, index: Tensor) -> Kept:
        return Kept(self.state.take(index), self.estimate.take(index), self.value[index])

    @staticmethod
    def gather(parts: Sequence[tuple[Tensor, Kept]]) -> Kept:
        """As ``state.gather``."""
        return Kept(
            gather([(rows, one.state) for rows, one in parts]),
            gather([(rows, one.estimate) for rows, one in parts]),
            in_order([(rows, one.value) for rows, one in parts]),
        )

    def replaced(self, by: Kept, where: Tensor) -> Kept:
        """Those of ``by`` (P,) where it says so."""
        index = torch.arange(len(where)) + len(where) * where.long()
        both = Kept(
            join([self.state, by.state]),
            join([self.estimate, by.estimate]),
            torch.cat([self.value, by.value]),
        )
        return both.take(index)
