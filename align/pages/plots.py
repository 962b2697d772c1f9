"""Drawings as SVG files; equal figures give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from align import writing

if TYPE_CHECKING:
    import pandas

MOST_PANELS = 9


@contextmanager
def drawing(
    out: Path, panels: int, columns: int = 1, size: tuple[float, float] = (7, 2.4)
) -> Iterator[list[Any]]:
    """Panels to draw on; the file is written when the block ends.

    Args:
        out: the SVG file.
        panels: how many.
        columns: in how many columns.
        size: width and height of a panel in inches.

    Raises:
        OSError: the file cannot be written.
    """
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


def plot_tradeoff(pairs: pandas.DataFrame, costs: pandas.DataFrame, out: Path) -> None:
    """What each arm gains over the baseline, with its interval, against its passes through the network.

    Args:
        pairs: as ``compare.paired_differences``; hollow marks are values that the arm optimised.
        costs: as ``compare.costs``.
        out: the SVG file.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    passes = costs[costs["cost"].isin(["network_forward", "network_backward"])].groupby("arm")["mean"].sum()
    arms = [arm for arm in dict.fromkeys(pairs["arm"]) if arm in passes.index]
    values = list(dict.fromkeys(pairs["value"]))[:MOST_PANELS]
    with drawing(out, len(values), 3, (4.2, 3)) as panels:
        for panel, value in zip(panels, values, strict=True):
            panel.axhline(0, color="0.7", linewidth=0.8)
            for place, arm in enumerate(arms):
                for row in pairs[(pairs["value"] == value) & (pairs["arm"] == arm)].to_dict("records"):
                    reach = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                    panel.errorbar(
                        [passes[arm]],
                        [row["difference"]],
                        yerr=None if numpy.isnan(reach).any() else reach,
                        marker="osD^v<>Px*"[place % 10],
                        color=f"C{place % 10}",
                        markerfacecolor="white" if row["optimised"] else None,
                        linestyle="none",
                        elinewidth=0.8,
                        label=plain_label(arm),
                    )
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.set_title(plain_label(value), fontsize="medium")
            panel.set_xlabel("passes through the network, forward and back")
        panels[0].set_ylabel("difference to the baseline")
        _legend(panels[0])


def plot_differences(prompts: pandas.DataFrame, values: Sequence[str], out: Path) -> None:
    """The differences of single prompts to the baseline, sorted, a line an arm.

    Args:
        prompts: as ``compare.prompt_differences``.
        values: what to draw.
        out: the SVG file.

    Raises:
        OSError: the file cannot be written.
    """
    arms = list(dict.fromkeys(prompts["arm"]))
    with drawing(out, min(len(values), MOST_PANELS), 3, (4.2, 3)) as panels:
        for panel, value in zip(panels, values, strict=False):
            panel.axhline(0, color="0.7", linewidth=0.8)
            for place, arm in enumerate(arms):
                own = numpy.sort(prompts.loc[prompts["arm"] == arm, value].dropna().to_numpy(dtype=float))
                if len(own):
                    share = (numpy.arange(len(own)) + 0.5) / len(own)
                    style = ("-", "--", ":")[place // 10 % 3]
                    panel.plot(
                        share, own, style, color=f"C{place % 10}", linewidth=1.2, label=plain_label(arm)
                    )
            panel.set_title(plain_label(value), fontsize="medium")
            panel.set_xlabel("share of prompts")
        panels[0].set_ylabel("difference to the baseline")
        _legend(panels[0])


def plain_label(text: str) -> str:
    """A text that matplotlib neither reads as mathematics nor leaves out of a legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _legend(panel: Any) -> None:
    """One legend for all panels, below them."""
    handles, labels = panel.get_legend_handles_labels()
    first = dict(zip(labels, handles, strict=True))
    if first:
        panel.figure.legend(
            first.values(), first.keys(), loc="outside lower center", ncols=min(4, len(first)), frameon=False
        )
