"""Plots as SVG that stands inside an HTML page: curves against answers, and candidates in latent space.

Knows numpy and matplotlib's objects; must not know projects, ledgers or files. No plot holds a colour of its own: it
names the page's CSS variables (``var(--ink)``), so that it is legible in light and in dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twostream.report.answer_styles import ANSWER_COLOURS

NUM_SERIES = 6
"""Colours, markers and dashes for curves; with more projects than that, they repeat."""
NUM_LEVELS = 5
"""Levels of the colour scale of scores: as many as can be told apart in a dot of a few pixels."""
SERIES_MARKERS = "osD^vP"
SERIES_DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 1)))
_VARIABLES = (
    "ink",
    "soft",
    "line",
    "paper",
    *(f"series-{i}" for i in range(NUM_SERIES)),
    *(f"level-{i}" for i in range(NUM_LEVELS)),
    *(f"answer-{colour}" for colour in ANSWER_COLOURS),
)
_STAND_INS = {name: f"#fe{number:02x}ed" for number, name in enumerate(_VARIABLES)}
"""{CSS variable: the colour it is drawn in}. Matplotlib takes colours, not variables: each variable gets a colour that
occurs nowhere else, and ``_svg`` replaces that colour by the variable."""


@dataclass(frozen=True)
class Curve:
    """One curve of a panel.

    Attributes:
        series: number of the colour, marker and dashes, 0 first.
        x: (N,) numbers of answers.
        y: (N,) values, NaN where there is none.
    """

    series: int
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Marks:
    """Candidates that are marked in the same way.

    Attributes:
        rows: their rows in the points that are drawn.
        colour: one of ``ANSWER_COLOURS``.
        marker: matplotlib's name of the marker.
    """

    rows: Sequence[int]
    colour: str
    marker: str


def curve_panel(curves: Sequence[Curve], *, label: str, is_share: bool, target: float | None = None) -> Markup:
    """A small panel of values against answers, as inline SVG.

    Args:
        curves: one per project.
        label: description for screen readers.
        is_share: the values are at most 1. The axis then always spans 0 to 1, so that panels can be compared; it
            extends below 0 where a value is negative, as agreements can be.
        target: a value to be reached, drawn as a dotted line.
    """
    figure = Figure(figsize=(3.1, 2.0))
    axes = figure.add_axes((0.12, 0.2, 0.85, 0.74))
    _hide_frame(axes)
    for curve in curves:
        colour = _STAND_INS[f"series-{curve.series % NUM_SERIES}"]
        axes.plot(
            curve.x,
            curve.y,
            color=colour,
            marker=SERIES_MARKERS[curve.series % len(SERIES_MARKERS)],
            linestyle=SERIES_DASHES[curve.series % len(SERIES_DASHES)],
            markeredgecolor=_STAND_INS["paper"],
            markeredgewidth=0.8,
            markersize=6,
            linewidth=1.8,
            clip_on=False,
            zorder=3,
        )
    axes.set_xlabel("answers", color=_STAND_INS["soft"], fontsize=8, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    last = max((x for curve in curves for x in curve.x), default=0)
    axes.set_xlim(-0.03 * max(last, 1), 1.03 * max(last, 1))
    if target is not None:
        axes.axhline(target, color=_STAND_INS["soft"], linewidth=1, linestyle=(0, (2, 2)))
    if is_share:
        axes.set_ylim(min([0.0, *(y for curve in curves for y in curve.y if y == y)]), 1)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    else:
        axes.set_ylim(0, 1.1 * max((y for curve in curves for y in curve.y if y == y), default=1.0) or 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=_STAND_INS["line"], linewidth=0.8)
    return _svg(figure, label)


def latent_panel(points: np.ndarray, level: np.ndarray, marks: Sequence[Marks], *, label: str) -> Markup:
    """Candidates in a plane, coloured by score, with marks on those that were asked, as inline SVG.

    Args:
        points: (N, 2) floats.
        level: (N,) ints, level of the colour scale, 0..NUM_LEVELS-1.
        marks: the candidates that were asked.
        label: description for screen readers.
    """
    figure = Figure(figsize=(4.6, 3.7))
    axes = figure.add_axes((0.07, 0.08, 0.91, 0.9))
    _hide_frame(axes)
    size = float(np.clip(900 / max(len(points), 1) ** 0.6, 8, 36))
    # Marked candidates get no dot: it would blur the shape of the marker above it.
    marked = np.zeros(len(points), bool)
    marked[[row for mark in marks for row in mark.rows]] = True
    for number in range(NUM_LEVELS):
        x, y = points[(level == number) & ~marked].T
        colour = _STAND_INS[f"level-{number}"]
        axes.scatter(x, y, s=size, color=colour, edgecolors=_STAND_INS["paper"], linewidths=0.5)
    for mark in marks:
        x, y = points[list(mark.rows)].T
        axes.scatter(
            x,
            y,
            s=130 if mark.marker == "*" else 66,  # a star fills little of its square
            marker=mark.marker,
            color=_STAND_INS[f"answer-{mark.colour}"],
            edgecolors=_STAND_INS["paper"],
            linewidths=0.9,
            zorder=3,
        )
    axes.margins(0.06)
    axes.set_xticks([])
    axes.set_yticks([])
    for side, text in (("set_xlabel", "component 1"), ("set_ylabel", "component 2")):
        getattr(axes, side)(text, color=_STAND_INS["soft"], fontsize=8, labelpad=4)
    return _svg(figure, label)


def _hide_frame(axes: Axes) -> None:
    """Remove the frame but for two axes in a soft colour."""
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_STAND_INS["line"])
    axes.tick_params(colors=_STAND_INS["soft"], labelsize=8, length=0)
    axes.set_axisbelow(True)


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as inline SVG: text stays text, colours become CSS variables, and it holds no web address."""
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    # With a fixed salt, matplotlib gives the same ids to the same figure whenever it is drawn.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # HTML parsers know SVG without its namespaces, which are web addresses.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\sid="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|PathCollection)_\d+"', "", text)
    for name, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip())
