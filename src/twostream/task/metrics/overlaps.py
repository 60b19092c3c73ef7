"""The table of overlaps: how many voxels each candidate shares with each truth object.

All scores of objects are computed from it. Tables of blocks can be merged into the table of the whole volume, so a
volume larger than memory is scored block by block. Knows label arrays and counts; must not know tasks, models or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twostream.task.metrics.checks import check_labels, check_one_shape


@dataclass(frozen=True)
class Overlaps:
    """Number of voxels for each pair of candidate label and truth label that occurs.

    Label 0 is background. Voxels that are background in both are not counted, nor are those that the ignore mask hides
    (``hidden_voxels``).

    Attributes:
        candidate: (P,) uint64 candidate label of each pair.
        truth: (P,) uint64 truth label of each pair.
        count: (P,) int64 voxels with that pair of labels, all > 0.
        ignored: {candidate label: its voxels that the ignore mask hides}; these are not part of ``count``.
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
            ignore: (Z, Y, X), non-zero where the truth is unknown; None if it is known everywhere.

        Raises:
            InputError: the shapes differ, or labels are not integers of at least 0.
        """
        check_one_shape(segmentation=segmentation, truth=truth, ignore=ignore)
        check_labels(segmentation=segmentation, truth=truth)
        seen = (segmentation > 0) | (truth > 0)
        ignored: dict[int, int] = {}
        hidden = hidden_voxels(ignore, truth)
        if hidden is not None:
            labels, counts = np.unique(segmentation[hidden & (segmentation > 0)], return_counts=True)
            ignored = dict(zip(labels.tolist(), counts.tolist(), strict=True))
            seen &= ~hidden
        pairs = np.stack([segmentation[seen].astype(np.uint64), truth[seen].astype(np.uint64)])
        return cls._counted(pairs, np.ones(pairs.shape[1], np.int64), ignored)

    @classmethod
    def _counted(cls, pairs: np.ndarray, weight: np.ndarray, ignored: dict[int, int]) -> Overlaps:
        """The table of (2, M) uint64 pairs of labels, candidate and truth; (M,) int64 weights of equal pairs add up."""
        if pairs.shape[1] == 0:
            empty = np.zeros(0, np.uint64)
            return cls(empty, empty, np.zeros(0, np.int64), ignored)
        order = np.lexsort(pairs[::-1])
        pairs, weight = pairs[:, order], weight[order]
        first = np.flatnonzero(np.r_[True, (pairs[:, 1:] != pairs[:, :-1]).any(0)])
        return cls(pairs[0, first], pairs[1, first], np.add.reduceat(weight, first), ignored)

    def merged(self, other: Overlaps) -> Overlaps:
        """The table over two blocks that share no voxel; an object in both must have the same label in both."""
        pairs = np.stack([np.r_[self.candidate, other.candidate], np.r_[self.truth, other.truth]])
        ignored = dict(self.ignored)
        for label, count in other.ignored.items():
            ignored[label] = ignored.get(label, 0) + count
        return self._counted(pairs, np.r_[self.count, other.count], ignored)

    def renamed(self, candidate: np.ndarray, truth: np.ndarray, ignored: dict[int, int]) -> Overlaps:
        """The table with other labels; counts of pairs that become equal are added up.

        Args:
            candidate: (P,) new candidate label of each pair, for example with both sides of a synapse under one label.
            truth: (P,) new truth label of each pair.
            ignored: the attribute of that name, by the new labels.
        """
        pairs = np.stack([candidate.astype(np.uint64), truth.astype(np.uint64)])
        return self._counted(pairs, self.count, ignored)

    def candidate_sizes(self) -> dict[int, int]:
        """{candidate label: its voxels outside the ignore mask}; candidates wholly inside it are missing."""
        return _sums(self.candidate, self.count)

    def candidate_voxels_in_truth(self) -> dict[int, int]:
        """{candidate label: its voxels in truth objects}; candidates that share none are missing."""
        in_truth = self.truth > 0
        return _sums(self.candidate[in_truth], self.count[in_truth])

    def truth_sizes(self) -> dict[int, int]:
        """{truth label: its voxels}."""
        return _sums(self.truth, self.count)

    def iou(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intersection over union of every candidate and truth object that share a voxel.

        Returns:
            Candidate label (Q,) uint64, truth label (Q,) uint64 and IoU (Q,) float64.
        """
        sizes_c, sizes_t = self.candidate_sizes(), self.truth_sizes()
        both = (self.candidate > 0) & (self.truth > 0)
        c, t, shared = self.candidate[both], self.truth[both], self.count[both]
        total = [sizes_c[a] + sizes_t[b] for a, b in zip(c.tolist(), t.tolist(), strict=True)]
        return c, t, shared / np.maximum(np.asarray(total, np.int64) - shared, 1)

    def best_iou(self) -> tuple[dict[int, float], dict[int, float]]:
        """Largest IoU of each object.

        Returns:
            {candidate label: its largest IoU with any truth object} and {truth label: its largest IoU with any
            candidate}. Objects that overlap nothing are missing; their IoU is 0.
        """
        of_candidate: dict[int, float] = {}
        of_truth: dict[int, float] = {}
        for c, t, iou in zip(*(values.tolist() for values in self.iou()), strict=True):
            of_candidate[c] = max(iou, of_candidate.get(c, 0.0))
            of_truth[t] = max(iou, of_truth.get(t, 0.0))
        return of_candidate, of_truth


def hidden_voxels(ignore: np.ndarray | None, truth: np.ndarray) -> np.ndarray | None:
    """Voxels that the ignore mask hides: its own, except those of truth objects, where the truth is known.

    Args:
        ignore: (Z, Y, X), non-zero where the truth is unknown; None for no mask.
        truth: (Z, Y, X) integer truth labels, 0 = background.

    Returns:
        (Z, Y, X) bool; None for no mask.
    """
    return None if ignore is None else (ignore > 0) & (truth == 0)


def _sums(labels: np.ndarray, count: np.ndarray) -> dict[int, int]:
    """{label: total of its counts}, without label 0."""
    names, inverse = np.unique(labels, return_inverse=True)
    totals = np.bincount(inverse, count, len(names)).astype(np.int64)
    return {n: s for n, s in zip(names.tolist(), totals.tolist(), strict=True) if n}
