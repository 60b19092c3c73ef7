"""The scores of a round: how good S's proposals are on the test box, how good the curated pool is.

Knows a round's files and the truth; must not know models. What each score means is said in ``docs/scores.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, without_doubtful
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.task import FOUND_IOU, GOOD_IOU, Judgement, Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import (
    CleftDistances,
    Detection,
    Overlaps,
    VoxelCounts,
    candidate_recall,
    foreground_iou,
    match_one_to_one,
    roi_accuracy,
    wilson_interval,
)
from twostream.volume import Volume

STRICT_IOU = 0.75
"""A second threshold beside ``GOOD_IOU``: what is found may still be drawn badly."""

PLATEAU = 0.02
"""Share of the best foreground IoU that is not worth a threshold far from 0.5."""
FEW_ANSWERS = 5
"""Answers of one kind below which nothing is concluded from them."""


def scores_on_test_box(
    segmentation: Volume,
    probability: Volume,
    truth: Truth,
    candidates: Sequence[Candidate],
    test_box: Box,
    *,
    threshold: float | None,
    min_voxels: int,
    min_score: float = 0.0,
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
        min_score: those of a lower mean probability are not believed.

    Returns:
        The scores of ``docs/scores.md`` but for ``curated_accuracy``; NaN where there is nothing to score.
    """
    task = truth.task
    labels = truth.labels.read(test_box)
    ignore = None if truth.ignore is None else truth.ignore.read(test_box)
    score_of = {c.label: c.score for c in candidates}
    values = segmentation.read(test_box)
    proposed = Region.of(values, labels, ignore, task, test_box, truth.labels.box)
    judged = proposed.judged()
    good = sum(judgement.kind is AnswerKind.TRUE for judgement in judged.values())
    final_values = values
    if threshold is not None:
        level = probability.read(test_box)
        final_values = clean(task.decode(level, threshold), task, min_voxels)
        final_values = without_doubtful(final_values, level[task.foreground], task, min_score)
    final = Region.of(final_values, labels, ignore, task, test_box, truth.labels.box)
    final_detection = final.detection()
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    voxels = VoxelCounts.of(final_values, labels, hidden)
    scores = {
        "candidate_recall": candidate_recall(proposed.instances, FOUND_IOU, truth=proposed.truth),
        "candidate_accuracy": good / len(judged) if judged else 0.0,
        "roi_accuracy": roi_accuracy(proposed.instances, FOUND_IOU, candidates=judged),
        "average_precision": proposed.detection().average_precision(score_of),
        "average_precision_75": proposed.detection(STRICT_IOU).average_precision(score_of),
        "instance_f1": final_detection.f1,
        "instance_f1_75": final.detection(STRICT_IOU).f1,
        "instance_precision": final_detection.precision,
        "instance_recall": final_detection.recall,
        "foreground_iou": voxels.foreground_iou,
        "mean_iou": voxels.mean_iou,
        "num_test_candidates": len(judged),
        "num_test_truth": len(proposed.truth),
    }
    if task.name == "cleft":
        distances = CleftDistances.of(final_values, labels, truth.labels.voxel_size_nm, ignore=hidden)
        scores["cleft_distance_false_positive_nm"] = distances.false_positive_nm
        scores["cleft_distance_false_negative_nm"] = distances.false_negative_nm
        scores["cremi_score_nm"] = distances.cremi_score_nm
    return scores


