"""Drawing vesicles: the darkness and brightness that many small spheres contribute to the voxels of a box.

Knows vesicles and voxels; must not know neurites.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twostream.volume.synthetic.noise import Grid
from twostream.volume.synthetic.vesicles import Vesicles

_CHUNK = 1500  # vesicles drawn at once; their coordinates take about 50 MB at 30 x 8 x 8 nm


def _ramp(value: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, linear between."""
    return np.clip(value * (0.5 / width) + 0.5, 0, 1)


def _profile(distance: np.ndarray, radius: np.ndarray, is_dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Darkness of membrane and dense core, and brightness of the lumen, at a distance in nm from the centre."""
    rim = 0.72 * _ramp(5.5 - np.abs(distance - radius + 4.5), 3)
    dense = np.where(is_dense, 0.85 * _ramp(0.62 * radius - distance, 4), 0)
    return np.maximum(rim, dense), _ramp(radius - 7 - distance, 3)


def stamp(vesicles: Vesicles, grid: Grid, voxel_size_nm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Draw vesicles.

    Args:
        vesicles: those that may reach into the grid.
        grid: positions of the voxels.
        voxel_size_nm: (z, y, x) in nm.

    Returns:
        (Z, Y, X) float32 in [0, 1], darkness of vesicle membranes and dense cores, and (Z, Y, X) float32 in [0, 1], the
        share of the voxel that is bright lumen; the arguments ``rim`` and ``core`` of ``render.grey``.
    """
    rim, core = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    if len(vesicles.radius) == 0 or rim.size == 0:
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
    """Add vesicles to ``rim`` and ``core``; ``steps`` are the voxel offsets along each axis that a vesicle covers."""
    z = np.floor((centre[:, 0] - grid.z[0]) / voxel_size_nm[0] + 0.5).astype(int)[:, None] + steps[0]
    row, column = np.nonzero((z >= 0) & (z < rim.shape[0]))
    z, centre, radius, is_dense = z[row, column], centre[row], radius[row], is_dense[row]
    # From here on there is one entry per vesicle and section, because each section may be shifted.
    y = np.floor((centre[:, 1] - grid.y[z, 0]) / voxel_size_nm[1] + 0.5).astype(int)[:, None] + steps[1]
    x = np.floor((centre[:, 2] - grid.x[z, 0]) / voxel_size_nm[2] + 0.5).astype(int)[:, None] + steps[2]
    inside = ((y >= 0) & (y < rim.shape[1]))[:, :, None] & ((x >= 0) & (x < rim.shape[2]))[:, None, :]
    entry, a, b = np.nonzero(inside)
    z, y, x = z[entry], y[entry, a], x[entry, b]
    dz, dy, dx = grid.z[z] - centre[entry, 0], grid.y[z, y] - centre[entry, 1], grid.x[z, x] - centre[entry, 2]
    dark, bright = _profile(np.sqrt(dz * dz + dy * dy + dx * dx), radius[entry], is_dense[entry])
    np.maximum.at(rim, (z, y, x), dark.astype(np.float32))
    np.maximum.at(core, (z, y, x), bright.astype(np.float32))
