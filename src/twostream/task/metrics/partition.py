"""Scores of a segmentation as a partition of voxels, lowered by splits and mergers of objects.

All voxels of truth objects count and no others, as in SNEMI3D and CREMI. ``Overlaps`` leaves out only voxels with truth
label 0, so its table holds every voxel that counts here. Hence the ignore mask changes neither score; to leave a truth
object out, set its label to 0 before counting.

Knows the table of overlaps; must not know tasks or files.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from twostream.task.metrics.overlaps import Overlaps


class VariationOfInformation(NamedTuple):
    """Two conditional entropies in bits (Meila 2007); 0 is perfect.

    Attributes:
        split: H(segmentation | truth): uncertainty about a voxel's segment if its truth object is known.
        merge: H(truth | segmentation): uncertainty about a voxel's truth object if its segment is known.
    """

    split: float
    merge: float


class AdaptedRand(NamedTuple):
    """Agreement on which pairs of voxels belong together.

    Attributes:
        error: 1 - F1 of ``precision`` and ``recall``; 0 is perfect.
        precision: share of the voxel pairs within a segment that also lie in the same truth object; mergers lower it.
        recall: share of the voxel pairs within a truth object that also lie in the same segment; splits lower it.
    """

    error: float
    precision: float
    recall: float


def variation_of_information(overlaps: Overlaps) -> VariationOfInformation:
    """Split and merge entropy over the voxels of truth objects.

    Args:
        overlaps: table of the segmentation with the truth. Voxels with truth label 0 are left out; segment 0 is a
            segment like any other, as in CREMI's evaluation.

    Returns:
        In bits; both NaN without truth objects.
    """
    segment, truth, count = _in_truth(overlaps)
    if len(count) == 0:
        return VariationOfInformation(math.nan, math.nan)
    share = count / count.sum()
    of_truth, of_segment = count / _totals(truth, count), count / _totals(segment, count)
    # The sums are at most 0, so abs negates them, without the -0.0 that a minus sign makes of 0.
    return VariationOfInformation(
        abs(float(np.sum(share * np.log2(of_truth)))), abs(float(np.sum(share * np.log2(of_segment))))
    )


def adapted_rand(overlaps: Overlaps) -> AdaptedRand:
    """Adapted Rand error in the convention of the SNEMI3D challenge (Arganda-Carreras 2015).

    With n_st voxels in segment s and truth object t, precision is sum n_st^2 / sum n_s^2 and recall is
    sum n_st^2 / sum n_t^2; the pair of a voxel with itself is counted too. Voxels with truth label 0 are left out.
    Every voxel of segment 0 is treated as a segment of its own and adds 1 to sum n_st^2 and to sum n_s^2. (Common ports
    of the challenge's script add 1 / N for N voxels of the volume instead, although they do not divide their other
    terms by N^2. The results differ only if almost nothing is segmented.)

    Args:
        overlaps: table of the segmentation with the truth.

    Returns:
        Each in [0, 1]; all NaN without truth objects.
    """
    segment, truth, count = _in_truth(overlaps)
    if len(count) == 0:
        return AdaptedRand(math.nan, math.nan, math.nan)
    real = segment > 0
    alone = float(count[~real].sum())
    both = float(np.sum(count[real] ** 2)) + alone
    # The sum of n^2 over labels is the sum over pairs of the pair's voxels times the voxels of its label.
    in_segments = float(np.sum(count[real] * _totals(segment[real], count[real]))) + alone
    in_objects = float(np.sum(count * _totals(truth, count)))
    return AdaptedRand(1 - 2 * both / (in_segments + in_objects), both / in_segments, both / in_objects)


def _in_truth(overlaps: Overlaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that lie in truth objects: segment (P,) uint64, truth label (P,) uint64, voxels (P,) float64.

    Voxel counts are float64 because their squares can exceed 2^63.
    """
    inside = overlaps.truth > 0
    return overlaps.candidate[inside], overlaps.truth[inside], overlaps.count[inside].astype(np.float64)


def _totals(labels: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(P,) for each pair, the total count of its label."""
    names, inverse = np.unique(labels, return_inverse=True)
    return np.bincount(inverse, count, len(names))[inverse]
