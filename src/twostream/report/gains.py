"""What the answers bought: the first and the last round side by side, beside runs that asked otherwise or not at all.

Knows the metrics that the ledger stores for each round; must not know projects or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twostream.report.scores import MetricsByRound
from twostream.report.words import MISSING, formatted

CURATED = "curated_accuracy"
MEASURES = {
    CURATED: ("curated pool", "share of the candidates in the pool whose label is right, answered or not"),
    "instance_f1": ("S: instance F1", "F1 of the instances of the final segmentation on the test box"),
    "average_precision": ("S: average precision", "of the candidates on the test box, ranked by S's score"),
    "foreground_iou": ("S: foreground IoU", "overlap of final segmentation and truth on the test box, in voxels"),
    "candidate_recall": ("S: candidate recall", "share of the true objects of the test box that S proposes"),
}
"""{score: (title, meaning)}: first the data set that people take home, then the model."""


@dataclass(frozen=True)
class Gain:
    """One measure before and after.

    Attributes:
        title, meaning: of the measure.
        before: in round 0, before any answer, as text.
        after: one per project, in its last scored round, as text.
    """

    title: str
    meaning: str
    before: str
    after: tuple[str, ...]


def sharing_round_0(metrics: Sequence[MetricsByRound]) -> list[int]:
    """Positions of the projects with the S of round 0 that the first one has: only these can be set beside it.

    Args:
        metrics: one per project.
    """

    def scores(rounds: MetricsByRound) -> list[float | None] | None:
        return [rounds[0]["scores"].get(name) for name in MEASURES if name != CURATED] if 0 in rounds else None

    return [row for row, rounds in enumerate(metrics) if not row or scores(rounds) == scores(metrics[0])]


def gains(metrics: Sequence[MetricsByRound], controls: Sequence[bool]) -> list[Gain]:
    """The measures of the first and the last rounds; empty before the first batch is learned.

    Args:
        metrics: one per project. They share round 0 (``sharing_round_0``).
        controls: one per project, whether nothing learns from its answers; its curated pool is that before any answer.
    """
    if not metrics or 0 not in metrics[0] or not any(max(rounds) for rounds in metrics if rounds):
        return []
    rows = []
    for name, (title, meaning) in MEASURES.items():
        before = metrics[0][0]["scores"].get(name)
        after = [
            before if control and name == CURATED else rounds[max(rounds)]["scores"].get(name) if rounds else None
            for rounds, control in zip(metrics, controls, strict=True)
        ]
        if before is None and all(value is None for value in after):
            continue
        rows.append(Gain(title, meaning, _text(before), tuple(map(_text, after))))
    return rows


def num_answers(metrics: Sequence[MetricsByRound], controls: Sequence[bool]) -> list[str]:
    """Answers that each project has learned from in its last scored round, as text; see ``gains``."""
    return [
        "0" if control else formatted(rounds[max(rounds)].get("num_answers"), 0) if rounds else MISSING
        for rounds, control in zip(metrics, controls, strict=True)
    ]


def _text(value: float | None) -> str:
    return formatted(value, 2)
