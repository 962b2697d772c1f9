"""How far a method's finished latents are from those of the baseline in size.

Latents (C, h, w) of norm |z| have the size |z| / sqrt(C h w), the column ``info_latent_norm``. A method whose
latents grow or shrink against plain sampling's of the same noise has left what the model knows, whatever
rewards say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from align.analysis.arms import Arm
from align.analysis.intervals import bootstrap
from align.analysis.paired import matched

if TYPE_CHECKING:
    import pandas

NORM = "info_latent_norm"
NAMES = ("norm", "difference", "size")


def latent_drift(arms: Sequence[Arm], baseline: Arm) -> pandas.DataFrame:
    """One row an arm that has the column.

    Columns: arm, pictures, pairs, and with their 95% intervals by prompt ``norm``, ``difference`` (arm -
    baseline of the same prompt, seed and sample) and ``size``, the mean of its absolute value, in which
    pictures that grow and others that shrink do not cancel.
    """
    import pandas

    rows = []
    for arm in arms:
        if not _has(arm):
            continue
        own = arm.rows[NORM].to_numpy(dtype=float)
        mine, theirs = matched(arm, baseline) if _has(baseline) and arm is not baseline else ([], [])
        delta = own[mine] - baseline.rows[NORM].to_numpy(dtype=float)[theirs] if mine else numpy.empty(0)
        prompts = [str(prompt) for prompt in arm.rows["prompt"]]
        paired = [prompts[place] for place in mine]
        each = (own, prompts), (delta, paired), (abs(delta), paired)
        found = [bootstrap(values[:, None], groups) for values, groups in each]
        ends = [float(column[0]) for one in found for column in one[:3]]
        rows.append((arm.label, int(found[0].number[0]), int(found[1].number[0]), *ends))
    columns = [name + end for name in NAMES for end in ("", "_low", "_high")]
    return pandas.DataFrame(rows, columns=["arm", "pictures", "pairs", *columns])


def _has(arm: Arm) -> bool:
    return NORM in arm.rows and arm.rows[NORM].dtype.kind == "f" and bool(arm.rows[NORM].notna().any())
