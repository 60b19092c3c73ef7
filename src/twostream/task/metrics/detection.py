"""How many objects were found: one-to-one matches, what counts as found, and the scores that follow.

Knows the table of overlaps and scores of candidates; must not know tasks, borders or files. Tables of blocks are
merged first and matched afterwards, for a match needs the whole of an object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.task.metrics.overlaps import Overlaps


def match_one_to_one(overlaps: Overlaps, min_iou: float = 0.5) -> dict[int, tuple[int, float]]:
    """Pair candidates with truth objects, best IoU first, each used once.

    Args:
        overlaps: table of voxel counts.
        min_iou: a pair needs at least this IoU.

    Returns:
        {candidate label: (truth label, IoU)}; ties go to the smaller labels.
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
    """Which candidates count, and which of them hit a truth object.

    Attributes:
        truth_of: {candidate label: label of the truth object that it hits, 0 if none}; only candidates that count.
        num_truth: truth objects that count, found or not.
    """

    truth_of: dict[int, int]
    num_truth: int

    @classmethod
    def of(
        cls,
        overlaps: Overlaps,
        min_iou: float = 0.5,
        *,
        is_right: Callable[[int, int], bool] | None = None,
        ignored_share: float = 0.5,
    ) -> Detection:
        """Match one-to-one; every truth object counts, and every candidate that is not mostly ignored.

        Args:
            overlaps: table of instance labels, of the whole that is scored.
            min_iou: a hit needs at least this IoU.
            is_right: what else a matched pair (candidate label, truth label) needs to be a hit, for example that
                both sides of a synapse are the right way round. A match that lacks it is a miss and a false alarm.
            ignored_share: a candidate with at least this share of its voxels in the ignore mask counts only as a hit.
        """
        matched = match_one_to_one(overlaps, min_iou)
        hits = {c: t for c, (t, _) in matched.items() if is_right is None or is_right(c, t)}
        counted = _counted(overlaps, hits, ignored_share)
        return cls({c: hits.get(c, 0) for c in counted}, len(overlaps.truth_sizes()))

    @property
    def num_candidates(self) -> int:
        return len(self.truth_of)

    @property
    def num_hits(self) -> int:
        return sum(truth > 0 for truth in self.truth_of.values())

    @property
    def precision(self) -> float:
        """Share of the candidates that hit; 0 without candidates."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[0]

    @property
    def recall(self) -> float:
        """Share of the truth objects that are hit; NaN without truth."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[1]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing hits, NaN without candidates and truth."""
        return precision_recall_f1(self.num_hits, self.num_candidates, self.num_truth)[2]

    def average_precision(self, score: Mapping[int, float]) -> float:
        """``average_precision`` with hits counting as true.

        Args:
            score: {candidate label: score} of at least the candidates that count; larger = more likely an object.
        """
        labels = sorted(self.truth_of)
        is_true = np.array([self.truth_of[label] > 0 for label in labels], bool)
        return average_precision(np.array([score[label] for label in labels], float), is_true, self.num_truth)


def roi_accuracy(
    overlaps: Overlaps,
    min_iou: float = 0.2,
    *,
    candidates: Collection[int] | None = None,
    ignored_share: float = 0.5,
) -> float:
    """Share of the candidates whose best IoU with any truth object is above ``min_iou``; not one-to-one.

    So counted Lin's evaluate_syn script (2019), over predicted instances: several candidates on one truth object are
    all right.

    Args:
        overlaps: table of instance labels.
        min_iou: a right candidate has more than this.
        candidates: labels that count. None for all of the table, less those with at least ``ignored_share`` of their
            voxels in the ignore mask that are not right.
        ignored_share: see ``candidates``.

    Returns:
        In [0, 1]; 0 without candidates, for proposing nothing must not win.
    """
    right = {c for c, iou in overlaps.best_iou()[0].items() if iou > min_iou}
    counted = _counted(overlaps, right, ignored_share) if candidates is None else set(candidates)
    return len(right & counted) / len(counted) if counted else 0.0


def candidate_recall(overlaps: Overlaps, min_iou: float = 0.2, *, truth: Collection[int] | None = None) -> float:
    """Share of the truth objects that some candidate overlaps with an IoU above ``min_iou``; not one-to-one.

    Args:
        overlaps: table of instance labels.
        min_iou: a found object has more than this.
        truth: labels that count; None for all of the table.

    Returns:
        In [0, 1]; NaN without truth.
    """
    counted = set(overlaps.truth_sizes()) if truth is None else set(truth)
    found = {t for t, iou in overlaps.best_iou()[1].items() if iou > min_iou}
    return len(found & counted) / len(counted) if counted else float("nan")


def _counted(overlaps: Overlaps, hits: Collection[int], ignored_share: float) -> set[int]:
    """Candidates with a voxel outside the ignore mask, without those mostly inside it, unless they hit."""
    sizes = overlaps.candidate_sizes()
    mostly = {c for c, n in overlaps.ignored.items() if n >= ignored_share * (n + sizes.get(c, 0))}
    return set(sizes) - (mostly - set(hits))


def precision_recall_f1(true_positives: int, num_candidates: int, num_truth: int) -> tuple[float, float, float]:
    """Precision, recall and F1; 0 where nothing was proposed, NaN recall where there was nothing to find."""
    precision = true_positives / num_candidates if num_candidates else 0.0
    recall = true_positives / num_truth if num_truth else float("nan")
    total = num_candidates + num_truth
    return precision, recall, 2 * true_positives / total if total else float("nan")


def average_precision(score: np.ndarray, is_true: np.ndarray, num_truth: int) -> float:
    """Area under the precision-recall curve, all-points interpolation (Everingham 2010, PASCAL VOC).

    Args:
        score: (N,) larger = more likely an object.
        is_true: (N,) bool, matched one-to-one with a truth object.
        num_truth: truth objects, found or not.

    Returns:
        In [0, 1]; NaN if there is no truth object. Candidates of equal score enter together.

    Raises:
        InputError: a score that is no number, or more hits than truth objects.
    """
    if np.isnan(score).any():
        raise InputError(
            f"score is NaN in row {int(np.argmax(np.isnan(score)))}; expected a number for each candidate."
        )
    if is_true.sum() > num_truth:
        raise InputError(
            f"{int(is_true.sum())} candidates are true, but there are {num_truth} truth objects; match them one-to-one."
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
