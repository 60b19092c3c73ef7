"""Scores: what each one means, as a table by round, and as curves against the number of answers.

Knows the metrics that the ledger stores for each round; must not know projects or HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twostream.project.status import refit_sentence
from twostream.report.figures import Curve, curve_panel
from twostream.report.overview import series_number
from twostream.report.words import duration, formatted

Metrics = Mapping[str, Any]
"""What ``metrics.json`` of a round holds."""
MetricsByRound = Mapping[int, Metrics]
"""{round: metrics} of a project."""

COUNTS = {
    "num_answers": ("answers", "answers so far that count in the budget"),
    "annotation_seconds": ("annotation", "time that annotators have spent so far"),
    "num_candidates": ("candidates", "instances proposed in the whole image"),
    "num_truth": ("truth", "true objects in the test box"),
}
"""{key of the metrics: (title, meaning)} of what a round counts."""
SCORES = {
    "candidate_recall": ("candidate recall", "share of the true objects that overlap a candidate with IoU > 0.2"),
    "candidate_accuracy": (
        "candidate accuracy",
        "share of the candidates that are good: matched one-to-one with a true object at IoU ≥ 0.5, with its polarity",
    ),
    "roi_accuracy": ("ROI accuracy", "share of the candidates that overlap a true object with IoU > 0.2"),
    "average_precision": (
        "average precision",
        "area under the precision-recall curve of the candidates, ranked by their score, over all true objects",
    ),
    "instance_f1": (
        "instance F1",
        "F1 of the final segmentation's instances, matched one-to-one with true objects at IoU ≥ 0.5",
    ),
    "foreground_iou": ("foreground IoU", "intersection over union of the final segmentation and the truth, in voxels"),
    "curated_accuracy": (
        "curated accuracy",
        "share of the pool whose label is right; the label is the answer or, without one, the scorer's prediction",
    ),
}
"""{key of the scores: (title, meaning)} of the scores that the report shows."""


def score_rows(names: Sequence[str], metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """Rows of the score table, by round and then by project.

    Args:
        names: one per project.
        metrics: one per project.

    Returns:
        Per row: the round, the project's name and colour, and the entries as text in the order of ``COUNTS`` and
        ``SCORES``.
    """
    rounds = sorted({r for of_project in metrics for r in of_project})
    return [
        {"round": r, "name": names[i], "series": series_number(i), "entries": _entries(of_project[r])}
        for r in rounds
        for i, of_project in enumerate(metrics)
        if r in of_project
    ]


def _entries(metrics: Metrics) -> list[str]:
    """A round's metrics as text, in the order of ``COUNTS`` and ``SCORES``."""
    scores = metrics.get("scores") or {}
    counts = [duration(metrics.get(n)) if n == "annotation_seconds" else formatted(metrics.get(n), 0) for n in COUNTS]
    return counts + [formatted(scores.get(n), 3) for n in SCORES]


def audit_rows(names: Sequence[str], metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """Rows of the table of audits, by project and then by round; rounds without audits are left out.

    Args:
        names: one per project.
        metrics: one per project.
    """
    rows = []
    for name, of_project in zip(names, metrics, strict=True):
        for round_number, of_round in sorted(of_project.items()):
            audit = of_round.get("audit")
            if not audit:
                continue
            low, high = audit.get("interval") or (None, None)
            rows.append(
                {
                    "round": round_number,
                    "name": name,
                    "estimate": formatted(audit.get("candidate_accuracy"), 3),
                    "interval": f"{formatted(low, 2)} to {formatted(high, 2)}",
                    "num": formatted(audit.get("num_audited"), 0),
                }
            )
    return rows


def refit_rows(names: Sequence[str], metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """Rows of the table of refits, by round and then by project; rounds whose refit was not judged are left out.

    Args:
        names: one per project.
        metrics: one per project.
    """
    return [
        {"round": r, "name": names[i], "series": series_number(i), "text": sentence}
        for r in sorted({r for of_project in metrics for r in of_project})
        for i, of_project in enumerate(metrics)
        if r in of_project and (sentence := refit_sentence(of_project[r]))
    ]


def score_panels(metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """One panel of curves per score that has a value, and one for the number of candidates.

    Args:
        metrics: one per project; each becomes a curve.
    """
    panels = []
    for name, (title, meaning) in SCORES.items():
        curves = curves_of(metrics, partial(_score, name=name))
        if curves:
            svg = curve_panel(curves, label=f"{title} against answers", is_share=True)
            panels.append({"title": title, "meaning": meaning, "svg": svg})
    curves = curves_of(metrics, lambda of_round: of_round.get("num_candidates"))
    if curves:
        svg = curve_panel(curves, label="candidates against answers", is_share=False)
        panels.append({"title": "number of candidates", "meaning": COUNTS["num_candidates"][1], "svg": svg})
    return panels


def curves_of(metrics: Sequence[MetricsByRound], value: Callable[[Metrics], float | None]) -> list[Curve]:
    """Curves against the number of answers, one per project that has at least one value.

    Args:
        metrics: one per project.
        value: takes the value to draw from a round's metrics; None where there is none.
    """
    curves = []
    for i, of_project in enumerate(metrics):
        in_order = [of_round for _, of_round in sorted(of_project.items())]
        x = [float(m.get("num_answers") or 0) for m in in_order]
        y = [math.nan if (v := value(m)) is None else float(v) for m in in_order]
        if any(v == v for v in y):
            curves.append(Curve(i, x, y))
    return curves


def _score(metrics: Metrics, name: str) -> float | None:
    """One score of a round's metrics, None where it is missing."""
    value: float | None = (metrics.get("scores") or {}).get(name)
    return value
