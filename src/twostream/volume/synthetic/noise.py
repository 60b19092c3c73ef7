"""Smooth noise: a quadratic B-spline whose coefficients are hashed values on a lattice ("value noise").

Only + - * / and floor are used. IEEE arithmetic rounds these identically whatever the length of an array, so a value
does not depend on the box in which it is computed; NumPy's vectorised sin and exp do not guarantee that.

Knows nanometres and lattices; must not know tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from twostream.volume.synthetic.hashing import hashed, uniform


@dataclass(frozen=True)
class Grid:
    """Positions of the voxels of a tile in the tissue. Sections may be shifted, so each has its own y and x.

    Args:
        z: (Z,) float64 nm, centres of the sections.
        y: (Z, Y) float64 nm, centres of the rows of each section.
        x: (Z, X) float64 nm, centres of the columns of each section.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (z, y, x)."""
        return len(self.z), self.y.shape[1], self.x.shape[1]


def _weights(position: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """First of the three lattice nodes that contribute at a position (in lattice units), and their B-spline weights."""
    cell = np.floor(position)
    f = position - cell
    return cell.astype(np.int64), [0.5 * (1 - f) * (1 - f), 0.5 + f * (1 - f), 0.5 * f * f]


def _span(cell: np.ndarray) -> np.ndarray:
    """All lattice nodes that contribute at any of the positions whose first nodes are ``cell``."""
    return np.arange(cell.min(), cell.max() + 3)


def grid_noise(keys: Sequence[int], spacing_nm: float, grid: Grid) -> np.ndarray:
    """Noise at every voxel of a grid.

    Args:
        keys: K hash keys, one per independent field.
        spacing_nm: distance of the lattice nodes in nm, the size of the smallest features.
        grid: positions of the voxels.

    Returns:
        (K, Z, Y, X) float32 in [-1, 1], standard deviation about 0.23.
    """
    cells, weights, nodes = [], [], []
    for axis in (grid.z, grid.y, grid.x):
        c, w = _weights(axis / spacing_nm)
        cells.append(c)
        weights.append([v.astype(np.float32) for v in w])
        nodes.append(_span(c))
    h = hashed(np.array(keys, np.uint64)[:, None, None, None], nodes[0][:, None, None], nodes[1][:, None], nodes[2])
    values = uniform(h).astype(np.float32) * 2 - 1
    iz, iy, ix = (c - n[0] for c, n in zip(cells, nodes, strict=True))
    result = np.empty((len(keys), *grid.shape), np.float32)
    along_z = np.asarray(sum(weights[0][k][:, None, None] * values[:, iz + k] for k in range(3)))
    # Sections with the same shift share the weights along Y and X.
    for first, last in _runs(grid):
        wy, wx = ([v[first] for v in weights[axis]] for axis in (1, 2))
        part = along_z[:, first:last]
        part = np.asarray(sum(wy[k][:, None] * part.take(iy[first] + k, axis=2) for k in range(3)))
        out = wx[0] * part.take(ix[first], axis=3)
        out += wx[1] * part.take(ix[first] + 1, axis=3)
        out += wx[2] * part.take(ix[first] + 2, axis=3)
        result[:, first:last] = out
    return result


def _runs(grid: Grid) -> list[tuple[int, int]]:
    """Runs of successive sections with the same shift: (first, one past the last)."""
    same = (grid.y[1:, 0] == grid.y[:-1, 0]) & (grid.x[1:, 0] == grid.x[:-1, 0])
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(grid.z)]
    return list(pairwise(edges))


def point_noise(keys: Sequence[int], spacing_nm: float, points: np.ndarray) -> np.ndarray:
    """The noise of ``grid_noise`` at single points.

    Args:
        keys: K hash keys, one per independent field.
        spacing_nm: distance of the lattice nodes in nm.
        points: (N, 3) float64 nm, ZYX. They should be near each other, because the whole lattice around them is hashed.

    Returns:
        (K, N) float64 in [-1, 1].
    """
    cell, w = _weights(points / spacing_nm)
    nodes = [_span(cell[:, axis]) for axis in range(3)]
    h = hashed(np.array(keys, np.uint64)[:, None, None, None], nodes[0][:, None, None], nodes[1][:, None], nodes[2])
    values = uniform(h).reshape(len(keys), -1) * 2 - 1
    _, ny, nx = (len(n) for n in nodes)
    iz, iy, ix = (cell[:, axis, None] - nodes[axis][0] + np.arange(3) for axis in range(3))
    index = (iz[:, :, None, None] * ny + iy[:, None, :, None]) * nx + ix[:, None, None, :]
    wz, wy, wx = (np.stack([v[:, axis] for v in w], axis=-1) for axis in range(3))
    weight = wz[:, :, None, None] * wy[:, None, :, None] * wx[:, None, None, :]
    return (values[:, index] * weight).sum(axis=(2, 3, 4))
