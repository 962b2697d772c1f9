"""Options of a table: its rows, and the runs that stand in them, beside a paper's numbers where it is published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from align.config.ranges import Between, Text


@dataclass(frozen=True)
class RowConfig:
    """A row of a table, and its run."""

    paper: str | None = None
    """The row's name in the paper's file (``align/analysis/paper``); null for a run that the paper does not have."""
    of_table: Annotated[int, Between(1, 100)] | None = None
    """Number of the table that the paper has it in; null for this one."""
    label: str | None = None
    """What reports call it; null for ``paper``, or else the row's own name."""
    full: tuple[str, ...] | None = None
    """Options of the run, of a published table on the published models; null: there is none."""
    shapes: tuple[str, ...] | None = None
    """Likewise on the shapes world."""
    needs: tuple[str, ...] = ()
    """Options without which it is not run on the published models: what the user has to bring (``--for ROW OPTION=VALUE``)."""
    trained: str | None = None
    """Embedded weights that the row is of on the shapes world, whose training is part of its cost."""
    why_not: str = ""
    """Why it is not run where it is not."""
    note: str = ""
    """In what the run is known to differ from the paper's."""


@dataclass(frozen=True)
class TableConfig:
    """A table: ``python -m align table EXPERIMENT`` runs its rows under the experiment's protocol."""

    title: str
    baseline: str
    """The row that others are compared with."""
    rows: dict[str, RowConfig]
    """By the names that the command line calls them."""
    paper: Annotated[str, Text("name")] | None = None
    """The paper's file in ``align/analysis/paper``; null for a comparison that no paper has, whose backbone the command chooses."""
    number: Annotated[int, Between(1, 100)] | None = None
    """Number of the table there."""
    shapes: str | None = None
    """The experiment that holds the protocol of the same table on the shapes world, if there is one."""
