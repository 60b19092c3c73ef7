"""From labels to what S is to say of each voxel. Knows numpy and nanometres; must not know torch or files.

A target is a level: 0 = surely not, ``CERTAIN`` = surely, between = a graded value, ``IGNORE`` = nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

CERTAIN = 254
IGNORE = 255


def binary(mask: np.ndarray) -> np.ndarray:
    """Bool of any shape -> uint8 levels."""
    return mask.astype(np.uint8) * np.uint8(CERTAIN)


def contour(instances: np.ndarray, width_zyx: Sequence[int]) -> np.ndarray:
    """Band along the borders of instances, ``width_zyx`` voxels to either side.

    Args:
        instances: (Z, Y, X) integers, 0 = background.
        width_zyx: along each axis; 0 along Z where sections are thicker than the band.

    Returns:
        (Z, Y, X) bool; between two instances that touch it covers both sides.
    """
    labels = renumbered(instances)
    size = [2 * width + 1 for width in width_zyx]
    return ndimage.maximum_filter(labels, size) != ndimage.minimum_filter(labels, size)


def signed_distance(instances: np.ndarray, voxel_size_nm: Sequence[float], scale_nm: float) -> np.ndarray:
    """tanh(distance to the border / scale), positive inside, as levels (published target, METHOD section 8).

    Args:
        instances: (Z, Y, X) integers, 0 = background.
        voxel_size_nm: (z, y, x) nm.
        scale_nm: distance at which the level is about to saturate.

    Returns:
        (Z, Y, X) uint8 in 0..CERTAIN; CERTAIN / 2 is the border. Where two instances touch, the voxels on both sides of
        the border between them are the border.
    """
    labels = renumbered(instances)
    inside = labels > 0
    lowest = ndimage.minimum_filter(np.where(inside, labels, np.iinfo(labels.dtype).max), (3, 3, 3))
    between = inside & (ndimage.maximum_filter(labels, (3, 3, 3)) != lowest)
    distance = np.zeros(instances.shape, np.float32)
    for mask, sign in ((inside & ~between, 1), (~inside, -1)):
        if mask.all():
            distance += sign * np.float32(np.inf)
        elif mask.any():
            distance += sign * ndimage.distance_transform_edt(mask, voxel_size_nm).astype(np.float32)
    return np.round((np.tanh(distance / scale_nm) + 1) / 2 * CERTAIN).astype(np.uint8)


def with_clefts(segmentation: np.ndarray, instances: np.ndarray, gap_px: int) -> np.ndarray:
    """Both sides of every synapse and the cleft between them, in plane, up to ``gap_px`` wide.

    Each synapse is closed by itself, so that neighbours a few voxels apart stay two.

    Args:
        segmentation: (Z, Y, X) labels, 2n-1 and 2n.
        instances: (Z, Y, X) n.
        gap_px: odd.

    Returns:
        (Z, Y, X) bool.
    """
    union = segmentation > 0
    margin = gap_px // 2 + 1
    labels = renumbered(instances)
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            mask = np.pad(labels[window] == label, [(0, 0), (margin, margin), (margin, margin)])
            closed = ndimage.binary_closing(mask, np.ones((1, gap_px, gap_px), bool))
            union[window] |= closed[:, margin:-margin, margin:-margin]
    return union


def renumbered(instances: np.ndarray) -> np.ndarray:
    """(Z, Y, X) int32 with labels 1.., background 0: ids of endless volumes are too large to count by."""
    names, inverse = np.unique(instances, return_inverse=True)
    return (inverse.reshape(instances.shape) + (0 if len(names) and names[0] == 0 else 1)).astype(np.int32)
