"""Distances between predicted and true synaptic clefts, as in the CREMI challenge, in nanometres.

Over a whole volume the challenge computes the mean distance of predicted cleft voxels to the nearest true one (ADGT)
and of true cleft voxels to the nearest predicted one (ADF); its score is the mean of the two. Here every distance is
clipped at ``max_distance_nm``. Because of the clip a volume can be measured block by block: a block that is read with
this much context contains every voxel that can affect its distances. Below the clip the distances are the challenge's.

Knows masks and voxel sizes; must not know tasks, instances or files.
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
"""A cleft voxel is a false positive or false negative if the nearest one in the other mask is farther away (CREMI)."""
MAX_DISTANCE_NM = 1000.0
"""Beyond 1 um the distance of a wrong cleft to the nearest true one says only how sparse synapses are."""
PER_NM = 1000
"""Distances are summed as whole picometres, because a sum of integers does not depend on the order of the blocks."""


@dataclass(frozen=True)
class CleftDistances:
    """Sums of distances over cleft voxels, which can be merged over blocks that tile a volume.

    To measure a volume block by block, take ``context = to_voxels(max_distance_nm, voxel_size_nm)``, and for each block
    of ``grid(volume.box, shape, context)`` read both masks over ``read = block.read_box.intersection(volume.box)``,
    call ``of(..., measured=block.write_box.relative_to(read))``, and merge. The result equals ``of`` on the whole
    volume exactly.

    Attributes:
        max_distance_nm: distances above this were clipped to it.
        beyond_nm: a voxel farther than this from the other mask counts as false.
        num_predicted: number of predicted cleft voxels.
        num_truth: number of true cleft voxels.
        predicted_pm: sum, in whole picometres, of the distances of predicted voxels to the nearest true one.
        truth_pm: sum, in whole picometres, of the distances of true voxels to the nearest predicted one.
        num_false_positive: number of predicted voxels farther than ``beyond_nm`` from every true one.
        num_false_negative: number of true voxels farther than ``beyond_nm`` from every predicted one.
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
            voxel_size_nm: (z, y, x) nm.
            ignore: (Z, Y, X), non-zero where both masks are treated as empty; None for no mask.
            measured: box of the voxels whose distances are summed, relative to the arrays' first voxel. The voxels
                around it are context: only distances to them are measured. The context must be at least
                ``max_distance_nm`` wide, except at the faces of the volume. None for all of the arrays.
            max_distance_nm: distances above this, and those to an empty mask, count as this; finite, at least
                ``beyond_nm``.
            beyond_nm: a voxel farther than this from the other mask counts as false.

        Raises:
            InputError: the shapes differ, the arrays or the voxel size do not have three axes, a voxel size is not
                positive, ``measured`` lies outside the arrays, or ``max_distance_nm`` is infinite or too small.
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
        """The sums over two blocks that share no measured voxel.

        Raises:
            InputError: the two were measured with different ``max_distance_nm`` or ``beyond_nm``.
        """
        limits, others = (self.max_distance_nm, self.beyond_nm), (other.max_distance_nm, other.beyond_nm)
        if limits != others:
            raise InputError(
                f"max_distance_nm and beyond_nm are {limits} in one block and {others} in another; "
                f"expected the same in all. Measure all blocks with the same two values."
            )
        return CleftDistances(
            *limits,
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

        ``max_distance_nm`` if nothing was predicted but the truth has clefts; 0 if both masks are empty.
        """
        return self._mean(self.predicted_pm, self.num_predicted)

    @property
    def false_negative_nm(self) -> float:
        """Mean distance of true cleft voxels to the nearest predicted one (ADF).

        ``max_distance_nm`` if the truth has no clefts but some were predicted; 0 if both masks are empty.
        """
        return self._mean(self.truth_pm, self.num_truth)

    @property
    def cremi_score_nm(self) -> float:
        """Mean of ``false_positive_nm`` and ``false_negative_nm``; smaller is better."""
        return (self.false_positive_nm + self.false_negative_nm) / 2

    def _mean(self, sum_pm: int, number: int) -> float:
        """Mean distance in nm over ``number`` voxels."""
        if number:
            return sum_pm / PER_NM / number
        # One empty mask gets the worst value, so that predicting nothing is never the best; two empty masks agree.
        return self.max_distance_nm if self.num_predicted or self.num_truth else 0.0


def _distances(source: np.ndarray, target: np.ndarray, voxel_size_nm: Sequence[float], measured: Box) -> np.ndarray:
    """(N,) nm from each ``source`` voxel in ``measured`` to the nearest ``target`` voxel; infinite if there is none."""
    chosen = source[measured.slices]
    if not chosen.any() or not target.any():
        return np.full(int(np.count_nonzero(chosen)), math.inf)
    distance: np.ndarray = ndimage.distance_transform_edt(~target, sampling=tuple(voxel_size_nm))
    return distance[measured.slices][chosen]


def _sum_pm(distance_nm: np.ndarray, max_distance_nm: float) -> int:
    """Sum of clipped distances, each rounded to whole picometres."""
    return int(np.rint(np.minimum(distance_nm, max_distance_nm) * PER_NM).astype(np.int64).sum())


def _check(
    shape: tuple[int, ...],
    voxel_size_nm: Sequence[float],
    measured: Box,
    max_distance_nm: float,
    beyond_nm: float,
) -> None:
    """Raise InputError unless the arguments of ``CleftDistances.of`` fit each other."""
    if len(shape) != 3 or len(voxel_size_nm) != 3 or not all(0 < v < math.inf for v in voxel_size_nm):
        raise InputError(
            f"got arrays of shape {shape} with voxel_size_nm {tuple(voxel_size_nm)}; "
            f"expected three axes and three positive sizes in nm: Z, Y, X."
        )
    if not Box.whole(shape).contains(measured):
        raise InputError(
            f"measured is {measured}, but the arrays are over {Box.whole(shape)}; "
            f"expected a box inside them, relative to their first voxel. Is relative_to(read_box) missing?"
        )
    if not beyond_nm <= max_distance_nm < math.inf:
        raise InputError(
            f"max_distance_nm is {max_distance_nm}; expected a finite distance of at least beyond_nm, {beyond_nm}. "
            f"To clip nothing, give the diagonal of the volume."
        )
