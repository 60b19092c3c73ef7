"""Pictures of the report, as text that stands inside an HTML page: curves, latent space, patches and mask outlines.

Knows numpy, OpenCV and matplotlib's objects; must not know projects, ledgers or files. Nothing here fixes a colour:
pictures name the page's CSS variables (``var(--ink)``), so one picture is legible in light and in dark mode.
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

NUM_SERIES = 6
"""Strategy colours that the style sheet holds; further ones begin again, told apart by their marks."""
NUM_LEVELS = 5
"""Steps of the colour scale of scores: as many as the eye still tells apart in a dot of a few pixels."""
SERIES_MARKERS = "osD^vP"
SERIES_DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 1)))
_NAMES = (
    "ink",
    "soft",
    "line",
    "paper",
    *(f"series-{i}" for i in range(NUM_SERIES)),
    *(f"level-{i}" for i in range(NUM_LEVELS)),
    *(
        f"answer-{kind}"
        for kind in (
            "true",
            "nothing",
            "shape",
            "swapped",
            "corrected",
            "missed",
            "unsure",
            "skipped",
            "open",
            "disagree",
        )
    ),
)
_STAND_INS = {name: f"#fe{number:02x}ed" for number, name in enumerate(_NAMES)}
"""Matplotlib wants colours, the page wants variables: each variable is drawn in a colour of its own, then renamed."""


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        series: number of the colour and mark, 0 first.
        x: (N,) answers.
        y: (N,) values, NaN where there is none.
    """

    series: int
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Marks:
    """Candidates to be marked among others.

    Attributes:
        rows: positions of the candidates.
        style_name: answer, a name of the style sheet's ``--answer-`` variables.
        marker: matplotlib marker.
    """

    rows: Sequence[int]
    style_name: str
    marker: str


def curve_panel(curves: Sequence[Curve], *, label: str, is_share: bool, target: float | None = None) -> Markup:
    """A small panel of values against answers, as inline SVG.

    Args:
        curves: lines; those without a value are left out.
        label: what a screen reader says.
        is_share: values lie in [0, 1]: the axis shows all of it, so that panels compare. Agreements may lie below 0.
        target: a value to be reached, drawn as a line.
    """
    figure = Figure(figsize=(3.1, 2.0))
    axes = figure.add_axes((0.12, 0.2, 0.85, 0.74))
    _calm(axes)
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
    """Candidates in the plane, coloured by score, the asked ones marked, as inline SVG.

    Args:
        points: (N, 2) places.
        level: (N,) int, step of the colour scale, 0..NUM_LEVELS-1.
        marks: the asked ones.
        label: what a screen reader says.
    """
    figure = Figure(figsize=(4.6, 3.7))
    axes = figure.add_axes((0.07, 0.08, 0.91, 0.9))
    _calm(axes)
    size = float(np.clip(900 / max(len(points), 1) ** 0.6, 8, 36))
    # A dot under a sign would only spoil the sign's shape.
    asked = np.zeros(len(points), bool)
    asked[[row for mark in marks for row in mark.rows]] = True
    for step in range(NUM_LEVELS):
        x, y = points[(level == step) & ~asked].T
        colour = _STAND_INS[f"level-{step}"]
        axes.scatter(x, y, s=size, color=colour, edgecolors=_STAND_INS["paper"], linewidths=0.5)
    for mark in marks:
        x, y = points[list(mark.rows)].T
        axes.scatter(
            x,
            y,
            s=130 if mark.marker == "*" else 66,  # a star fills little of its square
            marker=mark.marker,
            color=_STAND_INS[f"answer-{mark.style_name}"],
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


def _calm(axes: Axes) -> None:
    """No frame but two quiet axes."""
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_STAND_INS["line"])
    axes.tick_params(colors=_STAND_INS["soft"], labelsize=8, length=0)
    axes.set_axisbelow(True)


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as inline SVG: text as text, colours as variables, no address of anything."""
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    # Ids derive from the salt: with a label each, two pictures of one page never share a definition.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Within HTML the parser knows SVG; the namespaces would only be addresses in a page that shall hold none.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\sid="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|PathCollection)_\d+"', "", text)
    for name, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip())