class Region:
    """A box of segmentation against truth, with what its border cuts set aside.

    Attributes:
        table: overlaps of raw label values.
        instances: the same with the sides of one object joined.
        truth: instance labels that count as objects to be found.
        cut: instance labels of the segmentation that the border cuts.
    """

    def __init__(self, table: Overlaps, truth: set[int], cut: set[int], task: Task) -> None:
        self.table, self.truth, self.cut, self._task = table, truth, cut, task
        self.instances = task.instance_overlaps(table)
        self._said = task.judge(table)

    @classmethod
    def of(
        cls, values: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, box: Box, whole: Box
    ) -> Region:
        """From arrays over ``box``, which lies in the volume ``whole``."""
        table = Overlaps.of(values, labels, ignore)
        instances = set(task.instance_overlaps(table).truth_sizes())
        cut_truth = _cut(task.instances(labels), box, whole)
        return cls(table, instances - cut_truth, _cut(task.instances(values), box, whole), task)

    def judged(self) -> dict[int, Judgement]:
        """What the truth says of every candidate that counts at ``GOOD_IOU``; see ``detection``."""
        counted = self.detection().truth_of
        return {label: said for label, said in self._said.items() if label in counted}

    def detection(self, min_iou: float = GOOD_IOU) -> Detection:
        """Candidates that count, and the truth instances that they hit, the right way round, at ``min_iou`` or more.

        Candidates that count: not ignored, not matched with a cut object, not cut themselves without a match. For
        this, a match needs the smaller of ``min_iou`` and ``GOOD_IOU``: a stricter threshold turns hits into misses,
        it takes no candidate out of the count.
        """
        matched = match_one_to_one(self.instances, min(min_iou, GOOD_IOU))
        truth_of = {}
        for label, said in self._said.items():
            partner, iou = matched.get(label, (0, 0.0))
            right = partner > 0 and self._task.same_way_round(self.table, label, partner)
            if (partner and partner not in self.truth) or (said.kind is AnswerKind.UNSURE and not right):
                continue
            if partner or not (label in self.cut or self._over_cut_truth(label)):
                truth_of[label] = partner if right and iou >= min_iou else 0
        return Detection(truth_of, len(self.truth))

    def _over_cut_truth(self, label: int) -> bool:
        """Whether most of what a candidate shares with the truth belongs to objects that the border cuts."""
        table = self.instances
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
    """Threshold of the final segmentation over (C, Z, Y, X) uint8 and (Z, Y, X) labels.

    Of those within ``PLATEAU`` of the best foreground IoU the one nearest to 0.5: a validation box holds a few objects.
    """
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    foreground, truth = probability[task.foreground], labels > 0
    tried = [round(float(t), 2) for t in np.arange(0.2, 0.85, 0.05)]
    iou = {t: foreground_iou(foreground > 255 * t, truth, hidden) for t in tried}
    best = max((v for v in iou.values() if not math.isnan(v)), default=0.0)
    return min((t for t in tried if not iou[t] < (1 - PLATEAU) * best), key=lambda t: (abs(t - 0.5), t))


def choose_min_score(score: np.ndarray, y: np.ndarray, score_now: np.ndarray, *, until_then: float = 0.0) -> float:
    """Mean probability that an instance of the final segmentation needs, by the answers.

    On its labelled box S is right about nearly everything; how far its belief can be trusted elsewhere, only answers
    say. They are judged by what S believed before it learned from them: the score with the best F1 among the answered
    candidates parts them, and loses a share of the true ones. The S of now may lose the same share of them.

    Args:
        score: (N,) score of every answered candidate, as it was asked.
        y: (N,) 1, 0, or NaN.
        score_now: (N,) mean probability of what the final segmentation of now holds in their place (not of the masks
            that were asked about: these end at another threshold); see ``candidates.belief_where``.
        until_then: what holds as long as fewer than ``FEW_ANSWERS`` say true or say false; see
            ``candidates.least_believed``.

    Returns:
        The least mean probability; 0 keeps all.
    """
    known = ~np.isnan(y)
    score, good, score_now = score[known], y[known] == 1, score_now[known]
    if min(good.sum(), (~good).sum()) < FEW_ANSWERS:
        return until_then
    tried = np.concatenate([[0.0], np.unique(score)])
    kept = score >= tried[:, None]
    f1 = 2 * (kept & good).sum(1) / (kept.sum(1) + good.sum())
    parting = tried[np.argmax(f1)]
    return float(np.quantile(score_now[good], np.mean(score[good] < parting))) if parting else 0.0


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
