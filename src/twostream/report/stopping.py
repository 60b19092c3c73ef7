"""When to stop: the criteria by round, what each advises, and their curves.

The report shows them; nothing acts on them. Knows the metrics that the ledger stores for each round; must not know how
the criteria are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from twostream.project.status import advice, agreements, why_no_agreement
from twostream.query.stopping import (
    STABLE,
    TARGET,
    Estimate,
    has_stabilised,
    is_right_enough,
    recent_agreement,
)
from twostream.report.figures import curve_panel
from twostream.report.overview import series_number
from twostream.report.scores import Metrics, MetricsByRound, curves_of
from twostream.report.words import MISSING, formatted

CRITERIA = {
    "agreement": (
        "agreement with the round before",
        "Cohen's kappa between the scorer's labels in two successive rounds, over the candidates of both: 1 if no "
        "label changed, 0 if they agree no more than by chance (Bloodgood and Vijay-Shanker 2009)",
        STABLE,
    ),
    "audited": (
        "labels right, audited",
        "share of the audited candidates whose label by the scorer is the annotator's answer, which the scorer never "
        "saw; with Wilson's 95 percent interval",
        TARGET,
    ),
    "expected": (
        "labels right, expected by the scorer",
        "share of the unanswered labels that the scorer expects to be right, the mean of max(p, 1 − p), with a 95 "
        "percent interval from a committee of scorers (Zhu, Wang and Hovy 2008); not a measurement",
        TARGET,
    ),
}
"""{key of the metrics: (title, meaning, value to be reached)} of every criterion."""


def stopping_rows(names: Sequence[str], metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """Rows of the table of criteria, by round and then by project; rounds without criteria are left out.

    Args:
        names: one per project.
        metrics: one per project.
    """
    rows = [row for i, of_project in enumerate(metrics) for row in _rows(names[i], series_number(i), of_project)]
    return sorted(rows, key=lambda row: row["round"])


def _rows(name: str, series: int, metrics: MetricsByRound) -> list[dict[str, Any]]:
    """The rows of one project."""
    rows = []
    for round_number, of_round in sorted(metrics.items()):
        criteria = of_round.get("stopping")
        if not criteria:
            continue
        agreed = agreements(metrics, round_number)
        mean = recent_agreement(agreed)
        compared = MISSING if criteria["num_shared"] is None else f"{criteria['num_shared']} of {criteria['num_pool']}"
        rows.append(
            {
                "round": round_number,
                "name": name,
                "series": series,
                "agreement": formatted(agreed[-1], 3),
                "why": "" if agreed[-1] is not None else why_no_agreement(criteria),
                "compared": compared,
                "mean": formatted(mean, 3),
                "stable": advice(has_stabilised(agreed)),
                "audited": _share_and_advice(criteria["audited"]),
                "expected": _share_and_advice(criteria["expected"]),
            }
        )
    return rows


def _share_and_advice(stored: Mapping[str, Any] | None) -> tuple[str, str]:
    """A share of right labels with its interval as text, and what it advises."""
    if stored is None:
        return MISSING, MISSING
    share = Estimate(**stored)
    text = f"{formatted(share.value, 3)} ({formatted(share.low, 3)} to {formatted(share.high, 3)}) of {share.num}"
    return text, advice(is_right_enough(share))


def stopping_panels(metrics: Sequence[MetricsByRound]) -> list[dict[str, Any]]:
    """One panel of curves per criterion that has a value, one curve per project."""
    panels = []
    for name, (title, meaning, target) in CRITERIA.items():
        curves = curves_of(metrics, partial(_criterion, name=name))
        if curves:
            svg = curve_panel(curves, label=f"{title} against answers", is_share=True, target=target)
            panels.append({"title": title, "meaning": f"{meaning}; dotted: {target:g}", "svg": svg})
    return panels


def _criterion(metrics: Metrics, name: str) -> float | None:
    """The value of one criterion of a round, None where it is missing."""
    stored = (metrics.get("stopping") or {}).get(name)
    value: float | None = stored["value"] if isinstance(stored, Mapping) else stored
    return value
