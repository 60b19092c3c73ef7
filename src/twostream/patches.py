"""Aligned patches: each candidate as a small upright (image, mask) pair that the two streams can compare.

Knows numpy and OpenCV; must not know torch, projects or models. One section per candidate (Lin 2020, figure 2 and
published code): the most central one, cut through a window sqrt(2) times the patch, rotated about its centre.
A synapse stands upright with its presynaptic side on the left; anything else lies along its main axis, upright.
Where the published code regresses column on row, which tilts when the masks are apart, the axis here comes from
orthogonal regression (principal component).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import Field
from scipy import ndimage

from twostream.candidates import Candidate
from twostream.config import Config
from twostream.geometry import Box
from twostream.volume import Volume, read_padded

CONTACT_MARGIN_PX = 2.0
"""Voxels this much farther from the other side than the nearest ones still belong to the contact."""
PATCHES_PER_WINDOW = 8
"""Random patches cut from one window: few enough to be diverse, enough to spare reading."""
MIN_CONTACT_PX = 12
"""With fewer contact voxels than this an axis fitted to them is noise; the line between the sides decides."""


class PatchConfig(Config):
    """Size of the patches.

    Attributes:
        width_px: side of the square patch; the VAEs need a multiple of 2 to the number of their strides.
        pixel_size_nm: in-plane size of a patch pixel; None takes the task's.
    """

    width_px: int = Field(64, ge=8)
    pixel_size_nm: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class PatchPair:
    """One candidate as the streams see it.

    Attributes:
        image: (W, W) uint8, 0 black.
        mask: (W, W) int8: +1 pre (or inside), -1 post, 0 background.
        angle_deg: rotation that was undone; 0 = stood upright already.
        section: Z of the section, voxels of the image.
        padded: share of pixels that lay outside the volume (image: mirrored).
    """

    image: np.ndarray
    mask: np.ndarray
    angle_deg: float
    section: int
    padded: float


def central_section(mask: np.ndarray) -> int:
    """Index of the section nearest the middle of a (Z, Y, X) mask that holds any of it; ties go to the lower one."""
    filled = np.flatnonzero(mask.any((1, 2)))
    middle = (mask.shape[0] - 1) / 2
    return int(filled[np.argmin(np.abs(filled - middle))])


def upright_angle(section: np.ndarray) -> float:
    """Angle of a (Y, X) mask section (1 pre or inside, 2 post) from upright, in degrees, in (-180, 180].

    Turning the picture by ``-angle`` about its centre stands the object upright, with pre on the left.
    """
    pre, post = np.argwhere(section == 1).astype(float), np.argwhere(section == 2).astype(float)
    if len(pre) and len(post):
        across = post.mean(0) - pre.mean(0)
        axis = _contact_axis(section, across)
        # Upright with pre left: the axis points down (+row) and post lies to its right (+column).
        if axis[0] * across[1] - axis[1] * across[0] < 0:
            axis = -axis
    else:
        points = np.argwhere(section > 0).astype(float)
        axis = _principal_axis(points)
        # An axis has no head: let the heavier tail point down, so that like objects stand alike.
        along = (points - points.mean(0)) @ axis
        if (along**3).sum() < 0:
            axis = -axis
    return math.degrees(math.atan2(-axis[1], axis[0]))


def _contact_axis(section: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Unit vector (row, column) along the cleft: principal axis of the pixels where the sides face each other."""
    facing = []
    for mine, other in ((1, 2), (2, 1)):
        distance = ndimage.distance_transform_edt(section != other)
        mine_yx = np.argwhere(section == mine)
        reach = distance[tuple(mine_yx.T)]
        facing.append(mine_yx[reach <= reach.min() + CONTACT_MARGIN_PX])
    # Each side is centred on its own: otherwise the gap between the sides would pull the axis across the cleft.
    points = np.concatenate([f - f.mean(0) for f in facing])
    if min(map(len, facing)) >= MIN_CONTACT_PX / 2 and len(points) >= MIN_CONTACT_PX:
        return _principal_axis(points)
    normal = np.array([-across[1], across[0]])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else np.array([1.0, 0.0])


def _principal_axis(points: np.ndarray) -> np.ndarray:
    """Direction of largest spread of (N, 2) points; upright for a point or a disc."""
    centred = points - points.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, 1] if values[1] > values[0] * (1 + 1e-9) else np.array([1.0, 0.0])


def candidate_angle(candidate: Candidate) -> float:
    """``upright_angle`` of the candidate's central section, in degrees."""
    return upright_angle(candidate.mask[central_section(candidate.mask)])


