"""Scores of objects: which truth objects were found, and which candidates are right.

There are two rules. One-to-one matching pairs each candidate with at most one truth object (precision, recall, F1,
average precision); the laxer rule asks only for some overlap (``roi_accuracy``, ``candidate_recall``). Tables of blocks
are merged before any of this, because the IoU of an object needs all of its voxels. Knows the table of overlaps and
scores of candidates; must not know tasks, the borders of boxes or files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.task.metrics.overlaps import Overlaps

GOOD_IOU = 0.5
"""IoU that a one-to-one match needs at least."""
FOUND_IOU = 0.2
"""IoU above which a truth object counts as proposed, and a candidate as a right region of interest.

The default of PyTorch Connectomics' removed script evaluate_syn (Lin 2019; docs/method.md, Evaluation).
"""
IGNORED_SHARE = 0.5
"""With at least this share of its voxels in the ignore mask a candidate is never wrong: the truth is unknown there."""


def match_one_to_one(overlaps: Overlaps, min_iou: float = GOOD_IOU) -> dict[int, tuple[int, float]]:
    """Pair candidates with truth objects greedily by decreasing IoU, each label in one pair at most.

    Args:
        overlaps: table of voxel counts.
        min_iou: a pair needs at least this IoU.

    Returns:
        {candidate label: (truth label, IoU)}. Of equal IoUs the smaller candidate label, then the smaller truth label,
        is paired first.
    """
    c, t, iou = overlaps.iou()
    order = np.lexsort((t, c, -iou))
    matched: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for row in order[iou[order] >= min_iou].tolist():
        a, b = int(c[row]), int(t[row])
        if a not in matched and b not in taken:
            matched[a] = (b, float(iou[row]))
            taken.add(b)
    return matched


@dataclass(frozen=True)
class Detection:
    """Which candidates count, and which truth object each of them hits.

    Attributes:
        truth_of: {candidate label: label of the truth object that it hits, 0 if none}; only candidates that count.
        num_truth: number of truth objects that count, whether they are hit or not.
    """

    truth_of: dict[int, int]
    num_truth: int

    @classmethod
    def of(
        cls,
        overlaps: Overlaps,
        min_iou: float = GOOD_IOU,
        *,
        is_right: Callable[[int, int], bool] | None = None,
        ignored_share: float = IGNORED_SHARE,
    ) -> Detection:
        """Match one-to-one. All truth objects count, and all candidates except those that are mostly ignored.

        Args:
            overlaps: table of instance labels over all that is scored.
            min_iou: a hit needs at least this IoU.
            is_right: a further condition on a matched pair (candidate label, truth label), for example that the sides
                of a synapse are the right way round. A pair that fails it is a false positive and a missed object.
            ignored_share: a candidate with at least this share of its voxels in the ignore mask counts only if it is
                a hit.
        """
        matched = match_one_to_one(overlaps, min_iou)
        hits = {c: t for c, (t, _) in matched.items() if is_right is None or is_right(c, t)}
        counted = _counted(overlaps, hits, ignored_share)
        return cls({c: hits.get(c, 0) for c in counted}, len(overlaps.truth_sizes()))

    @property
    def num_candidates(self) -> int:
        """Number of candidates that count."""
        return len(self.truth_of)

    @property
    def num_hits(self) -> int:
        """Number of candidates that hit a truth object."""
        return sum(truth > 0 for truth in self.truth_of.values())

    @property
    def precision(self) -> float:
        """Share of the candidates that are hits; 0 without candidates."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[0]

    @property
    def recall(self) -> float:
        """Share of the truth objects that are hit; NaN without truth objects."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[1]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 without a hit, NaN with neither candidates nor truth objects."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[2]

    def average_precision(self, score: Mapping[int, float]) -> float:
        """The function ``average_precision``, with hits as true positives.

        Args:
            score: {candidate label: score}, larger = more likely an object; must hold every candidate that counts.
        """
        labels = sorted(self.truth_of)
        is_true = np.array([self.truth_of[label] > 0 for label in labels], bool)
        return average_precision(np.array([score[label] for label in labels], float), is_true, self.num_truth)


def roi_accuracy(
    overlaps: Overlaps,
    min_iou: float = FOUND_IOU,
    *,
    candidates: Collection[int] | None = None,
    ignored_share: float = IGNORED_SHARE,
) -> float:
    """Region-of-interest accuracy: share of the candidates whose IoU with some truth object is above ``min_iou``.

    Not one-to-one: of several candidates on one truth object, all are right. The script evaluate_syn counts predicted
    instances in the same way (Lin 2019; docs/method.md, Evaluation).

    Args:
        overlaps: table of instance labels.
        min_iou: a right candidate has an IoU above this.
        candidates: labels that count. None for all in the table except wrong ones with at least ``ignored_share`` of
            their voxels in the ignore mask.
        ignored_share: used if ``candidates`` is None.

    Returns:
        In [0, 1]; 0 without candidates, so that proposing nothing is never the best.
    """
    right = {c for c, iou in overlaps.best_iou()[0].items() if iou > min_iou}
    counted = _counted(overlaps, right, ignored_share) if candidates is None else set(candidates)
    return len(right & counted) / len(counted) if counted else 0.0


def candidate_recall(overlaps: Overlaps, min_iou: float = FOUND_IOU, *, truth: Collection[int] | None = None) -> float:
    """Share of the truth objects that some candidate overlaps with an IoU above ``min_iou``; not one-to-one.

    Args:
        overlaps: table of instance labels.
        min_iou: a found object has an IoU above this with some candidate.
        truth: labels of the truth objects that count; None for all in the table.

    Returns:
        In [0, 1]; NaN without truth objects.
    """
    counted = set(overlaps.truth_sizes()) if truth is None else set(truth)
    return len(found_objects(overlaps, min_iou) & counted) / len(counted) if counted else float("nan")


def found_objects(overlaps: Overlaps, min_iou: float = FOUND_IOU) -> set[int]:
    """Labels of the truth objects that some candidate overlaps with an IoU above ``min_iou``; not one-to-one.

    Args:
        overlaps: table of instance labels.
        min_iou: a found object has an IoU above this with some candidate.
    """
    return {t for t, iou in overlaps.best_iou()[1].items() if iou > min_iou}


def _counted(overlaps: Overlaps, hits: Collection[int], ignored_share: float) -> set[int]:
    """Labels of the candidates that count: hits, and those with less than ``ignored_share`` in the ignore mask.

    One that lies wholly in the mask never counts.
    """
    sizes = overlaps.candidate_sizes()
    mostly = {c for c, n in overlaps.ignored.items() if n >= ignored_share * (n + sizes.get(c, 0))}
    return set(sizes) - (mostly - set(hits))


def precision_recall_f1(true_positives: int, num_candidates: int, num_truth: int) -> tuple[float, float, float]:
    """Precision, recall and F1.

    Args:
        true_positives: matched pairs of a candidate and a truth object.
        num_candidates: candidates, matched or not.
        num_truth: truth objects, matched or not.

    Returns:
        Each in [0, 1]. Precision is 0 without candidates, recall NaN without truth objects, F1 NaN without both.
    """
    precision = true_positives / num_candidates if num_candidates else 0.0
    recall = true_positives / num_truth if num_truth else float("nan")
    total = num_candidates + num_truth
    return precision, recall, 2 * true_positives / total if total else float("nan")


def average_precision(score: np.ndarray, is_true: np.ndarray, num_truth: int) -> float:
    """Area under the precision-recall curve, all-points interpolation (Everingham 2010, PASCAL VOC).

    Candidates of equal score are one point of the curve.

    Args:
        score: (N,) float, larger = more likely an object.
        is_true: (N,) bool, whether the candidate is matched one-to-one with a truth object.
        num_truth: number of truth objects, matched or not.

    Returns:
        In [0, 1]; NaN without truth objects.

    Raises:
        InputError: a score is NaN, or more candidates are true than there are truth objects.
    """
    if np.isnan(score).any():
        raise InputError(
            f"score is NaN in row {int(np.argmax(np.isnan(score)))}; expected a number for every candidate."
        )
    if is_true.sum() > num_truth:
        raise InputError(
            f"{int(is_true.sum())} candidates are true, but there are {num_truth} truth objects; expected no more than "
            f"one per object. Match them one-to-one."
        )
    if num_truth == 0:
        return float("nan")
    if len(score) == 0:
        return 0.0
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.r_[np.flatnonzero(np.diff(score[order])), len(order) - 1]
    true_positives = np.cumsum(is_true[order])[last_of_tie]
    precision = true_positives / (last_of_tie + 1)
    recall = true_positives / num_truth
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * envelope))
