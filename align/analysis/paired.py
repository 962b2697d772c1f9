"""Compare arms with a baseline, picture by picture of the same prompt, seed and sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from align.analysis.arms import Arm, cost_columns, value_columns
from align.analysis.intervals import bootstrap
from align.store.columns import CHECKS, is_check
from align.store.errors import ReportError

if TYPE_CHECKING:
    import pandas

PARTS = frozenset(CHECKS) - {"check_all"}
"""Verdicts of which ``check_all`` is the whole."""


def choose_baseline(arms: Sequence[Arm], wanted: str | None) -> Arm:
    """The arm that others are compared with: of a label, a method, or the name or path of a folder.

    None is the method "none" where there is one, otherwise the first arm. Raises ReportError: no arm, or several,
    answer to the name.
    """
    if wanted is None:
        return next((arm for arm in arms if arm.method == "none"), arms[0])
    place = Path(wanted).resolve()
    tests = (
        [arm for arm in arms if arm.label == wanted],
        [arm for arm in arms if arm.method == wanted],
        [arm for arm in arms if any(folder.resolve() == place for folder in arm.folders)],
        [arm for arm in arms if any(folder.resolve().name == wanted for folder in arm.folders)],
    )
    found = next((matches for matches in tests if matches), [])
    if len(found) == 1:
        return found[0]
    choices = ", ".join(arm.label for arm in found or arms)
    reason = "is several of them" if found else "is none of them"
    raise ReportError(f"baseline {wanted!r} {reason}: choose from {choices}")


def matched(arm: Arm, baseline: Arm) -> tuple[list[int], list[int]]:
    """Places of the rows of ``arm`` that have a partner in ``baseline``, and of their partners."""
    theirs = baseline.pairs()
    both = [(place, theirs[pair]) for pair, place in arm.pairs().items() if pair in theirs]
    return [mine for mine, _ in both], [other for _, other in both]


def paired_differences(arm: Arm, baseline: Arm) -> pandas.DataFrame:
    """Mean of (arm - baseline) of each value that both have, over pairs, with 95% intervals by prompt.

    Columns: arm, baseline, value, optimised (by the arm), pairs, incomplete (pairs without the value on one
    side), difference, low, high, win_rate, win_low, win_high, ties. A win is a higher value; a tie counts
    half.
    """
    import pandas

    rows, differences = _pairs(arm, baseline)
    names, delta = list(differences.columns), differences.to_numpy()
    wins = numpy.where(numpy.isnan(delta), numpy.nan, (numpy.sign(delta) + 1) / 2)
    prompts = list(rows["prompt"])
    mean = bootstrap(delta, prompts)
    rate = bootstrap(wins, prompts)
    return pandas.DataFrame(
        {
            "arm": arm.label,
            "baseline": baseline.label,
            "value": names,
            "optimised": [name in arm.optimised for name in names],
            "pairs": mean.number,
            "incomplete": len(rows) - mean.number,
            "difference": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "win_rate": rate.mean,
            "win_low": rate.low,
            "win_high": rate.high,
            "ties": (delta == 0).sum(axis=0),
        }
    )


def _pairs(arm: Arm, baseline: Arm) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The arm's rows that the baseline has too, and (arm - baseline) of each value that both have, row by row."""
    import pandas

    mine, theirs = matched(arm, baseline)
    rows, others = arm.rows.iloc[mine], baseline.rows.iloc[theirs]
    known = set(value_columns(baseline.rows))
    names = [name for name in value_columns(arm.rows) if name in known]
    delta = rows[names].to_numpy(dtype=float) - others[names].to_numpy(dtype=float)
    return rows, pandas.DataFrame(delta, columns=names)


def prompt_differences(arm: Arm, baseline: Arm) -> pandas.DataFrame:
    """Mean of (arm - baseline) over the pairs of each prompt: arm, prompt, pairs, and each value that both have."""
    rows, delta = _pairs(arm, baseline)
    groups = delta.groupby(rows["prompt"].to_numpy(), sort=False)
    means = groups.mean()
    means.insert(0, "pairs", groups.size())
    means.insert(0, "prompt", means.index)
    means.insert(0, "arm", arm.label)
    return means.reset_index(drop=True)


def costs(arms: Sequence[Arm], baseline: Arm) -> pandas.DataFrame:
    """Mean cost of a picture: one row an arm and cost, with its ratio to the baseline's (NaN over zero)."""
    import pandas

    rows = []
    for arm in arms:
        for name in cost_columns(arm.rows):
            mean = float(arm.rows[name].mean())
            other = float(baseline.rows[name].mean()) if name in baseline.rows else float("nan")
            rows.append((arm.label, name, mean, mean / other if other else float("nan")))
    return pandas.DataFrame(rows, columns=["arm", "cost", "mean", "ratio"])


def independence_notes(arms: Sequence[Arm]) -> list[str]:
    """What each method optimised and what it did not, and what is missing to judge it; a line each."""
    told: dict[tuple[str, str], list[str]] = {}
    unseen: dict[str, list[str]] = {}
    for arm in arms:
        if not arm.optimised:
            continue
        measured = value_columns(arm.rows)
        others = ["checker" if is_check(name) else name for name in measured if name not in arm.optimised]
        texts = (", ".join(sorted(arm.optimised)), ", ".join(dict.fromkeys(others)))
        told.setdefault(texts, []).append(arm.label)
        if blind := sorted(arm.optimised - set(measured)):
            unseen.setdefault(", ".join(blind), []).append(arm.label)
    notes = [
        f"{', '.join(labels)}: optimised {names}, not measured: give it to metrics.rewards"
        for names, labels in unseen.items()
    ]
    for (optimised, free), labels in told.items():
        rest = f"did not optimise {free}" if free else "nothing else was measured: no independent evidence"
        notes.append(f"{', '.join(labels)}: optimised {optimised}; {rest}")
    return notes


def fooled_notes(pairs: pandas.DataFrame) -> list[str]:
    """Arms whose ``paired_differences`` say that what they followed rose while a judge that they did not follow fell; a line each.

    Both intervals exclude zero.  Of the checker the whole verdict counts, not its parts.
    """
    notes = []
    for arm, rows in pairs.groupby("arm", sort=False):
        rose = [str(name) for name in rows["value"][rows["optimised"] & (rows["low"] > 0)]]
        fell = [str(name) for name in rows["value"][~rows["optimised"] & (rows["high"] < 0)]]
        fell = ["checker" if is_check(name) else name for name in fell if name not in PARTS]
        if rose and fell:
            notes.append(
                f"{arm}: {', '.join(rose)}, which it followed, rose against {rows['baseline'].iloc[0]}, and {', '.join(fell)}, which "
                "it did not follow, fell: it may have found what the followed judge is fooled by"
            )
    return notes


def pairing_notes(arms: Sequence[Arm], baseline: Arm) -> list[str]:
    """What the comparison leaves out: failed rows, and rows without a partner."""
    notes = [
        f"{arm.label}: {len(arm.failures)} failed rows count for nothing" for arm in arms if arm.failures
    ]
    for arm in arms:
        if arm is baseline:
            continue
        mine, _ = matched(arm, baseline)
        alone, left = len(arm.rows) - len(mine), len(baseline.rows) - len(mine)
        if alone or left:
            notes.append(
                f"{arm.label}: {len(mine)} pairs; without a partner are {alone} of its rows "
                f"and {left} of {baseline.label}"
            )
        prompts = len(set(arm.rows["prompt"].iloc[mine]))
        if prompts < 2:
            notes.append(f"{arm.label}: {prompts} prompts in common, too few for intervals")
    return notes
