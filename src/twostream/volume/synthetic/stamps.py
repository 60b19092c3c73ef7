"""Vesicles drawn onto a box: many small spheres at once.

Knows vesicles and voxels; must not know neurites.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.volume.synthetic.noise import Grid
from twostream.volume.synthetic.vesicles import Vesicles

_CHUNK = 1500  # vesicles at a time: about 50 MB of coordinates at 30 x 8 x 8 nm


def _ramp(value: np.ndarray, width: float) -> np.ndarray:
    return np.clip(value * (0.5 / width) + 0.5, 0, 1)


def _profile(distance: np.ndarray, radius: np.ndarray, is_dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Darkness of the rim (and of a dense core), and brightness of the lumen, at a distance from the centre."""
    rim = 0.72 * _ramp(5.5 - np.abs(distance - radius + 4.5), 3)
    dense = np.where(is_dense, 0.85 * _ramp(0.62 * radius - distance, 4), 0)
    return np.maximum(rim, dense), _ramp(radius - 7 - distance, 3)


def stamp(
    vesicles: Vesicles, grid: Grid, box: Box, voxel_size_nm: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Rim and core of every vesicle in a box: two (Z, Y, X) float32 arrays, see ``render.grey``."""
    rim, core = np.zeros(box.shape_zyx, np.float32), np.zeros(box.shape_zyx, np.float32)
    if len(vesicles.radius) == 0 or box.num_voxels == 0:
        return rim, core
    half = [int(np.ceil((vesicles.radius.max() + 4) / v)) for v in voxel_size_nm]
    steps = [np.arange(-h, h + 1) for h in half]
    for first in range(0, len(vesicles.radius), _CHUNK):
        part = slice(first, first + _CHUNK)
        _stamp(
            vesicles.centre[part], vesicles.radius[part], vesicles.is_dense[part], grid, steps, voxel_size_nm, rim, core
        )
    return rim, core


def _stamp(
    centre: np.ndarray,
    radius: np.ndarray,
    is_dense: np.ndarray,
    grid: Grid,
    steps: Any,
    voxel_size_nm: Any,
    rim: np.ndarray,
    core: np.ndarray,
) -> None:
    z = np.floor((centre[:, 0] - grid.z[0]) / voxel_size_nm[0] + 0.5).astype(int)[:, None] + steps[0]
    row, column = np.nonzero((z >= 0) & (z < rim.shape[0]))
    z, centre, radius, is_dense = z[row, column], centre[row], radius[row], is_dense[row]
    # From here on, one entry per vesicle and section, since each section may be shifted.
    y = np.floor((centre[:, 1] - grid.y[z, 0]) / voxel_size_nm[1] + 0.5).astype(int)[:, None] + steps[1]
    x = np.floor((centre[:, 2] - grid.x[z, 0]) / voxel_size_nm[2] + 0.5).astype(int)[:, None] + steps[2]
    inside = ((y >= 0) & (y < rim.shape[1]))[:, :, None] & ((x >= 0) & (x < rim.shape[2]))[:, None, :]
    entry, a, b = np.nonzero(inside)
    z, y, x = z[entry], y[entry, a], x[entry, b]
    dz, dy, dx = grid.z[z] - centre[entry, 0], grid.y[z, y] - centre[entry, 1], grid.x[z, x] - centre[entry, 2]
    dark, bright = _profile(np.sqrt(dz * dz + dy * dy + dx * dx), radius[entry], is_dense[entry])
    np.maximum.at(rim, (z, y, x), dark.astype(np.float32))
    np.maximum.at(core, (z, y, x), bright.astype(np.float32))
