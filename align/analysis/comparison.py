"""A comparison of finished runs: every picture with the baseline's of the same prompt, seed and sample.

What has no partner is counted and said.  Values that a method optimised itself are marked, and stand beside those that it
did not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.analysis.arms import Arm, load_arms
from align.analysis.drift import latent_drift
from align.analysis.groups import Groups, group
from align.analysis.paired import (
    choose_baseline,
    costs,
    fooled_notes,
    independence_notes,
    paired_differences,
    pairing_notes,
    prompt_differences,
)
from align.analysis.published import Published, load_published
from align.analysis.spread import Spread
from align.analysis.summary import summarise
from align.analysis.traces import traces
from align.store.table_plan import read_table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Comparison:
    """A finished comparison; its tables are those that the functions of these names make, mostly in ``paired``."""

    arms: list[Arm]
    """The baseline first."""
    summary: pandas.DataFrame
    """One row an arm: ``label`` and the columns of ``summary.summary``."""
    pairs: pandas.DataFrame
    """``paired_differences``."""
    costs: pandas.DataFrame
    drift: pandas.DataFrame
    """``latent_drift``, without a row where latents were not measured."""
    prompts: pandas.DataFrame
    """``prompt_differences``."""
    traces: pandas.DataFrame
    notes: list[str]
    """What was left out or is incomplete, one line each."""
    spread: Spread | None
    """Diversity, where it was asked for."""
    published: Published | None
    """The printed table that the arms are rows of, if they are."""
    groups: Groups | None
    """The same by a tag of the prompts, where it was asked for."""

    @property
    def baseline(self) -> str:
        """Label of the arm that others are compared with."""
        return self.arms[0].label

    def beside_paper(self) -> pandas.DataFrame:
        """Paper and ours, see ``Published.frame``; empty where there is no printed table."""
        import pandas

        return self.published.frame(self.summary, self.pairs) if self.published else pandas.DataFrame()

    def frames(self) -> dict[str, pandas.DataFrame]:
        """All that was measured, by the name of its CSV file."""
        always = {"summary.csv": self.summary, "pairs.csv": self.pairs, "costs.csv": self.costs}
        more = {"drift.csv": self.drift, "prompts.csv": self.prompts, "traces.csv": self.traces}
        more["table.csv"] = self.beside_paper()
        if self.groups is not None:
            more |= {"groups.csv": self.groups.summary, "groups_pairs.csv": self.groups.pairs}
        if self.spread is not None:
            always |= {"diversity.csv": self.spread.figures, "diversity_prompts.csv": self.spread.prompts}
        return always | {name: table for name, table in more.items() if len(table)}


def compare(
    folders: Sequence[Path],
    baseline: str | None = None,
    *,
    by: str | None = None,
    diversity: Callable[[list[Arm], Arm], Spread] | None = None,
) -> Comparison:
    """Compare the runs in run folders, or folders of run folders; or the rows in the one folder of a published table.

    The baseline is a label, method or folder (of a table: row); by default the table's, or the method "none", else
    the first. Of ``by`` see ``groups.group``, of ``diversity`` ``spread.measure``. Raises ReportError: a folder is
    missing or holds no results, the baseline or ``by`` is unknown, or what ``diversity`` raises.
    """
    import pandas

    published = None
    plan = read_table(Path(folders[0])) if len(folders) == 1 else None
    if plan is not None:
        published, arms, notes = load_published(Path(folders[0]), plan, baseline)
        base = arms[0]
    else:
        arms, notes = load_arms(folders)
        base = choose_baseline(arms, baseline)
    others = [arm for arm in arms if arm is not base]
    arms = [base, *others]
    rows = []
    for arm in arms:
        head = {"label": arm.label, "method": arm.method, "backbone": arm.backbone, "reward": arm.reward}
        more = {"failed": len(arm.failures), "optimised": ";".join(sorted(arm.optimised))}
        rows.append(head | summarise(arm.rows) | more)
    tables = [paired_differences(arm, base) for arm in others]
    single = [prompt_differences(arm, base) for arm in others]
    spread = diversity(arms, base) if diversity is not None else None
    pairs = pandas.concat(tables, ignore_index=True) if tables else paired_differences(base, base).iloc[:0]
    notes = [*fooled_notes(pairs), *independence_notes(arms), *notes, *pairing_notes(arms, base)]
    return Comparison(
        arms=arms,
        summary=pandas.DataFrame(rows),
        pairs=pairs,
        costs=costs(arms, base),
        drift=latent_drift(arms, base),
        prompts=pandas.concat(single, ignore_index=True) if single else pandas.DataFrame(),
        traces=traces(arms),
        notes=notes + (spread.notes if spread else []),
        spread=spread,
        published=published,
        groups=group(arms, base, by) if by is not None else None,
    )
