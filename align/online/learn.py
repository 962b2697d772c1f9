"""From all that was asked to the surrogate that guides the next round."""

from __future__ import annotations

from align.config.online import SurrogateConfig
from align.online.rounds import Online
from align.released.surrogates import ReleasedDraws, ReleasedFit
from align.surrogates.draws import Draws
from align.surrogates.frame import Asked
from align.surrogates.networks import Fit, Layers
from align.surrogates.surrogate import Surrogate, fit_networks, fit_ridge


def learn(online: Online, asked: Asked, round_: int, before: Surrogate | None) -> Surrogate:
    """The surrogate of what was asked up to a round; ``before`` is that of the round before.

    Fitted on the CPU in float32, so that it is the same one wherever the pictures were made.
    """
    options = online.surrogate
    centre, scale, a, limit = options.centre, options.scale, options.a, options.limit
    if options.kind == "ridge":
        return fit_ridge(
            asked, options.features, centre=centre, scale=scale, a=a, limit=limit, ridge=options.ridge
        )
    kinds = (ReleasedFit, ReleasedDraws) if options.released else (Fit, Draws)
    fit = kinds[0](options.epochs, options.batch, options.rate, options.held_out, options.gradient_noise)
    return fit_networks(
        asked,
        options.features,
        fit,
        _start(online, options, asked.features.shape[1], before),
        kinds[1](online.noise("surrogate", round_)),
        centre=centre,
        scale=scale,
        rule=options.bonus if options.kind == "ucb" else None,
        a=a,
        limit=limit,
        ridge=options.ridge or 1e-3,
        released=options.released,
    )


def _start(online: Online, options: SurrogateConfig, width: int, before: Surrogate | None) -> Layers:
    """The weights that a fit starts from: in each round the same, but that the released bootstrap goes on."""
    if options.released and options.kind == "bootstrap" and before is not None:
        return before.layers
    heads = options.heads if options.kind == "bootstrap" else 1
    return Draws(online.noise("surrogate")).start([width, *options.widths], heads)
