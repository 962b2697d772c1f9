"""What an experiment came to: the true values by round and by answers, beside best of N plain pictures with as many answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from align import writing
from align.online.rounds import Online
from align.store.index import rows_of

if TYPE_CHECKING:
    import pandas
    from rich.console import Console


def write_summary(online: Online, console: Console) -> list[Path]:
    """Write ``rounds.csv`` and ``rounds.svg`` into the experiment's folder and print the former; their paths. Raises OSError."""
    from align.pages.plots import plot_rounds

    table = summary(online)
    paths = [online.folder / "rounds.csv", online.folder / "rounds.svg"]
    writing.write_text(paths[0], table.to_csv(index=False, lineterminator="\n"))
    console.print(table.to_string(index=False, float_format="{:.4g}".format), markup=False, highlight=False)
    plot_rounds(table, f"{online.blackbox}\nless a prompt's plain mean", paths[1])
    return paths


def summary(online: Online) -> pandas.DataFrame:
    """A row for each of three lines and each number of answers: ``line``, ``answers``, ``mean``, ``low``, ``high``.

    Values are true ones, without the noise of answers, less the mean of all plain pictures of their prompt; intervals are of
    95% by prompt.  ``of the round``: mean of a round's pictures; ``best so far``: those that were answered best up to then, one a prompt;
    ``best of N plain``: likewise of plain pictures.
    """
    import pandas

    asked = [_values(online, online.folder_of(round_)) for round_ in range(online.rounds.number + 1)]
    plain = [asked[0]]
    if online.rounds.best_of_n:
        plain.append(_values(online, online.folder / "best_of_n"))
    levels = pandas.concat(plain).groupby("prompt")["value"].mean()
    lines: list[dict[str, Any]] = []
    for number in range(1, len(asked) + 1):
        answers = sum(map(len, asked[:number]))
        lines.append(_line("of the round", answers, asked[number - 1], levels))
        lines.append(_line("best so far", answers, _best(pandas.concat(asked[:number])), levels))
    if online.rounds.best_of_n:
        for number in range(1, int(plain[1]["sample"].max()) + 2):
            some = plain[1][plain[1]["sample"] < number]
            lines.append(_line("best of N plain", len(some), _best(some), levels))
    return pandas.DataFrame(lines)


def _values(online: Online, folder: Path) -> pandas.DataFrame:
    """Prompt, sample, true value and answer of each picture of a run."""
    import pandas

    name = online.blackbox
    rows = [row for row in rows_of(folder) if row.get("image") and row.get(name) is not None]
    return pandas.DataFrame(
        {
            "prompt": [row["prompt"] for row in rows],
            "sample": [row["sample"] for row in rows],
            "value": [float(row[name]) for row in rows],
            "answer": [online.answer(row["key"], float(row[name])) for row in rows],
        }
    )


def _best(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Of each prompt the picture of the best answer."""
    rows = rows.reset_index(drop=True)
    return rows.loc[rows.groupby("prompt")["answer"].idxmax()]


def _line(name: str, answers: int, rows: pandas.DataFrame, levels: pandas.Series[float]) -> dict[str, Any]:
    from align.analysis.intervals import bootstrap

    rows = rows[rows["prompt"].isin(levels.index)]
    gains = (rows["value"] - rows["prompt"].map(levels)).to_numpy(dtype=float)
    mean, low, high, _ = bootstrap(gains[:, None], list(rows["prompt"]))
    return {
        "line": name,
        "answers": answers,
        "mean": float(mean[0]),
        "low": float(low[0]),
        "high": float(high[0]),
    }
