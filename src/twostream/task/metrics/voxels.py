"""Agreement of two masks, voxel by voxel: IoU of foreground and background, from the confusion matrix.

Knows masks; must not know objects, tasks or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from twostream.task.metrics.checks import check_one_shape


@dataclass(frozen=True)
class VoxelCounts:
    """The confusion matrix of foreground and background.

    A volume larger than memory is scored by merging the counts of blocks that tile it.

    Attributes:
        tp: voxels that are foreground in both masks.
        fp: voxels that are foreground in the prediction only.
        fn: voxels that are foreground in the truth only.
        tn: voxels that are foreground in neither.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> VoxelCounts:
        """Count over arrays of one shape.

        Args:
            predicted: (Z, Y, X) bool or integer labels, foreground where > 0.
            truth: (Z, Y, X) bool or integer labels, foreground where > 0.
            ignore: (Z, Y, X), non-zero where a voxel is left out, even if it belongs to a truth object; see
                ``hidden_voxels`` for the usual rule. None leaves out nothing.

        Raises:
            InputError: the shapes differ.
        """
        check_one_shape(predicted=predicted, truth=truth, ignore=ignore)
        found, wanted = predicted > 0, truth > 0
        total = found.size
        if ignore is not None:
            keep = ignore == 0
            found, wanted, total = found & keep, wanted & keep, int(np.count_nonzero(keep))
        tp = int(np.count_nonzero(found & wanted))
        fp = int(np.count_nonzero(found)) - tp
        fn = int(np.count_nonzero(wanted)) - tp
        return cls(tp, fp, fn, total - tp - fp - fn)

    def merged(self, other: VoxelCounts) -> VoxelCounts:
        """The counts over two blocks that share no voxel."""
        return VoxelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def foreground_iou(self) -> float:
        """Intersection over union of the foreground; NaN if both masks are empty."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def background_iou(self) -> float:
        """Intersection over union of the background; NaN if both masks are full."""
        return _share(self.tn, self.tn + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Mean of the IoU of foreground and of background.

        A class that occurs in neither mask is left out of the mean; NaN only if no voxel was counted.
        """
        known = [iou for iou in (self.foreground_iou, self.background_iou) if not math.isnan(iou)]
        return sum(known) / len(known) if known else math.nan


def _share(part: int, whole: int) -> float:
    """part / whole; NaN for 0 / 0."""
    return part / whole if whole else math.nan


def foreground_iou(predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of two masks; arguments as for ``VoxelCounts.of``, NaN if both masks are empty."""
    return VoxelCounts.of(predicted, truth, ignore).foreground_iou
