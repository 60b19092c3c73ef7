"""The sparse table of overlaps between candidates and truth, from which all scores of objects derive.

Knows label arrays and counts; must not know tasks, models or files. Tables of blocks merge into the table of the
whole, so a volume larger than memory is scored block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twostream.task.metrics.checks import check_labels, check_one_shape


@dataclass(frozen=True)
class Overlaps:
    """How many voxels each candidate shares with each truth object; label 0 stands for "neither".

    Which voxels count: all of the truth's foreground; of the rest those with a candidate label, unless the ignore
    mask hides them. Background in both is not counted.

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
            ignore: (Z, Y, X), non-zero where a voxel counts neither as object nor as background. It never hides a
                voxel of a truth object.

        Raises:
            InputError: the shapes differ, or labels are not whole numbers of at least 0.
        """
        check_one_shape(segmentation=segmentation, truth=truth, ignore=ignore)
        check_labels(segmentation=segmentation, truth=truth)
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
        """The table over both blocks, which must not share voxels and must label an object that spans them alike."""
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

    def best_iou(self) -> tuple[dict[int, float], dict[int, float]]:
        """{candidate label: its largest IoU with any truth object} and the same per truth object.

        Only labels that share a voxel with the other side; for the rest it is 0.
        """
        of_candidate: dict[int, float] = {}
        of_truth: dict[int, float] = {}
        for c, t, iou in zip(*(values.tolist() for values in self.iou()), strict=True):
            of_candidate[c] = max(iou, of_candidate.get(c, 0.0))
            of_truth[t] = max(iou, of_truth.get(t, 0.0))
        return of_candidate, of_truth


def _sums(labels: np.ndarray, count: np.ndarray) -> dict[int, int]:
    names, inverse = np.unique(labels, return_inverse=True)
    totals = np.bincount(inverse, count, len(names)).astype(np.int64)
    return {n: s for n, s in zip(names.tolist(), totals.tolist(), strict=True) if n}
