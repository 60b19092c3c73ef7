"""Tables and plots of ``twostream bench efficiency`` from the rows in benchmarks/results/efficiency/.

A table stands between ``<!-- efficiency: FILE SCORE -->`` and ``<!-- end -->``, with a part for every experiment of the
file (number and size of batches, share of wrong answers). Knows rows and the comparisons of ``twostream.bench``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.results import FOLDER, ROOT, mean_interval, read
from twostream.bench.compare import experiments, table, title
from twostream.bench.summary import areas, curves, win_matrix

ROWS = FOLDER / "efficiency"
IMAGES = ROOT / "docs" / "images"
MARKED = re.compile(r"(<!-- efficiency: (?P<name>\S+) (?P<score>\S+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
COLUMNS = ("strategy", "runs", "area", "minus random", "p (Holm)", "wins", "rank", "answers", "seconds", "foreground")
COLOURS = {
    "random": "#666666", "look-ahead": "#c1272d", "two-stream": "#0000a7", "clasp-pe": "#008176", "entropy": "#eecc16",
}  # fmt: skip
"""Of the strategies that every plot shows."""

Row = Mapping[str, Any]


def filled(text: str) -> str:
    """``text`` with every marked table made from the rows."""
    return MARKED.sub(lambda found: f"{found[1]}\n{tables(found['name'], found['score'])}\n\n{found['end']}", text)


def rows_of(name: str) -> list[Row]:
    """Rows of a file."""
    return list(read(ROWS / f"{name}.jsonl"))


def tables(name: str, score: str) -> str:
    """Markdown: a table for every experiment of a file."""
    parts = []
    for rows in experiments(rows_of(name)).values():
        lines = [_cells(line) for line in table(rows, score)]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in [COLUMNS, ["---"] * len(COLUMNS), *lines])
        parts.append(f"{title(rows, score)}\n\n{body}\n\n{_wins(rows, score)}")
    return "\n\n".join(parts)


def _wins(rows: list[Row], score: str) -> str:
    """Markdown: in which share of their pairs the strategy of a line is ahead of that of a column."""
    found = win_matrix(areas(curves(rows, score), score))
    lines = [["ahead of", *found], ["---"] * (len(found) + 1)]
    lines += [[one, *(f"{row[other]:.0%}" if other in row else "" for other in found)] for one, row in found.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(line: Mapping[str, Any]) -> list[str]:
    gain = f"{line['gain']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]" if "gain" in line else ""
    shares = [
        f"{line[n][0]:.2f} [{line[n][1]:.2f}, {line[n][2]:.2f}]" if line.get(n) else "" for n in ("answers", "seconds")
    ]
    return [
        line["strategy"], str(line["num_runs"]), f"{line['area']:.3f}", gain, f"{line['p']:.3f}" if "p" in line else "",
        f"{line['wins']:.0%}" if "wins" in line else "", f"{line['rank']:.2f}" if "rank" in line else "", *shares,
        f"{line['foreground']:.2f}" if "foreground" in line else "",
    ]  # fmt: skip


def plot(name: str, score: str) -> Path:
    """Mean score over answers with 95 percent intervals over runs, a panel for every experiment of a file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = name  # the same rows give the same file
    parts = list(experiments(rows_of(name)).values())
    figure, axes = pyplot.subplots(1, len(parts), figsize=(4.2 * len(parts), 3.4), squeeze=False, layout="constrained")
    for axis, rows in zip(axes[0], parts, strict=True):
        for strategy, runs in curves(rows, score).items():
            if strategy not in COLOURS:
                continue
            values = np.array([[row[score] for row in points] for points in runs.values()])
            answers = [row["num_answers"] for row in next(iter(runs.values()))]
            mean, low, high = np.array([mean_interval(column) for column in values.T]).T
            axis.plot(answers, mean, "-o", ms=3, color=COLOURS[strategy], label=strategy)
            axis.fill_between(answers, low, high, color=COLOURS[strategy], alpha=0.12, linewidth=0)
        axis.set(xlabel="answers", ylabel=score.replace("_", " "), title=f"batches of {rows[0]['batch_size']}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False, fontsize=8)
    path = IMAGES / f"efficiency-{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def names_in(text: str) -> list[tuple[str, str]]:
    """File and score of every table of a text."""
    return [(found["name"], found["score"]) for found in MARKED.finditer(text)]
