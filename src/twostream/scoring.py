"""The scores of a round: how good S's proposals are on the test box, how good the curated pool is.

Knows a round's files and the truth; must not know models. What each score means is said in ``docs/scores.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.annotator import Truth
from twostream.answers import AnswerKind
from twostream.candidates import Candidate, clean
from twostream.geometry import Box
from twostream.ledger import Ledger
from twostream.metrics import (
    Overlaps,
    average_precision,
    foreground_iou,
    match_one_to_one,
    precision_recall_f1,
    wilson_interval,
)
from twostream.task import FOUND_IOU, GOOD_IOU, Judgement, Task
from twostream.volume import Volume


def scores_on_test_box(
    segmentation: Volume,
    probability: Volume,
    truth: Truth,
    candidates: Sequence[Candidate],
    test_box: Box,
    *,
    threshold: float | None,
    min_voxels: int,
) -> dict[str, float]:
    """Scores on the test box.

    Args:
        segmentation: (Z, Y, X) labels of the round's candidates.
        probability: (C, Z, Y, X) uint8.
        truth: labels and ignore mask.
        candidates: of the round.
        test_box: where to score. Objects cut by its border (unless that is the border of the volume) count neither
            as found nor as missed.
        threshold: of the final segmentation; None where ``segmentation`` is final as it stands.
        min_voxels: smaller instances of the final segmentation are dust.

    Returns:
        The names of ``CONTRACTS`` section 5; NaN where there is nothing to score.
    """
    task = truth.task
    labels = truth.labels.read(test_box)
    ignore = None if truth.ignore is None else truth.ignore.read(test_box)
    score_of = {c.label: c.score for c in candidates}
    values = segmentation.read(test_box)
    proposed = Region.of(values, labels, ignore, task, test_box, truth.labels.box)
    found = proposed.found()
    judged = proposed.judged()
    order = sorted(judged)
    good = np.array([judged[label].kind is AnswerKind.TRUE for label in order], bool)
    roi = np.array([judged[label].best_iou > FOUND_IOU for label in order], bool)
    score = np.array([score_of[label] for label in order], float)
    final_values = values
    if threshold is not None:
        final_values = clean(task.decode(probability.read(test_box), threshold), task, min_voxels)
    final = Region.of(final_values, labels, ignore, task, test_box, truth.labels.box)
    final_judged = final.judged()
    hits = sum(j.kind is AnswerKind.TRUE for j in final_judged.values())
    return {
        "candidate_recall": len(found) / len(proposed.truth) if proposed.truth else math.nan,
        "candidate_accuracy": float(good.mean()) if len(good) else 0.0,
        "roi_accuracy": float(roi.mean()) if len(roi) else 0.0,
        "average_precision": average_precision(score, good, len(proposed.truth)),
        "instance_f1": precision_recall_f1(hits, len(final_judged), len(final.truth))[2],
        "foreground_iou": foreground_iou(
            final_values > 0, labels > 0, None if ignore is None else (ignore > 0) & (labels == 0)
        ),
        "num_test_candidates": len(order),
        "num_test_truth": len(proposed.truth),
    }


class Region:
    """A box of segmentation against truth, with what its border cuts set aside.

    Attributes:
        table: overlaps of raw label values.
        truth: instance labels that count as objects to be found.
        cut: instance labels of the segmentation that the border cuts.
    """

    def __init__(self, table: Overlaps, truth: set[int], cut: set[int], task: Task) -> None:
        self.table, self.truth, self.cut, self._task = table, truth, cut, task

    @classmethod
    def of(
        cls, values: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, box: Box, whole: Box
    ) -> Region:
        """From arrays over ``box``, which lies in the volume ``whole``."""
        table = Overlaps.of(values, labels, ignore)
        instances = set(task.instance_overlaps(table).truth_sizes())
        cut_truth = _cut(task.instances(labels), box, whole)
        return cls(table, instances - cut_truth, _cut(task.instances(values), box, whole), task)

    def found(self) -> set[int]:
        """Truth instances with a candidate at IoU > 0.2."""
        _, t, iou = self._task.instance_overlaps(self.table).iou()
        return set(t[iou > FOUND_IOU].tolist()) & self.truth

    def judged(self) -> dict[int, Judgement]:
        """Candidates that count: not ignored, not matched with a cut object, not cut themselves without a match."""
        matched = match_one_to_one(self._task.instance_overlaps(self.table), GOOD_IOU)
        result = {}
        for label, judgement in self._task.judge(self.table).items():
            partner = matched.get(label, (0, 0.0))[0]
            if judgement.kind is AnswerKind.UNSURE or (partner and partner not in self.truth):
                continue
            if partner or not (label in self.cut or self._over_cut_truth(label)):
                result[label] = judgement
        return result

    def _over_cut_truth(self, label: int) -> bool:
        """Whether most of what a candidate shares with the truth belongs to objects that the border cuts."""
        table = self._task.instance_overlaps(self.table)
        mine = (table.candidate == label) & (table.truth > 0)
        shared = int(table.count[mine].sum())
        counted = np.isin(table.truth[mine], list(self.truth))
        return shared > 0 and int(table.count[mine][counted].sum()) * 2 < shared


def _cut(instances: np.ndarray, box: Box, whole: Box) -> set[int]:
    """Instance labels on those faces of ``box`` that lie inside ``whole``."""
    cut: set[int] = set()
    for axis in range(3):
        if box.offset_zyx[axis] > whole.offset_zyx[axis]:
            cut |= set(np.unique(instances.take(0, axis)).tolist())
        if box.stop_zyx[axis] < whole.stop_zyx[axis]:
            cut |= set(np.unique(instances.take(-1, axis)).tolist())
    return cut - {0}


def choose_final_threshold(probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task) -> float:
    """Threshold of the final segmentation: best foreground IoU over (C, Z, Y, X) uint8 and (Z, Y, X) labels."""
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    best = max(
        (foreground_iou(probability[task.foreground] > 255 * t, labels > 0, hidden), -abs(t - 0.5), float(t))
        for t in np.arange(0.2, 0.85, 0.05)
    )
    return round(best[2], 2)


def curated_accuracy(probability: np.ndarray, y: np.ndarray, truth: Truth, candidates: Sequence[Candidate]) -> float:
    """Share of the whole pool whose curated label is right: the answer where there is one, else the scorer's side.

    Args:
        probability: (N,) of the shared scorer.
        y: (N,) answers, NaN where unanswered.
        truth: judges every candidate by the mask that it carries.
        candidates: the N rows.
    """
    kinds = [truth.judge(candidate).kind for candidate in candidates]
    known = np.array([kind is not AnswerKind.UNSURE for kind in kinds], bool)
    is_true = np.array([kind is AnswerKind.TRUE for kind in kinds], bool)
    label = np.where(np.isnan(y), probability >= 0.5, y == 1)
    return float((label == is_true)[known].mean()) if known.any() else math.nan


def audit_estimate(ledger: Ledger) -> dict[str, Any]:
    """Accuracy of the candidates estimated from the audit share: value, 95 percent interval, number of audits."""
    verdicts = ledger.pool()
    audited = {query.candidate.id for query in ledger.queries() if query.is_audit}  # audits stay audits
    values = [verdicts[i].y for i in sorted(audited) if not math.isnan(verdicts[i].y)]
    low, high = wilson_interval(sum(v == 1 for v in values), len(values))
    estimate = sum(values) / len(values) if values else None
    return {"candidate_accuracy": estimate, "interval": [low, high], "num_audited": len(values)}


def plain(value: Any) -> Any:
    """JSON without NaN: NaN becomes null, floats are rounded beyond what means anything."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else round(float(value), 6)
    return int(value) if isinstance(value, np.integer) else value
