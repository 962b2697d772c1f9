"""Options of ``python -m align online``: what is learned of a black box, and in which rounds it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between, Text


@dataclass(frozen=True)
class SurrogateConfig:
    """What stands for the black box while pictures are made: a function of their features, fitted to all that was asked."""

    name: Annotated[str, Text("name")]
    kind: Literal["ridge", "ucb", "bootstrap", "greedy"] = "ridge"
    """``ridge``: linear, in closed form; the others affine networks of several layers, fitted by Adam: with a bonus for what is not
    known (``ucb``), the largest of several (``bootstrap``), or neither (``greedy``)."""
    features: Annotated[str, Text("name")] = "shapes_pick"
    """Image features, as ``align/rewards/features.py`` names them; unit vectors."""
    centre: Literal["prompt", "all", "none"] = "prompt"
    """Of what features and values are differences: the means of the same prompt, in which pictures of one prompt are told apart; of
    all that was asked; or nothing.  Prompts that were asked about once say nothing of the first, and are left out unless all are."""
    scale: Literal["deviation", "none"] = "deviation"
    """In what values are counted: deviations of those asked, so that no number depends on the black box; or as they are."""
    a: Annotated[float, Between(0, 1e6)] = 1.0
    """Size of the bonus a |R h|, R'R = (sum h h' + ridge I)^-1; of ``ridge`` in deviations of its errors, so that a = 1 is one standard
    deviation of the posterior."""
    limit: Annotated[float, Between(0, 1e6)] = 10.0
    """The largest bonus."""
    ridge: Annotated[float, Between(1e-12, 1e6)] | None = None
    """Added to the matrix that is inverted; null, for ``kind=ridge`` alone, for what leaves each row out best."""
    bonus: Literal["gram", "covariance"] = "gram"
    """``gram`` shrinks as more is asked; ``covariance`` is that of h, as released, and does not."""
    heads: Annotated[int, Between(2, 64)] = 4
    """Networks of ``bootstrap``."""
    widths: Annotated[tuple[int, ...], Between(1, 65536)] = (1024, 128, 64, 16)
    """Of the layers of a network, but for the features and the value; h is the last one's output."""
    epochs: Annotated[int, Between(1, 1_000_000)] = 3000
    batch: Annotated[int, Between(1, 65536)] = 512
    rate: Annotated[float, Between(0, 10)] = 1e-3
    """Of Adam, which starts anew each round."""
    held_out: Annotated[float, Between(0, 0.9)] = 0.1
    """Share of the rows, taken at random, by which the epoch is chosen."""
    gradient_noise: Annotated[float, Between(0, 1e6)] = 0.0
    """s of the Thompson-like variant, see ``align/surrogates/networks.py``."""
    released: bool = False
    """Fit and guide with the faults of the release, ``align/released/surrogates.py``."""


@dataclass(frozen=True)
class RoundsConfig:
    """How often the black box is asked, about what."""

    name: Annotated[str, Text("name")]
    number: Annotated[int, Between(1, 9999)] = 8
    """Rounds after the first, whose pictures are plain."""
    first: Annotated[int, Between(2, 1_000_000)] = 16
    """Pictures of the first round, each asked about once."""
    each: Annotated[int, Between(1, 1_000_000)] = 16
    """Likewise of all others."""
    noise: Annotated[float, Between(0, 1e6)] = 0.1
    """Deviation of the noise that is added to what the black box says: people do not answer the same twice."""
    held_out: Annotated[int, Between(0, 1_000_000)] = 0
    """Prompts at the end of the set that no round asks about: the evaluation is of these, or of all where there are none."""
    evaluation: Annotated[int, Between(0, 1_000_000)] = 32
    """Pictures of the evaluation, by the last surrogate without its optimism, and plain ones beside; 0 for none."""
    best_of_n: bool = True
    """Make as many plain pictures of the prompts that are asked about and ask about each, to compare the rounds with."""
    template: str = "{}"
    """Words around a share of the rounds' prompts, such as "{} in a clean, simple style"; ``{}`` stands for the prompt."""
    template_share: Annotated[float, Between(0, 1)] = 0.0
