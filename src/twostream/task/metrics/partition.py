"""How well a segmentation cuts the truth's foreground into the truth's objects: splits and mergers, by voxels.

Knows the table of overlaps; must not know tasks or files.

Which voxels count: those with a truth label > 0, all of them, and no other (SNEMI3D, CREMI). ``Overlaps`` drops only
voxels outside the truth's foreground (those where both labels are 0, those in the ignore mask), so its table holds
every voxel that counts here and merges over blocks. Hence the ignore mask changes neither score: where truth is to be
left out of them, set its label to 0 before counting.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from twostream.task.metrics.overlaps import Overlaps


class VariationOfInformation(NamedTuple):
    """Two conditional entropies in bits, 0 is perfect (Meila 2007).

    Attributes:
        split: H(segmentation | truth): what is still to be said of the segment once the truth object is known.
        merge: H(truth | segmentation): what is still to be said of the truth object once the segment is known.
    """

    split: float
    merge: float


class AdaptedRand(NamedTuple):
    """Agreement on pairs of voxels.

    Attributes:
        error: 1 - F of ``precision`` and ``recall``; 0 is perfect.
        precision: share of the pairs in one segment that lie in one truth object; mergers lower it.
        recall: share of the pairs in one truth object that lie in one segment; splits lower it.
    """

    error: float
    precision: float
    recall: float


def variation_of_information(overlaps: Overlaps) -> VariationOfInformation:
    """Split and merge entropy over the truth's foreground.

    Args:
        overlaps: table of the segmentation with the truth. Voxels with truth 0 are passed over; segment 0 is a
            segment like any other, as in CREMI's evaluation.

    Returns:
        In bits; NaN twice where there is no truth.
    """
    segment, truth, count = _in_truth(overlaps)
    if len(count) == 0:
        return VariationOfInformation(math.nan, math.nan)
    share = count / count.sum()
    of_truth, of_segment = count / _totals(truth, count), count / _totals(segment, count)
    # abs: log2(1) is 0 and its negative -0.0, which a table would print with the sign.
    return VariationOfInformation(
        abs(float(np.sum(share * np.log2(of_truth)))), abs(float(np.sum(share * np.log2(of_segment))))
    )


def adapted_rand(overlaps: Overlaps) -> AdaptedRand:
    """Adapted Rand error in the convention of the SNEMI3D challenge (Arganda-Carreras 2015).

    With n_st voxels in segment s and truth object t, precision is sum n_st^2 / sum n_s^2 and recall is
    sum n_st^2 / sum n_t^2; a voxel pairs with itself too. Voxels with truth 0 are passed over. Voxels of segment 0
    belong to no segment: each stands alone, adding 1 to the sum of n_st^2 and to that of n_s^2. (Circulating ports of
    the challenge's script add 1 / N for N voxels of the volume instead, while their other terms are not divided by
    N^2; the difference shows only where almost nothing is segmented.)

    Args:
        overlaps: table of the segmentation with the truth.

    Returns:
        Each in [0, 1]; NaN where there is no truth.
    """
    segment, truth, count = _in_truth(overlaps)
    if len(count) == 0:
        return AdaptedRand(math.nan, math.nan, math.nan)
    real = segment > 0
    alone = float(count[~real].sum())
    both = float(np.sum(count[real] ** 2)) + alone
    # The sum of n^2 over labels, written over pairs: each pair brings its own voxels times those of its label.
    in_segments = float(np.sum(count[real] * _totals(segment[real], count[real]))) + alone
    in_objects = float(np.sum(count * _totals(truth, count)))
    return AdaptedRand(1 - 2 * both / (in_segments + in_objects), both / in_segments, both / in_objects)


def _in_truth(overlaps: Overlaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segment, truth object and voxels of every pair in the truth's foreground; (P,) each, voxels as float64.

    float64, for squares of counts of a large volume pass 2^63.
    """
    inside = overlaps.truth > 0
    return overlaps.candidate[inside], overlaps.truth[inside], overlaps.count[inside].astype(np.float64)


def _totals(labels: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(P,) voxels of each row's label, over all rows."""
    names, inverse = np.unique(labels, return_inverse=True)
    return np.bincount(inverse, count, len(names))[inverse]
