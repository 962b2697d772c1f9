"""Drawings as SVG files; equal figures give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from align import writing
from align.analysis.break_even import passes_of

if TYPE_CHECKING:
    import pandas

MOST_PANELS = 9
ALIKE = 1.5
"""Costs within this ratio are no axis: what is compared at a budget stands side by side."""
MEANINGS = {
    "ess": "effective sample size, particles",
    "resampled": "resampled, share of pictures",
    "temperature": "temperature",
    "values": "best value so far, by candidate",
    "tries": "candidates drawn",
    "visits": "visits of particles",
    "unvalued": "particles without a candidate of finite value",
}
"""What plots call the traces that are known."""


@contextmanager
def _drawing(
    out: Path, panels: int, columns: int = 1, size: tuple[float, float] = (7, 2.4)
) -> Iterator[list[Any]]:
    """Panels to draw on, of a size in inches; the SVG file is written when the block ends. Raises OSError."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    options: Any = {
        "svg.hashsalt": "align",
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    columns = min(columns, panels)
    rows = -(-panels // columns)
    with matplotlib.rc_context(options):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout="constrained")
        FigureCanvasSVG(figure)
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in places[panels:]:
            spare.remove()
        yield places[:panels]
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    writing.write_bytes(out, buffer.getvalue())


@contextmanager
def _gains(out: Path, values: Sequence[str], along: str) -> Iterator[Iterator[tuple[Any, str]]]:
    """A panel for each of the first values to draw differences to the baseline on, and one legend below all."""
    values = values[:MOST_PANELS]
    with _drawing(out, len(values), 3, (4.2, 3)) as panels:
        for panel, value in zip(panels, values, strict=True):
            panel.axhline(0, color="0.7", linewidth=0.8)
            panel.set_title(_as_label(value), fontsize="medium")
            panel.set_xlabel(along)
        yield zip(panels, values, strict=True)
        panels[0].set_ylabel("difference to the baseline")
        handles, labels = panels[0].get_legend_handles_labels()
        first = dict(zip(labels, handles, strict=True))
        if first:
            where: Any = {"loc": "outside lower center", "ncols": min(4, len(first))}
            panels[0].figure.legend(first.values(), first.keys(), frameon=False, **where)


def plot_tradeoff(pairs: pandas.DataFrame, costs: pandas.DataFrame, values: Sequence[str], out: Path) -> None:
    """What each arm gains over the baseline, with its interval, against its passes through the network where these differ.

    Of ``paired.paired_differences`` and ``paired.costs``; hollow marks are values that the arm optimised. Raises OSError.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    pairs = pairs[pairs["value"].isin(values)]
    passes = passes_of(costs)
    arms = [arm for arm in dict.fromkeys(pairs["arm"]) if arm in passes]
    spent, along = [passes[arm] for arm in arms], "passes through the network"
    alike = len(arms) > 1 and max(spent) < ALIKE * min(spent)
    along = f"{min(spent):.4g} to {max(spent):.4g} {along}" if alike else f"{along}, forward and back"
    with _gains(out, values, along) as panels:
        for panel, value in panels:
            for place, arm in enumerate(arms):
                for row in pairs[(pairs["value"] == value) & (pairs["arm"] == arm)].to_dict("records"):
                    reach = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                    panel.errorbar(
                        [place if alike else passes[arm]],
                        [row["difference"]],
                        yerr=None if numpy.isnan(reach).any() else reach,
                        marker="osD^v<>Px*"[place % 10],
                        color=f"C{place % 10}",
                        markerfacecolor="white" if row["optimised"] else None,
                        linestyle="none",
                        elinewidth=0.8,
                        label=_as_label(arm),
                    )
            if alike:
                panel.set_xticks([])
                continue
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())


def plot_differences(prompts: pandas.DataFrame, values: Sequence[str], out: Path) -> None:
    """The differences of single prompts to the baseline, sorted, a line an arm. Raises OSError."""
    arms = list(dict.fromkeys(prompts["arm"]))
    with _gains(out, values, "share of prompts") as panels:
        for panel, value in panels:
            for place, arm in enumerate(arms):
                own = numpy.sort(prompts.loc[prompts["arm"] == arm, value].dropna().to_numpy(dtype=float))
                if len(own):
                    share = (numpy.arange(len(own)) + 0.5) / len(own)
                    style = ("-", "--", ":")[place // 10 % 3]
                    panel.plot(share, own, style, color=f"C{place % 10}", linewidth=1.2, label=_as_label(arm))


def plot_traces(found: pandas.DataFrame, out: Path) -> None:
    """A panel a trace, a line an arm with the range of most pictures. Raises OSError."""
    from matplotlib.ticker import MaxNLocator

    names, arms = list(dict.fromkeys(found["trace"])), list(dict.fromkeys(found["arm"]))
    with _drawing(out, len(names)) as panels:
        for panel, name in zip(panels, names, strict=True):
            for place, arm in enumerate(arms):
                line = found[(found["trace"] == name) & (found["arm"] == arm)]
                line = line[line["mean"].notna()]  # some select at a few steps only
                if not len(line):
                    continue
                colour, label = f"C{place % 10}", _as_label(arm)
                panel.plot(line["step"], line["mean"], color=colour, label=label, marker=".", linewidth=1.5)
                if name != "resampled":  # of 0 and 1 the mean says all
                    low, high = line["low"], line["high"]
                    panel.fill_between(line["step"], low, high, color=colour, alpha=0.15, linewidth=0)
            panel.set_ylabel(MEANINGS.get(name, _as_label(name)))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.legend(frameon=False, fontsize="small")
        panels[-1].set_xlabel("step")


def plot_rounds(found: pandas.DataFrame, value: str, out: Path) -> None:
    """Lines of ``line``, ``answers``, ``mean``, ``low``, ``high``: what a black box's answers led to, against their number. Raises
    OSError.
    """
    with _drawing(out, 1, size=(6, 3.4)) as (panel,):
        panel.axhline(0, color="0.7", linewidth=0.8)
        for place, (name, line) in enumerate(found.groupby("line", sort=False)):
            colour = f"C{place}"
            panel.plot(line["answers"], line["mean"], color=colour, marker=".", label=_as_label(str(name)))
            panel.fill_between(
                line["answers"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0
            )
        panel.set_xlabel("answers of the black box")
        panel.set_ylabel(_as_label(value))
        panel.legend(frameon=False, fontsize="small")


def _as_label(text: str) -> str:
    """A text that matplotlib neither reads as mathematics nor leaves out of a legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
