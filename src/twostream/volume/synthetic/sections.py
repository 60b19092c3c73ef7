"""Effects of sectioning and imaging: shifted and missing sections, changes of contrast and brightness, detector noise.

All of them are hashed from absolute voxel coordinates, so a section looks the same in every box.

Knows voxels and grey values; must not know what the tissue contains.
"""

from __future__ import annotations

import numpy as np

from twostream.base.geometry import Box
from twostream.volume.synthetic.hashing import hashed, key, uniform
from twostream.volume.synthetic.noise import Grid, grid_noise

MISSING_SHARE = 0.02  # of all sections
MISALIGNED_SHARE = 0.06  # of the even sections only, so that two neighbouring sections are never both shifted
MAX_SHIFT_NM = 32.0  # along Y and X
NOISE_GREY = 11.0  # standard deviation in grey levels, before blurring


def shift_yx(seed: int, z: np.ndarray, voxel_size_nm: tuple[float, float, float]) -> np.ndarray:
    """Shift of sections along Y and X.

    Args:
        seed: seed of the tissue.
        z: (Z,) absolute section indices.
        voxel_size_nm: (z, y, x) in nm.

    Returns:
        (Z, 2) int64 voxels, Y and X.
    """
    u = uniform(hashed(key(seed, "misaligned"), z[:, None], np.arange(3)[None]))
    max_shift = np.array([round(MAX_SHIFT_NM / v) for v in voxel_size_nm[1:]])
    shift = np.floor(u[:, 1:] * (2 * max_shift + 1)).astype(np.int64) - max_shift
    moved = (z % 2 == 0) & (u[:, 0] < MISALIGNED_SHARE)
    return np.where(moved[:, None], shift, 0)


def is_missing(seed: int, z: np.ndarray) -> np.ndarray:
    """Whether sections are missing, that is, blank in the image: (Z,) bool for absolute section indices (Z,)."""
    return uniform(hashed(key(seed, "missing"), z)) < MISSING_SHARE


def noise(seed: int, box: Box) -> np.ndarray:
    """Detector noise, slightly blurred along Y and X: (Z, Y, X) float32, mean 0, standard deviation about 1."""
    z, y, x = (
        np.arange(o - (k > 0), o + s + (k > 0))
        for k, (o, s) in enumerate(zip(box.offset_zyx, box.shape_zyx, strict=True))
    )
    h = hashed(key(seed, "noise"), z[:, None, None], y[:, None], x)
    # The sum of the eight bytes of a hash is nearly Gaussian: mean 1020, variance 8 * (256^2 - 1) / 12.
    total = np.zeros(h.shape, np.int32)
    for byte in h.view(np.uint8).reshape(*h.shape, 8).transpose(3, 0, 1, 2):
        total += byte
    white = (total.astype(np.float32) - 1020) * np.float32(1 / 209.02)
    beside = white[:, :-2, 1:-1] + white[:, 2:, 1:-1] + white[:, 1:-1, :-2] + white[:, 1:-1, 2:]
    return np.float32(0.85) * white[:, 1:-1, 1:-1] + np.float32(0.22) * beside


def expose(seed: int, grey: np.ndarray, grid: Grid, box: Box) -> np.ndarray:
    """Turn ideal grey levels into a recorded image.

    Args:
        seed: seed of the tissue.
        grey: (Z, Y, X) float32, 0 to 255.
        grid: positions of the voxels in the tissue.
        box: the voxels in absolute voxel coordinates.

    Returns:
        (Z, Y, X) uint8.
    """
    z = np.arange(box.offset_zyx[0], box.stop_zyx[0])
    u = uniform(hashed(key(seed, "exposure"), z[:, None], np.arange(3)[None])).astype(np.float32)[:, :, None, None]
    gain, offset = 1 + 0.18 * (u[:, 0] - 0.5), 22 * (u[:, 1] - 0.5)
    drift = 30 * grid_noise([key(seed, "drift")], 2500.0, grid)[0]
    recorded = (grey - 128) * gain + 128 + offset + drift
    blank = np.where(u[:, 2] < 0.5, np.float32(236), np.float32(14))
    recorded = np.where(is_missing(seed, z)[:, None, None], blank, recorded)
    recorded = recorded + np.float32(NOISE_GREY) * noise(seed, box)
    return np.clip(np.rint(recorded), 0, 255).astype(np.uint8)
