"""Diversity of the arms of a report: figures of their saved pictures and differences to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from align.analysis.arms import Arm
from align.analysis.diversity import dimensions, distance, entropy, run_distances
from align.analysis.intervals import Floats, bootstrap, codes
from align.analysis.paired import matched
from align.reading import read_json

if TYPE_CHECKING:
    import pandas


class Embedded(NamedTuple):
    """Some pictures in some features."""

    rows: dict[str, Floats]
    """The embedding (d,) of each path; a picture that cannot be read has none."""
    reward: str
    """Whose image tower the features are."""


Embed = Callable[[str, Iterable[Path]], Embedded]
"""Name of features, and pictures."""
_COLUMNS = ["arm", "features", "of", "value", "optimised", "pictures", "dimensions"]
_FIGURE = ["groups", "mean", "low", "high"]
_DIFFERENCES = ["difference", "difference_low", "difference_high", "difference_groups"]
_OF_PROMPTS = ["prompt", "pictures", "dimensions", "distance", "entropy"]


@dataclass(frozen=True)
class Spread:
    """Diversity of some arms."""

    figures: pandas.DataFrame
    """One row an arm, ``of`` ("prompt", "run") and ``value`` ("distance", "entropy"): features, optimised (the reward
    that they are part of, by the arm), pictures (of a prompt, of the run), dimensions (K of the entropy), groups
    (prompts, or 1), mean, low, high, and likewise of the difference to the baseline over the pictures that both have."""
    prompts: pandas.DataFrame
    """One row an arm and prompt: pictures, dimensions, distance, entropy."""
    notes: list[str]
    """What was left out, one line each."""


class _Figure(NamedTuple):
    """A mean with its interval; NaN where there is none."""

    mean: float
    low: float = numpy.nan
    high: float = numpy.nan
    groups: int = 1


class _Pictures(NamedTuple):
    """The embeddings (n, d) of some pictures and the prompt of each."""

    embeddings: Floats
    prompts: list[str]


def usual_features(arm: Arm) -> str | None:
    """The features of an arm's pictures unless asked; None for toys, whose pictures are only colours."""
    family = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        family = str(read_json(arm.folders[0] / "run.json")["record"]["config"]["backbone"]["family"])
    if family == "toy":
        return None
    return "shapes_pick" if {"shapes", "shapes_flow"} & {family, arm.backbone} else "clip_vit_l14"


def measure(arms: Sequence[Arm], baseline: Arm, *, embed: Embed, features: str | None = None) -> Spread:
    """Measure the diversity of some arms, the baseline among them, in features of a name or the usual ones of each.

    ``embed`` is how embeddings are had: this module knows of no model. Raises ReportError as ``embed``.
    """
    import pandas

    names = {arm.label: features or usual_features(arm) for arm in arms}
    without = [label for label, name in names.items() if name is None]
    notes = [f"{label}: no diversity, its pictures are only colours" for label in without]
    known: dict[str, Embedded] = {}
    for wanted in dict.fromkeys(name for name in names.values() if name):
        paths = [Path(p) for arm in arms if names[arm.label] == wanted for p in arm.rows["path"] if p]
        known[wanted] = embed(wanted, dict.fromkeys(paths))
    rows: list[dict[str, Any]] = []
    prompts = []
    for arm in arms:
        name = names[arm.label]
        if name is None:
            continue
        there = known[name].rows
        places = [k for k in range(len(arm.rows)) if _path(arm, k) in there]
        own = _pictures(arm, places, there)
        each = _by_prompt(own)
        prompts.append(each.assign(arm=arm.label, features=name))
        compared = arm is not baseline and names[baseline.label] == name
        partners = zip(*matched(arm, baseline), strict=True) if compared else ()
        pairs = [(a, b) for a, b in partners if _path(arm, a) in there and _path(baseline, b) in there]
        mine = _pictures(arm, [a for a, _ in pairs], there)
        theirs = _pictures(baseline, [b for _, b in pairs], there)
        head = {"arm": arm.label, "features": name, "optimised": known[name].reward in arm.optimised}
        rows += [head | row for row in _rows(own, each, mine, theirs)]
        if lost := len(arm.rows) - len(places):
            first = next(_path(arm, k) for k in range(len(arm.rows)) if _path(arm, k) not in there)
            named = f" ({Path(first).name} is the first)" if first else ""
            notes.append(f"{arm.label}: {lost} pictures cannot be read and count for no diversity{named}")
        if head["optimised"]:
            notes.append(
                f"{arm.label}: optimised what {name} is part of; --features measures diversity in others"
            )
        notes += _group_notes(arm.label, each)
    figures = pandas.DataFrame(rows, columns=_COLUMNS + _FIGURE + _DIFFERENCES)
    tables = pandas.concat(prompts, ignore_index=True) if prompts else pandas.DataFrame()
    return Spread(figures, tables.reindex(columns=["arm", "features", *_OF_PROMPTS]), notes)


