"""Options of what wraps whole samplings; see ``method``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between

Count = Annotated[int, Between(0, 1_000_000)]
KEPT_STEPS = 4
"""Steps up to which everything is kept for the way back through a sampling; of more, each is made again."""
ORDERS_TOGETHER = 10
"""Orders of a penalty's entries that are on the device at once."""


@dataclass(frozen=True)
class NoiseGradientConfig:
    """The reward's gradient by the noise of a sampling, walked back through all of its steps (DNO, ReNO)."""

    iterations: Count = 0
    """Updates; 0 for none of it.  So many samplings and one more are made, and the best of their pictures is kept."""
    over: Literal["start", "all"] = "start"
    """Which noise is optimised: the start's alone, or that of the steps too."""
    last: Annotated[int, Between(2, 1000)] | None = None
    """Of ``over=all``: walk back through so many last steps only, and optimise their noise; null for all of them and the start."""
    optimiser: Literal["adamw", "sgd", "sphere"] = "adamw"
    """``sphere`` moves by ``rate`` times the norm along the gradient and goes back to the same norm."""
    rate: Annotated[float, Between(0, 1e6)] = 0.01
    """Learning rate."""
    momentum: Annotated[float, Between(0, 0.999)] = 0.9
    """Of ``sgd``."""
    nesterov: bool = True
    """Likewise."""
    epsilon: Annotated[float, Between(0, 1)] = 1e-8
    """Of ``adamw``, beside the root of the mean square."""
    decay: Annotated[float, Between(0, 1)] = 0.0
    """Weight decay of ``adamw``."""
    clip: Annotated[float, Between(0, 1e9)] = 1.0
    """Largest norm of a picture's gradient; 0 leaves it as it is."""
    penalty: Literal["none", "norm", "gaussian"] = "none"
    """What keeps noise likely: ``norm`` is minus the log-density of its norm (ReNO), ``gaussian`` DNO's bounds on the mean and the
    covariance of its entries."""
    weight: Annotated[float, Between(0, 1e6)] = 0.0
    """Factor of the penalty (gamma in DNO)."""
    subsample: Annotated[int, Between(0, 8)] = 1
    """Of ``gaussian``: entries are taken in rows of 4^subsample."""
    permutations: Annotated[int, Between(0, 10_000)] = 100
    """Of ``gaussian``: random orders of the entries, drawn anew for each iteration."""
    estimate: Literal["exact", "hybrid"] = "exact"
    """``hybrid`` estimates the reward's gradient by pictures from noise nearby, and walks it back exactly: for any reward."""
    neighbours: Annotated[int, Between(1, 10_000)] = 4
    """q, pictures of ``hybrid``."""
    radius: Annotated[float, Between(1e-9, 1e3)] = 0.01
    """mu, how far the noise of ``hybrid`` is moved."""


@dataclass(frozen=True)
class NoiseSearchConfig:
    """Search over noise without a gradient: after the plain picture, rounds of candidates; the best picture of all is kept."""

    rounds: Count = 0
    """R; 0 for none of it."""
    propose: Literal["random", "neighbours", "evolution"] = "random"
    """Candidates of a round: independent ones; neighbours of the best so far on its sphere (zero-order search); children of the best
    few (evolutionary search)."""
    candidates: Annotated[int, Between(1, 65536)] = 4
    """N, new ones of a round."""
    cosine: Annotated[float, Between(0, 0.9999999)] = 0.95
    """tau of ``neighbours``: the cosine of a neighbour to the best one; a neighbour is sqrt(2 - 2 tau) norms away."""
    elites: Annotated[int, Between(1, 65536)] = 4
    """E of ``evolution``: the best so far, which have children in turn."""
    rate: Annotated[float, Between(1e-6, 1)] = 0.2
    """beta of ``evolution``: a child has sqrt(1 - beta^2) of its parent's noise, and beta of new noise."""
    populations: Annotated[tuple[int, ...], Between(1, 65536)] = ()
    """New ones of each round, in place of ``candidates``."""
    begin: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Of ``evolution``: the share of the steps at which the children of each round but the first begin, from what their parents were
    there; none for the start.  The rest of the steps is all that such a child costs."""


@dataclass(frozen=True)
class LocalSearchConfig:
    """Search around the best finished picture: it is noised again to a level on the way, and finished anew by several children."""

    drafts: Count = 0
    """N, whole samplings to begin with; 0 for none of it."""
    children: Annotated[tuple[int, ...], Between(1, 65536)] = ()
    """Of each round."""
    begin: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """The share of the steps at which the children of each round begin.  The rest of the steps is all that a child costs."""


@dataclass(frozen=True)
class PromptSearchConfig:
    """Search over words added to a prompt and over negative words; pictures are always judged for the user's own prompt."""

    budget: Count = 0
    """Candidates that are tried, the user's own prompt first; 0 for none of it."""
    images: Annotated[int, Between(1, 4096)] = 1
    """Pictures of a candidate, whose mean reward counts; of the best one the first is kept."""
    words: str | None = None
    """Table of words: ``pictures``, ``shapes``, or a file of your own in YAML or JSON; null for that of the backbone's world."""
    population: Annotated[int, Between(1, 65536)] = 20
    """P, candidates of a generation; what mutants and children leave of it are drawn freely."""
    parents: Annotated[int, Between(1, 65536)] = 10
    """K, the best ever tried, of which mutants and children are made."""
    mutants: Annotated[int, Between(0, 65536)] = 10
    """M of each generation but the first."""
    children: Annotated[int, Between(0, 65536)] = 10
    """X, each word from either of two parents."""
    mutation: Annotated[float, Between(0, 1)] = 0.1
    """Probability with which a mutant draws a word anew."""


@dataclass(frozen=True)
class PromptRewriteConfig:
    """A language model writes the prompt anew; pictures are always judged for the user's own prompt."""

    by: Literal["chat", "model"] | None = None
    """``chat``: the model of ``semantics=llm``; ``model``: a causal language model that was trained for it; null for none of it."""
    keep: Literal["better", "rewrite"] = "better"
    """Draw the user's own prompt too and keep the better picture by the reward, or draw the rewritten prompt alone."""
    model: str | None = None
    """Of ``by=model``: a folder, or owner/name in the hub's cache."""
    tokenizer: str | None = None
    """Its tokenizer, likewise; null where it is with the model."""
    ending: str = " Rephrase:"
    """What stands behind the prompt where the model goes on with the rewritten one."""
    beams: Annotated[int, Between(1, 64)] = 8
    tokens: Annotated[int, Between(1, 1024)] = 75
    """New tokens at most."""
    length_penalty: Annotated[float, Between(-10, 10)] = -1.0
    """Of the beam search: below 0 shorter ones are preferred."""
