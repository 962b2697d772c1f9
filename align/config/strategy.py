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
    project: Literal["none", "wgnc"] = "none"
    """``wgnc`` projects each step's gradient, and the noise after it, on what has a white spectrum: the gradient's length does not
    count then (``clip=0``)."""
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
class DraftConfig:
    """Drafts in few steps from several start noises, of which the best are made properly."""

    candidates: Count = 0
    """N, drafts; 0 for none of it."""
    steps: Annotated[int, Between(1, 1000)] | None = None
    """Of a draft; null for half of the sampler's, or for all of them where ``skip`` or ``cache`` make drafts lighter."""
    keep: Annotated[int, Between(1, 65536)] = 1
    """K, the drafts of the highest reward that are made properly; the best of what comes of them is kept."""
    refine: Literal["rerun", "resume", "none"] = "rerun"
    """How: ``rerun`` makes the whole picture from the draft's noise; ``resume`` takes the draft's state to a step on the way and does the
    rest in full; ``none`` keeps the best draft itself."""
    begin: Annotated[float, Between(0, 1)] = 0.75
    """Of ``resume``, the share of the steps at which the draft goes on in full.  The rest of the steps is all that it costs."""

    skip: tuple[Annotated[int, Between(0, 1000)], ...] = ()
    """Blocks of a transformer that drafts do without, from 0.  An evaluation without some of its blocks counts as a whole one."""
    stack: str | None = None
    """Where these are, as the network's modules are named; null for its first list of blocks."""
    cache: Literal["none", "taylorseer"] = "none"
    """``taylorseer``, on transformers that have it (FLUX, Qwen-Image): at some steps of a draft no block is evaluated, and the network's last
    projection goes on as it did; such a step counts no evaluation."""
    warmup: Annotated[int, Between(1, 1000)] = 3
    """Of ``cache``: so many first steps are computed, and after the one that follows every ``interval``-th."""
    interval: Annotated[int, Between(2, 1000)] = 5
    """Likewise."""
    last: Annotated[int, Between(0, 1000)] = 0
    """Likewise: and so many last steps."""
    order: Annotated[int, Between(0, 3)] = 1
    """Likewise: of the Taylor series; 1 is a straight line through the last two that were computed."""

    @property
    def lighter(self) -> bool:
        """Whether a draft's steps cost less than those of a whole sampling."""
        return bool(self.skip) or self.cache != "none"

    def few(self, steps: int) -> int:
        """Steps of a draft where a whole sampling has so many."""
        if self.steps is None:
            return steps if self.lighter else (steps + 1) // 2
        return self.steps

    def after(self, few: int) -> int | None:
        """The step, of so many, from which on all are computed, if there is one."""
        return max(few - self.last, 0) if self.last else None

    def cached(self, few: int) -> frozenset[int]:
        """Steps of a draft that the cache answers."""
        if self.cache == "none":
            return frozenset()
        end = few - self.last
        return frozenset(
            step for step in range(self.warmup, end) if (step - self.warmup - 1) % self.interval != 0
        )


@dataclass(frozen=True)
class TreeSearchConfig:
    """Samplings that share their beginnings: a tree of states that grows where finished pictures were worth most."""

    budget: Count = 0
    """Network evaluations of a picture; 0 for none of it."""
    descend: Literal["search", "sample"] = "search"
    """How a child is chosen on the way to where the tree grows.  ``search``: by value and how seldom it was visited, and the best
    picture is returned (DTS*); ``sample``: in proportion to exp(lambda v), and so is the picture (DTS)."""
    rate: Annotated[float, Between(1e-6, 1e9)] = 1.0
    """lambda: a state's value is (1/lambda) log mean exp(lambda v) of its children's."""
    widen: Annotated[float, Between(0.1, 100)] = 1.0
    """C: a state that was visited n times has at most ceil(C n^a) children."""
    exponent: Annotated[float, Between(0.3, 1)] = 0.5
    """a."""
    explore: Annotated[float, Between(0, 1e6)] = 1.0
    """c of ``search``, in units of the reward: v + c sqrt(log n / n of the child)."""
    branch: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Shares of the steps at which a state can have several children, beside the start; none for each step that draws noise."""


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
