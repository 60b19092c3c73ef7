"""How far predicted and true synaptic clefts lie apart: the distances of the CREMI challenge, in nanometres.

Knows masks and voxel sizes; must not know tasks, instances or files.

The challenge takes, over a whole volume, the mean distance of predicted cleft voxels to the nearest true one (ADGT)
and of true ones to the nearest predicted one (ADF); its score is the mean of the two. Here every distance is clipped
at ``max_distance_nm``. That departs from the challenge only beyond the clip, and it is what makes blocks add up: a
block read with that much context sees every voxel that could matter to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.task.metrics.checks import check_one_shape

BEYOND_NM = 200.0
"""A cleft voxel farther than this from any of the other side is a false positive or negative (CREMI)."""
MAX_DISTANCE_NM = 1000.0
"""A wrong cleft is wrong, however far the next true one: beyond 1 um a distance says only how sparse synapses are."""
PER_NM = 1000
"""Distances are summed as whole picometres: integers add up to the same in whatever order blocks are merged."""


@dataclass(frozen=True)
class CleftDistances:
    """Sums over cleft voxels, from which the means follow; blocks that tile a volume are merged.

    Over a volume, with ``context = to_voxels(max_distance_nm, voxel_size_nm)``, for each block of
    ``grid(volume.box, shape, context)``: read both masks over ``read = block.read_box.intersection(volume.box)``,
    call ``of(..., measured=block.write_box.relative_to(read))``, and merge. The result equals ``of`` on the whole.

    Attributes:
        max_distance_nm: at which distances were clipped.
        beyond_nm: distance from which on a voxel counts as false.
        num_predicted: predicted cleft voxels.
        num_truth: true cleft voxels.
        predicted_pm: sum of their distances to the nearest true one, in whole picometres.
        truth_pm: sum of their distances to the nearest predicted one, in whole picometres.
        num_false_positive: predicted voxels farther than ``beyond_nm`` from any true one.
        num_false_negative: true voxels farther than ``beyond_nm`` from any predicted one.
    """

    max_distance_nm: float
    beyond_nm: float
    num_predicted: int
    num_truth: int
    predicted_pm: int
    truth_pm: int
    num_false_positive: int
    num_false_negative: int

    @classmethod
    def of(
        cls,
        predicted: np.ndarray,
        truth: np.ndarray,
        voxel_size_nm: Sequence[float],
        *,
        ignore: np.ndarray | None = None,
        measured: Box | None = None,
        max_distance_nm: float = MAX_DISTANCE_NM,
        beyond_nm: float = BEYOND_NM,
    ) -> CleftDistances:
        """Measure over arrays of one shape.

        Args:
            predicted: (Z, Y, X) bool or integer labels, cleft where > 0.
            truth: (Z, Y, X) bool or integer labels, cleft where > 0.
            voxel_size_nm: (z, y, x).
            ignore: (Z, Y, X), non-zero where a voxel is left out: there nothing is measured, nor is anything there
                near enough to be measured to.
            measured: the voxels to measure from, relative to the arrays; what lies around them is context, to be
                measured to only. The context must reach ``max_distance_nm``, or to where the volume ends. None for
                all of the arrays.
            max_distance_nm: longer distances, and those to a mask without voxels, count as this; finite, at least
                ``beyond_nm``.
            beyond_nm: distance from which on a voxel counts as false.

        Raises:
            InputError: shapes that differ, a voxel size that is none, a box outside the arrays, a clip that is too
                short or infinite.
        """
        check_one_shape(predicted=predicted, truth=truth, ignore=ignore)
        measured = Box.whole(predicted.shape) if measured is None else measured
        _check(predicted.shape, voxel_size_nm, measured, max_distance_nm, beyond_nm)
        found, wanted = predicted > 0, truth > 0
        if ignore is not None:
            found, wanted = found & (ignore == 0), wanted & (ignore == 0)
        from_found = _distances(found, wanted, voxel_size_nm, measured)
        from_wanted = _distances(wanted, found, voxel_size_nm, measured)
        return cls(
            max_distance_nm,
            beyond_nm,
            len(from_found),
            len(from_wanted),
            _sum_pm(from_found, max_distance_nm),
            _sum_pm(from_wanted, max_distance_nm),
            int(np.count_nonzero(from_found > beyond_nm)),
            int(np.count_nonzero(from_wanted > beyond_nm)),
        )

    def merged(self, other: CleftDistances) -> CleftDistances:
        """The sums over both blocks, which must not share measured voxels.

        Raises:
            InputError: they were measured with another clip or threshold.
        """
        mine, theirs = (self.max_distance_nm, self.beyond_nm), (other.max_distance_nm, other.beyond_nm)
        if mine != theirs:
            raise InputError(
                f"max_distance_nm and beyond_nm are {mine} in one block and {theirs} in another; "
                f"expected the same in all. Measure both with one pair."
            )
        return CleftDistances(
            *mine,
            self.num_predicted + other.num_predicted,
            self.num_truth + other.num_truth,
            self.predicted_pm + other.predicted_pm,
            self.truth_pm + other.truth_pm,
            self.num_false_positive + other.num_false_positive,
            self.num_false_negative + other.num_false_negative,
        )

    @property
    def false_positive_nm(self) -> float:
        """Mean distance of predicted cleft voxels to the nearest true one (ADGT).

        ``max_distance_nm`` where nothing was predicted though there was something to find; 0 where neither is.
        """
        return self._mean(self.predicted_pm, self.num_predicted)

    @property
    def false_negative_nm(self) -> float:
        """Mean distance of true cleft voxels to the nearest predicted one (ADF).

        ``max_distance_nm`` where there was nothing to find though something was predicted; 0 where neither is.
        """
        return self._mean(self.truth_pm, self.num_truth)

    @property
    def cremi_score_nm(self) -> float:
        """Mean of ``false_positive_nm`` and ``false_negative_nm``; smaller is better."""
        return (self.false_positive_nm + self.false_negative_nm) / 2

    def _mean(self, sum_pm: int, number: int) -> float:
        if number:
            return sum_pm / PER_NM / number
        # An empty side is as bad as can be, so that predicting nothing never wins; two empty sides agree.
        return self.max_distance_nm if self.num_predicted or self.num_truth else 0.0


def _distances(source: np.ndarray, target: np.ndarray, voxel_size_nm: Sequence[float], measured: Box) -> np.ndarray:
    """(N,) nm from each ``source`` voxel in ``measured`` to the nearest ``target`` voxel, infinite without target."""
    chosen = source[measured.slices]
    if not chosen.any() or not target.any():
        return np.full(int(np.count_nonzero(chosen)), math.inf)
    distance: np.ndarray = ndimage.distance_transform_edt(~target, sampling=tuple(voxel_size_nm))
    return distance[measured.slices][chosen]


def _sum_pm(distance_nm: np.ndarray, max_distance_nm: float) -> int:
    return int(np.rint(np.minimum(distance_nm, max_distance_nm) * PER_NM).astype(np.int64).sum())


def _check(
    shape: tuple[int, ...],
    voxel_size_nm: Sequence[float],
    measured: Box,
    max_distance_nm: float,
    beyond_nm: float,
) -> None:
    if len(shape) != 3 or len(voxel_size_nm) != 3 or not all(0 < v < math.inf for v in voxel_size_nm):
        raise InputError(
            f"got arrays of shape {shape} with voxel_size_nm {tuple(voxel_size_nm)}; "
            f"expected three axes and three positive sizes: Z, Y, X."
        )
    if not Box.whole(shape).contains(measured):
        raise InputError(
            f"measured is {measured}, but the arrays hold {Box.whole(shape)}; "
            f"expected a box relative to their first voxel. Is relative_to(read_box) missing?"
        )
    if not beyond_nm <= max_distance_nm < math.inf:
        raise InputError(
            f"max_distance_nm is {max_distance_nm}; expected a finite distance of at least beyond_nm, {beyond_nm}. "
            f"For no clip at all, give the diagonal of the volume."
        )
