"""How a candidate lies in the tissue: its most central section, and its angle from upright in that section.

Both follow Lin 2020 (figure 2 and the published code; docs/method.md, Aligned patches): one section per candidate, a
synapse upright with its presynaptic side on the left, anything else along its main axis. The published code fits the
axis by regression of columns on rows, which gives a wrong angle if the sides do not touch; here it is the principal
axis. Knows masks and pixel sizes; must not know volumes or patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from twostream.candidates.candidate import Candidate

CONTACT_MARGIN_PX = 2.0
"""Pixels of a side at most this much farther from the other side than the nearest ones belong to the contact."""
MIN_CONTACT_PX = 12
"""An axis fitted to fewer contact pixels than this is noise; then the line between the centres of the sides is used."""


def central_section(mask: np.ndarray) -> int:
    """The section of a candidate that patches are centred on.

    Of the sections with mask voxels, the one nearest to the middle of the box. If two are equally near, it is the one
    with more voxels, then the lower one. (The published code always takes the lower one, which for an object of two
    sections may hold only a few voxels.)

    Args:
        mask: (Z, Y, X), non-zero inside the candidate.

    Returns:
        Index along Z.
    """
    area = np.count_nonzero(mask, axis=(1, 2))
    filled = np.flatnonzero(area)
    distance = np.abs(filled - (len(mask) - 1) / 2)
    nearest = filled[distance == distance.min()]
    return int(nearest[np.argmax(area[nearest])])


def upright_angle(section: np.ndarray, size_yx: Sequence[float] = (1.0, 1.0)) -> float:
    """Angle of an object from upright.

    Rotating the picture by ``-angle`` about its centre makes the object upright: a synapse with its cleft vertical and
    its presynaptic side on the left, anything else with its main axis vertical.

    Args:
        section: (Y, X) mask: 0 outside; 1 inside, or on the presynaptic side; 2 on the postsynaptic side.
        size_yx: height and width of a pixel in any common unit. Angles are those of the tissue, also if pixels are not
            square.

    Returns:
        Degrees in (-180, 180].
    """
    size = np.asarray(size_yx, float) / size_yx[0]
    pre, post = np.argwhere(section == 1) * size, np.argwhere(section == 2) * size
    if len(pre) and len(post):
        across = post.mean(0) - pre.mean(0)
        axis = _contact_axis(section, across, size)
        # Upright with pre on the left means: the axis points down (+row) and post lies to the right (+column).
        if axis[0] * across[1] - axis[1] * across[0] < 0:
            axis = -axis
    else:
        points = np.argwhere(section > 0) * size
        axis = _principal_axis(points)
        # An axis has two directions. The longer tail of the object points down, so that similar objects look alike.
        along = (points - points.mean(0)) @ axis
        if (along**3).sum() < 0:
            axis = -axis
    return math.degrees(math.atan2(-axis[1], axis[0]))


def candidate_angle(candidate: Candidate, voxel_size_nm: Sequence[float]) -> float:
    """``upright_angle`` of a candidate's central section, in degrees; ``voxel_size_nm`` is (z, y, x)."""
    return upright_angle(candidate.mask[central_section(candidate.mask)], voxel_size_nm[1:])


def _contact_axis(section: np.ndarray, across: np.ndarray, size_yx: np.ndarray) -> np.ndarray:
    """Direction of the cleft: principal axis of the pixels where the two sides face each other.

    Args:
        section: (Y, X) mask, 1 and 2 on the two sides.
        across: (2,) vector (row, column) from the centre of side 1 to that of side 2.
        size_yx: (2,) height and width of a pixel, the height 1.

    Returns:
        (2,) unit vector (row, column).
    """
    facing = []
    for side, other in ((1, 2), (2, 1)):
        away = (section != other).astype(np.uint8)
        if size_yx[0] == size_yx[1]:
            distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        else:
            distance = ndimage.distance_transform_edt(away, sampling=size_yx)
        side_yx = np.argwhere(section == side)
        reach = distance[tuple(side_yx.T)]
        facing.append(side_yx[reach <= reach.min() + CONTACT_MARGIN_PX] * size_yx)
    # Each side is centred separately; otherwise the gap between the sides would turn the axis across the cleft.
    points = np.concatenate([f - f.mean(0) for f in facing])
    if min(map(len, facing)) >= MIN_CONTACT_PX / 2 and len(points) >= MIN_CONTACT_PX:
        return _principal_axis(points)
    normal = np.array([-across[1], across[0]])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else np.array([1.0, 0.0])


def _principal_axis(points: np.ndarray) -> np.ndarray:
    """Direction in which (N, 2) points vary most, as a (2,) unit vector; vertical if they vary equally in all."""
    centred = points - points.mean(0)
    (rows, mixed), (_, columns) = centred.T @ centred
    # The first eigenvector of a symmetric 2 x 2 matrix in closed form.
    if math.hypot(rows - columns, 2 * mixed) <= 1e-9 * (rows + columns):
        return np.array([1.0, 0.0])
    angle = 0.5 * math.atan2(2 * mixed, rows - columns)
    return np.array([math.cos(angle), math.sin(angle)])
