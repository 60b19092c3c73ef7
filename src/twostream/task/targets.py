"""Training targets of the segmentation network S: what it should predict at each voxel, computed from labels.

A target is a uint8 level per voxel: 0 = certainly not, ``CERTAIN`` = certainly, values between are graded (signed
distance), ``IGNORE`` = unknown, left out of the loss. Knows arrays and voxel sizes; must not know torch, files or which
task combines which targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

CERTAIN = 254
IGNORE = 255


def binary(mask: np.ndarray) -> np.ndarray:
    """Bool array of any shape -> uint8 levels of the same shape: ``CERTAIN`` where True, else 0."""
    return mask.astype(np.uint8) * np.uint8(CERTAIN)


def contour(instances: np.ndarray, width_zyx: Sequence[int]) -> np.ndarray:
    """Band along the borders of instances, ``width_zyx`` voxels wide on either side.

    Args:
        instances: (Z, Y, X) integer labels, 0 = background.
        width_zyx: voxels along Z, Y, X; 0 along Z where a section is thicker than the band.

    Returns:
        (Z, Y, X) bool. Where two instances touch, the band lies in both.
    """
    labels = renumbered(instances)
    size = [2 * width + 1 for width in width_zyx]
    return ndimage.maximum_filter(labels, size) != ndimage.minimum_filter(labels, size)


def signed_distance(instances: np.ndarray, voxel_size_nm: Sequence[float], scale_nm: float) -> np.ndarray:
    """tanh(distance to the border / scale), positive inside, as levels.

    The distance target of PyTorch Connectomics (docs/method.md, Configurations: the MitoEM variant BCD).

    Args:
        instances: (Z, Y, X) integer labels, 0 = background.
        voxel_size_nm: (z, y, x) nm.
        scale_nm: the tanh is nearly saturated at three times this distance.

    Returns:
        (Z, Y, X) uint8 in 0..CERTAIN; CERTAIN / 2 is the border. Where two instances touch, the voxels on both sides of
        the border between them have the border's level.
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
    """Mask of all synapses, each with the cleft between its two sides filled in plane.

    Each synapse is closed (dilated, then eroded) separately, so that neighbouring synapses a few voxels apart are not
    joined.

    Args:
        segmentation: (Z, Y, X) labels, 2n-1 and 2n for the sides of synapse n.
        instances: (Z, Y, X) instance labels n of the same voxels.
        gap_px: side of the square structuring element in pixels, odd: gaps narrower than this are filled.

    Returns:
        (Z, Y, X) bool.
    """
    union = segmentation > 0
    labels = renumbered(instances)
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            union[window] |= _closed(labels[window] == label, gap_px)
    return union


def uncertain_clefts(segmentation: np.ndarray, instances: np.ndarray, gap_px: int, unknown: np.ndarray) -> np.ndarray:
    """Voxels that ``with_clefts`` leaves out, but would fill if unknown voxels belonged to a synapse.

    A closing only grows with the mask that is closed. So whatever the unknown voxels hold, a synapse fills no voxel
    beyond those that it fills when all of them are its own.

    Args:
        segmentation, instances, gap_px: as for ``with_clefts``; 0 at unknown voxels.
        unknown: (Z, Y, X) bool, voxels that may belong to any synapse.

    Returns:
        (Z, Y, X) bool.
    """
    filled = _closed(unknown, gap_px)
    # A filled voxel lies within one structuring element of the synapse, and depends on voxels that far away again.
    reach = 2 * (gap_px - 1)
    labels = renumbered(instances)
    for label, (z, *in_plane) in enumerate(ndimage.find_objects(labels), start=1):
        around = (z, *(slice(max(side.start - reach, 0), side.stop + reach) for side in in_plane))
        if unknown[around].any():
            filled[around] |= _closed(unknown[around] | (labels[around] == label), gap_px)
    return filled & ~with_clefts(segmentation, instances, gap_px)


def _closed(mask: np.ndarray, gap_px: int) -> np.ndarray:
    """(Z, Y, X) bool, closed in plane with a square of ``gap_px`` pixels; outside the array there is nothing."""
    margin = gap_px // 2 + 1
    padded = np.pad(mask, [(0, 0), (margin, margin), (margin, margin)])
    return ndimage.binary_closing(padded, np.ones((1, gap_px, gap_px), bool))[:, margin:-margin, margin:-margin]


def renumbered(instances: np.ndarray) -> np.ndarray:
    """(Z, Y, X) integer labels -> int32 labels 1, 2, ...; background stays 0.

    The 64-bit ids of large volumes cannot index an array, and the filters here need a small signed type.
    """
    names, inverse = np.unique(instances, return_inverse=True)
    return (inverse.reshape(instances.shape) + (0 if len(names) and names[0] == 0 else 1)).astype(np.int32)
