"""Detection and segmentation scores, computed from counts that add up over blocks.

Knows label arrays and counts; must not know tasks, models or files. Everything here derives from one sparse
table of overlaps, so a volume larger than memory is scored by merging the tables of its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlaps:
    """How many voxels each candidate shares with each truth object; label 0 stands for "neither".

    Attributes:
        candidate: (P,) uint64 candidate label of each pair.
        truth: (P,) uint64 truth label of each pair.
        count: (P,) int64 voxels with that pair of labels, all > 0.
        ignored: {candidate label: voxels of it that lie in the ignore mask}; not part of ``count``.
    """

    candidate: np.ndarray
    truth: np.ndarray
    count: np.ndarray
    ignored: dict[int, int]

    @classmethod
    def of(cls, segmentation: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> Overlaps:
        """Count over arrays of one shape.

        Args:
            segmentation: (Z, Y, X) integer candidate labels, 0 = background.
            truth: (Z, Y, X) integer truth labels, 0 = background.
            ignore: (Z, Y, X), non-zero where a voxel counts neither as object nor as background.
        """
        seen = (segmentation > 0) | (truth > 0)
        ignored: dict[int, int] = {}
        if ignore is not None:
            hidden = (ignore > 0) & (truth == 0)
            labels, counts = np.unique(segmentation[hidden & (segmentation > 0)], return_counts=True)
            ignored = dict(zip(labels.tolist(), counts.tolist(), strict=True))
            seen &= ~hidden
        pairs = np.stack([segmentation[seen].astype(np.uint64), truth[seen].astype(np.uint64)])
        return cls._counted(pairs, np.ones(pairs.shape[1], np.int64), ignored)

    @classmethod
    def _counted(cls, pairs: np.ndarray, weight: np.ndarray, ignored: dict[int, int]) -> Overlaps:
        if pairs.shape[1] == 0:
            empty = np.zeros(0, np.uint64)
            return cls(empty, empty, np.zeros(0, np.int64), ignored)
        order = np.lexsort(pairs[::-1])
        pairs, weight = pairs[:, order], weight[order]
        first = np.flatnonzero(np.r_[True, (pairs[:, 1:] != pairs[:, :-1]).any(0)])
        return cls(pairs[0, first], pairs[1, first], np.add.reduceat(weight, first), ignored)

    def merged(self, other: Overlaps) -> Overlaps:
        """The table over both blocks."""
        pairs = np.stack([np.r_[self.candidate, other.candidate], np.r_[self.truth, other.truth]])
        ignored = dict(self.ignored)
        for label, count in other.ignored.items():
            ignored[label] = ignored.get(label, 0) + count
        return self._counted(pairs, np.r_[self.count, other.count], ignored)

    def renamed(self, candidate: np.ndarray, truth: np.ndarray, ignored: dict[int, int]) -> Overlaps:
        """The table after labels were mapped (for example both sides of a synapse onto one), counts added up."""
        pairs = np.stack([candidate.astype(np.uint64), truth.astype(np.uint64)])
        return self._counted(pairs, self.count, ignored)

    def candidate_sizes(self) -> dict[int, int]:
        """Voxels of each candidate outside the ignore mask."""
        return _sums(self.candidate, self.count)

    def truth_sizes(self) -> dict[int, int]:
        """Voxels of each truth object."""
        return _sums(self.truth, self.count)

    def iou(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidate label, truth label and intersection over union of every pair that shares a voxel; (Q,) each."""
        sizes_c, sizes_t = self.candidate_sizes(), self.truth_sizes()
        both = (self.candidate > 0) & (self.truth > 0)
        c, t, shared = self.candidate[both], self.truth[both], self.count[both]
        total = [sizes_c[a] + sizes_t[b] for a, b in zip(c.tolist(), t.tolist(), strict=True)]
        return c, t, shared / np.maximum(np.asarray(total, np.int64) - shared, 1)


def _sums(labels: np.ndarray, count: np.ndarray) -> dict[int, int]:
    names, inverse = np.unique(labels, return_inverse=True)
    totals = np.bincount(inverse, count, len(names)).astype(np.int64)
    return {n: s for n, s in zip(names.tolist(), totals.tolist(), strict=True) if n}


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
    """
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


def foreground_iou(predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of two masks, (Z, Y, X) bool each; voxels with non-zero ``ignore`` are left out."""
    if ignore is not None:
        keep = ignore == 0
        predicted, truth = predicted & keep, truth & keep
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else float("nan")


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson 1927); (0, 1) without trials. z = 1.96 is 95 percent."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