def _rows(
    own: _Pictures, each: pandas.DataFrame, mine: _Pictures, theirs: _Pictures
) -> Iterator[dict[str, Any]]:
    """The rows of one arm: figures of ``own`` pictures, differences of those that arm and baseline both have."""
    # The same pictures' numbers on both sides, so distances and entropies are of equal n.
    one, two = _by_prompt(mine), _by_prompt(theirs)
    for value in ("distance", "entropy") if each["pictures"].max() > 1 else ():
        known = each.loc[each[value].notna(), "dimensions"]
        sizes = each["pictures"].max(), known.max() if len(known) else 0
        yield _row("prompt", value, sizes, _mean(each, each[value]), _mean(one, one[value] - two[value]))
    sizes = len(own.prompts), dimensions(len(own.prompts))
    yield _row("run", "distance", sizes, _run_distance(own), _run_distance(mine, theirs))
    difference = entropy(mine.embeddings) - entropy(theirs.embeddings)
    yield _row("run", "entropy", sizes, _Figure(entropy(own.embeddings)), _Figure(difference))


def _row(of: str, value: str, sizes: tuple[int, int], figure: _Figure, change: _Figure) -> dict[str, Any]:
    found = {"of": of, "value": value, "pictures": sizes[0], "dimensions": sizes[1]}
    return found | figure._asdict() | dict(zip(_DIFFERENCES, change, strict=True))


def _by_prompt(pictures: _Pictures) -> pandas.DataFrame:
    """Distance and entropy of each prompt's pictures, in order of appearance.

    Entropies are of prompts with as many pictures as any has: of fewer they would be of another K.
    """
    import pandas

    rows = []
    group = codes(pictures.prompts)
    for code, prompt in enumerate(dict.fromkeys(pictures.prompts)):
        some = pictures.embeddings[group == code]
        rows.append((prompt, len(some), dimensions(len(some)), distance(some), entropy(some)))
    table = pandas.DataFrame(rows, columns=_OF_PROMPTS)
    table.loc[table["pictures"] < table["pictures"].max(), "entropy"] = numpy.nan
    return table


def _group_notes(label: str, each: pandas.DataFrame) -> list[str]:
    if not len(each):
        return []
    most = int(each["pictures"].max())
    if most < 2:
        return [f"{label}: one picture a prompt, so no diversity within one: run it with samples=4"]
    fewer, full = int((each["pictures"] < most).sum()), each["pictures"] == most
    equal = int((full & each["entropy"].isna()).sum())
    notes = [f"{label}: {fewer} prompts have fewer than {most} pictures and no entropy"] if fewer else []
    if equal:
        notes.append(f"{label}: {equal} prompts have pictures that are equal and no entropy")
    return notes


def _mean(each: pandas.DataFrame, values: pandas.Series[Any]) -> _Figure:
    found = bootstrap(values.to_numpy()[:, None], list(each["prompt"]))
    return _Figure(float(found.mean[0]), float(found.low[0]), float(found.high[0]), int(found.number[0]))


def _run_distance(pictures: _Pictures, other: _Pictures | None = None) -> _Figure:
    """Distance of all pairs, less that of ``other`` pictures of the same prompts in the same order."""
    if len(pictures.prompts) < 2:
        return _Figure(numpy.nan, groups=0)
    group = codes(pictures.prompts).tolist()
    value, draws = run_distances(pictures.embeddings, group)
    if other is not None:
        less, draws_less = run_distances(other.embeddings, group)
        value, draws = value - less, draws - draws_less
    draws = draws[~numpy.isnan(draws)]
    if len(set(group)) < 2 or not len(draws):
        return _Figure(value)
    low, high = numpy.percentile(draws, [2.5, 97.5])
    return _Figure(value, float(low), float(high))


def _path(arm: Arm, place: int) -> str:
    return str(arm.rows["path"].iloc[place] or "")


def _pictures(arm: Arm, places: Sequence[int], known: dict[str, Floats]) -> _Pictures:
    rows = [known[_path(arm, place)] for place in places]
    prompts = [str(arm.rows["prompt"].iloc[place]) for place in places]
    return _Pictures(numpy.stack(rows) if rows else numpy.empty((0, 1)), prompts)