def cut(volume: Volume, candidate: Candidate, config: PatchConfig, pixel_size_nm: float) -> PatchPair:
    """Cut and align one candidate.

    Args:
        volume: the (Z, Y, X) uint8 image.
        candidate: with its mask.
        config: patch size.
        pixel_size_nm: in-plane size of a patch pixel, used where ``config`` leaves it open.
    """
    pixel_nm = config.pixel_size_nm or pixel_size_nm
    pixel_voxels = pixel_nm / volume.voxel_size_nm[1], pixel_nm / volume.voxel_size_nm[2]
    z_local = central_section(candidate.mask)
    section = candidate.mask[z_local]
    angle = upright_angle(section)
    rows, columns = np.nonzero(section)
    center = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    z, y, x = candidate.box.offset_zyx
    half = [math.ceil(config.width_px / 2 * math.sqrt(2) * v) + 2 for v in pixel_voxels]
    corner = (z + z_local, round(y + center[0]) - half[0], round(x + center[1]) - half[1])
    window = Box(corner, (1, 2 * half[0] + 1, 2 * half[1] + 1))
    image = read_padded(volume, window)[0]
    mask = np.zeros(image.shape, np.uint8)
    common = window.intersection(Box((z + z_local, y, x), (1, *section.shape)))
    mask[common.relative_to(window).slices[1:]] = section[common.relative_to(candidate.box).slices[1:]]
    outside = np.ones(image.shape, np.uint8)
    outside[window.intersection(volume.box).relative_to(window).slices[1:]] = 0
    origin = y + center[0] - corner[1], x + center[1] - corner[2]
    smooth = _antialiased(image, pixel_voxels)
    straight = [
        _rotate(array, origin, angle, pixel_voxels, config.width_px, how)
        for array, how in ((smooth, cv2.INTER_LINEAR), (mask, cv2.INTER_NEAREST), (outside, cv2.INTER_NEAREST))
    ]
    signed = (straight[1] == 1).astype(np.int8) - (straight[1] == 2).astype(np.int8)
    return PatchPair(straight[0], signed, angle, z + z_local, float(straight[2].mean()))


def _antialiased(image: np.ndarray, pixel_voxels: Sequence[float]) -> np.ndarray:
    """Blur to the patch's pixel size, where that is coarser than the image's voxels."""
    if max(pixel_voxels) <= 1.0:
        return image
    sigma = [0.5 * math.sqrt(max(v * v - 1, 1e-3)) for v in pixel_voxels]
    return cv2.GaussianBlur(image, (0, 0), sigmaX=sigma[1], sigmaY=sigma[0], borderType=cv2.BORDER_REPLICATE)


def _rotate(
    array: np.ndarray, origin_yx: Sequence[float], angle_deg: float, pixel_voxels: Sequence[float], width: int, how: int
) -> np.ndarray:
    """Sample ``array`` on the (width, width) grid that is turned by ``angle_deg`` about ``origin_yx``."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # Patch (column u, row v), from its centre -> window (x, y): a turned step down is (c, -s) in (row, column).
    matrix = np.array(
        [
            [c * pixel_voxels[1], -s * pixel_voxels[1], origin_yx[1]],
            [s * pixel_voxels[0], c * pixel_voxels[0], origin_yx[0]],
        ]
    )
    matrix[:, 2] -= matrix[:, :2] @ [(width - 1) / 2, (width - 1) / 2]
    return cv2.warpAffine(
        array, matrix, (width, width), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def random_patches(volume: Volume, number: int, config: PatchConfig, pixel_size_nm: float, seed: int) -> np.ndarray:
    """Raw patches at random places and angles of the whole volume, for the unsupervised stream.

    Args:
        volume: the (Z, Y, X) uint8 image.
        number: patches wanted.
        config, pixel_size_nm: as for ``cut``.
        seed: the patches depend on it alone.

    Returns:
        (number, W, W) uint8. Cut from windows of several patches each, so that a chunk is not read for every patch.
    """
    rng = np.random.default_rng(seed)
    pixel_nm = config.pixel_size_nm or pixel_size_nm
    pixel_voxels = pixel_nm / volume.voxel_size_nm[1], pixel_nm / volume.voxel_size_nm[2]
    half = [math.ceil(config.width_px / 2 * math.sqrt(2) * v) + 2 for v in pixel_voxels]
    result = np.empty((number, config.width_px, config.width_px), np.uint8)
    for first in range(0, number, PATCHES_PER_WINDOW):
        span = [min(6 * h, max(s, 2 * h + 1)) for h, s in zip(half, volume.shape_zyx[1:], strict=True)]
        corner = [int(rng.integers(max(1, s - w + 1))) for s, w in zip(volume.shape_zyx[1:], span, strict=True)]
        z = int(rng.integers(volume.shape_zyx[0]))
        window = Box((z, corner[0], corner[1]), (1, span[0], span[1]))
        image = _antialiased(read_padded(volume, window)[0], pixel_voxels)
        for row in range(first, min(first + PATCHES_PER_WINDOW, number)):
            origin = [rng.uniform(h, max(s - h, h + 1e-9)) for h, s in zip(half, span, strict=True)]
            angle = rng.uniform(-180, 180)
            result[row] = _rotate(image, origin, angle, pixel_voxels, config.width_px, cv2.INTER_LINEAR)
    return result
