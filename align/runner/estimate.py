"""What a run will cost, as far as its configuration tells."""

from __future__ import annotations

from align.config.schema import Config


def network_evaluations(config: Config) -> tuple[int, int]:
    """Least and most network evaluations of one picture; both halves of a guidance pair are one."""
    method = config.method
    plain = config.sampler.steps * method.candidates
    recurrence = method.recurrence
    most = {"none": 0, "fixed": min(max(recurrence.rounds), recurrence.cap), "gradient_norm": recurrence.cap}
    return plain, plain * (1 + (most[recurrence.rule] if method.guided else 0))


def cost_line(config: Config, pictures: int) -> str:
    """The estimate in words, for the pictures that are still to be made."""
    least, most = network_evaluations(config)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    total = f"{least * pictures:,}" if least == most else f"{least * pictures:,} to {most * pictures:,}"
    return f"{each} network evaluations a picture{', guided' if config.method.guided else ''}; {total} in all"
