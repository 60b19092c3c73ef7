"""How well two masks agree, voxel by voxel, from four counts that add up over blocks.

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
        tp: voxels that are foreground in both.
        fp: foreground in the prediction alone.
        fn: foreground in the truth alone.
        tn: foreground in neither.
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
            ignore: (Z, Y, X), non-zero where a voxel is left out, whatever the other two say there.

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
        """The counts over both blocks, which must not share voxels."""
        return VoxelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def foreground_iou(self) -> float:
        """Intersection over union of the foreground; NaN where neither mask has any."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def background_iou(self) -> float:
        """Intersection over union of the background; NaN where neither mask has any."""
        return _share(self.tn, self.tn + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Mean of the IoU of foreground and of background.

        A class that occurs in neither mask is left out of the mean; NaN only where no voxel counts at all.
        """
        known = [iou for iou in (self.foreground_iou, self.background_iou) if not math.isnan(iou)]
        return sum(known) / len(known) if known else math.nan


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def foreground_iou(predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of two masks, (Z, Y, X) bool each; voxels with non-zero ``ignore`` are left out."""
    return VoxelCounts.of(predicted, truth, ignore).foreground_iou
