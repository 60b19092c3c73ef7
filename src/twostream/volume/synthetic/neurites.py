"""Neurites: space shared out among short hashed rods, each voxel to the nearest, smoothly warped.

A rod is a line segment with a calibre; distance to a rod is distance to its segment less the
calibre, so that thick and thin neurites lie beside each other. The membrane is where the nearest
and the second nearest rod are equally far.

Knows points in nanometres; must not know voxels, synapses or grey values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from twostream.volume.synthetic.hashing import cell_id, key, lattice_cells, uniforms
from twostream.volume.synthetic.noise import Grid, grid_noise, point_noise

LATTICE_NM = 500.0  # one rod per cell of this side: profiles come out 250 to 500 nm wide
MAX_HALF_LENGTH_NM = 600.0
MAX_CALIBRE_NM = 75.0
# Every cell holds a rod whose centre is at least a tenth of a cell inside, so two rods always lie
# within 946 nm of a point; a rod centred farther than this from the point cannot be among them.
REACH_NM = 946.0 + 2 * MAX_CALIBRE_NM + MAX_HALF_LENGTH_NM
# Lattice spacing and amplitude (nm) of the two octaves of the warp: bends, and wavy membranes.
_WARP_NM = ((520.0, 230.0), (160.0, 42.0))
MAX_WARP_NM = sum(amplitude for _, amplitude in _WARP_NM)


@dataclass(frozen=True)
class Rods:
    """Rods of one shape (...): all arrays share it; coordinates are warped nm, ZYX.

    Args:
        start: (..., 3) float64 nm, one end.
        direction: (..., 3) float64 unit vector.
        length: (...) float64 nm.
        calibre: (...) float64 nm, subtracted from the distance.
        id: (...) uint64, permanent neurite id.
    """

    start: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    calibre: np.ndarray
    id: np.ndarray

    def take(self, index: Any) -> Rods:
        return Rods(*(getattr(self, f.name)[index] for f in fields(self)))

    def distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance (...) in nm less calibre, and the unit vector (..., 3) away from the rod."""
        distance, rest = self._rest(points)
        return distance - self.calibre, np.stack([r / np.maximum(distance, 1e-6) for r in rest], axis=-1)

    def distance_only(self, points: np.ndarray) -> np.ndarray:
        """Distance (...) in nm less calibre; for many rods at once."""
        return self._rest(points)[0] - self.calibre

    def _rest(self, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        direction = [self.direction[..., axis] for axis in range(3)]
        offset = [points[..., axis] - self.start[..., axis] for axis in range(3)]
        along = offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]
        along = np.minimum(np.maximum(along, 0), self.length)
        rest = [o - along * d for o, d in zip(offset, direction, strict=True)]
        return np.sqrt(rest[0] * rest[0] + rest[1] * rest[1] + rest[2] * rest[2]), rest


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product of the last axis, 3 long, always summed in the same order."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.sqrt(np.maximum(dot(v, v), 1e-12))[..., None]


def _rods_of(seed: int, cells: np.ndarray) -> Rods:
    u = uniforms(key(seed, "neurite"), cells, 8)
    centre = (cells + 0.1 + 0.8 * u[:, :3]) * LATTICE_NM
    direction = unit(u[:, 3:6] * 2 - 1)
    # Squared: many short and a few long rods. Two calibres in five are thin axons.
    half = 120 + (MAX_HALF_LENGTH_NM - 120) * u[:, 6] * u[:, 6]
    calibre = np.where(u[:, 7] < 0.4, -70 + 150 * u[:, 7], -10 + (MAX_CALIBRE_NM + 10) * (u[:, 7] - 0.4) / 0.6)
    return Rods(centre - half[:, None] * direction, direction, 2 * half, calibre, cell_id(cells))


@lru_cache(maxsize=32)
def _rods_in_cells(seed: int, start: tuple[int, ...], stop: tuple[int, ...]) -> Rods:
    return _rods_of(seed, lattice_cells(np.array(start), np.array(stop)))


def rods_near(seed: int, low_nm: np.ndarray, high_nm: np.ndarray) -> Rods:
    """Every rod that can be nearest or second nearest to a point in a box of the tissue, lattice order."""
    margin = REACH_NM + MAX_WARP_NM
    start = np.floor((np.asarray(low_nm) - margin) / LATTICE_NM).astype(int)
    stop = np.floor((np.asarray(high_nm) + margin) / LATTICE_NM).astype(int) + 1
    return _rods_in_cells(seed, tuple(start.tolist()), tuple(stop.tolist()))


def warp_points(seed: int, points: np.ndarray) -> np.ndarray:
    """Points of the tissue -> points among the rods; (N, 3) float64 nm both."""
    moved = points.copy()
    for octave, (spacing, amplitude) in enumerate(_WARP_NM):
        moved += amplitude * point_noise(_warp_keys(seed, octave), spacing, points).T
    return moved


def _warp_keys(seed: int, octave: int) -> list[int]:
    return [key(seed, f"warp{octave}{axis}") for axis in range(3)]


def warp_grid(seed: int, grid: Grid, origin_nm: np.ndarray) -> list[np.ndarray]:
    """The same for a grid: three (Z, Y, X) float32 arrays, nm from ``origin_nm``, in the order Z, Y, X."""
    straight = (
        (grid.z - origin_nm[0]).astype(np.float32)[:, None, None],
        (grid.y - origin_nm[1]).astype(np.float32)[:, :, None],
        (grid.x - origin_nm[2]).astype(np.float32)[:, None, :],
    )
    octaves = [
        np.float32(amplitude) * grid_noise(_warp_keys(seed, octave), spacing, grid)
        for octave, (spacing, amplitude) in enumerate(_WARP_NM)
    ]
    return [straight[axis] + octaves[0][axis] + octaves[1][axis] for axis in range(3)]


@dataclass(frozen=True)
class RodTable:
    """The rods that matter to one tile, as float32 relative to its origin: ready for many voxels."""

    start: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    calibre: np.ndarray
    id: np.ndarray

    @classmethod
    def of(cls, rods: Rods, origin_nm: np.ndarray) -> RodTable:
        return cls(
            np.ascontiguousarray((rods.start - origin_nm).astype(np.float32).T),
            np.ascontiguousarray(rods.direction.astype(np.float32).T),
            rods.length.astype(np.float32),
            rods.calibre.astype(np.float32),
            rods.id,
        )

    def distance(self, rod: int | np.ndarray, points: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """To one rod (int) or one rod per voxel (array): true distance (no calibre) and the vector from it, nm."""
        d = [component[rod] for component in self.direction]
        offset = [p - component[rod] for p, component in zip(points, self.start, strict=True)]
        along = offset[0] * d[0]
        along += offset[1] * d[1]
        along += offset[2] * d[2]
        np.minimum(along, self.length[rod], out=along)
        np.maximum(along, np.float32(0), out=along)
        for o, component in zip(offset, d, strict=True):
            o -= along * component
        square = offset[0] * offset[0]
        square += offset[1] * offset[1]
        square += offset[2] * offset[2]
        return np.sqrt(square, out=square), offset


@dataclass(frozen=True)
class Partition:
    """Who owns each voxel of a tile.

    Args:
        points: three (Z, Y, X) float32 arrays, warped position in nm from the tile's origin.
        rods: the rods the indices point to.
        nearest: (Z, Y, X) int16, index of the neurite that holds the voxel.
        membrane_nm: (Z, Y, X) float32, distance to the nearest membrane, to first order, >= 0.
        tilt: (Z, Y, X) float32 in [0, 1], |z component| of that membrane's normal: 1 lies flat in the section.
    """

    points: list[np.ndarray]
    rods: RodTable
    nearest: np.ndarray
    membrane_nm: np.ndarray
    tilt: np.ndarray

    @property
    def neurite(self) -> np.ndarray:
        """(Z, Y, X) uint64 neurite ids."""
        return self.rods.id[self.nearest]


def _candidates(rods: Rods, points: list[np.ndarray], origin_nm: np.ndarray) -> Rods:
    """The rods that can be nearest or second nearest to any of the points, in the order given.

    Looked for in eighths of the tile: a ball around an eighth is small, so fewer rods reach it.
    """
    halves = [[slice(0, (n + 1) // 2), slice((n + 1) // 2, n)][: min(n, 2)] for n in points[0].shape]
    parts = [[p[where] for p in points] for where in product(*halves)]
    low, high = (np.array([[getattr(p, f)() for p in part] for part in parts], np.float64) for f in ("min", "max"))
    pairs = Rods(*(getattr(rods, f.name)[None] for f in fields(Rods)))
    distance = pairs.distance_only(((low + high) / 2 + origin_nm)[:, None])
    radius = np.sqrt(dot(high - low, high - low)) / 2
    # Within a ball distances change by at most its radius, so nothing beyond this can win.
    limit = np.partition(distance, 1, axis=1)[:, 1] + 2 * radius + 1
    return rods.take(np.flatnonzero((distance <= limit[:, None]).any(axis=0)))


def partition(rods: Rods, points: list[np.ndarray], origin_nm: np.ndarray) -> Partition:
    """Share out the voxels of a tile; see :class:`Partition`."""
    table = RodTable.of(_candidates(rods, points, origin_nm), origin_nm)
    shape = points[0].shape
    first, second = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    nearest, runner_up = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    for rod in range(len(table.id)):
        distance, _ = table.distance(rod, points)
        distance -= table.calibre[rod]
        closer = distance < first
        np.copyto(runner_up, rod, where=distance < second)
        np.copyto(runner_up, nearest, where=closer)
        np.copyto(nearest, rod, where=closer)
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    gap, tilt = between(table, nearest, runner_up, points)
    return Partition(points, table, nearest, gap, np.abs(tilt))


def between(
    table: RodTable, a: int | np.ndarray, b: int | np.ndarray, points: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the membrane between rods ``a`` and ``b``, positive on the side of ``a``.

    Returns:
        (Z, Y, X) float32 nm, and the z component of the membrane's unit normal, float32.
    """
    distance_a, from_a = table.distance(a, points)
    distance_b, from_b = table.distance(b, points)
    cosine = from_a[0] * from_b[0] + from_a[1] * from_b[1] + from_a[2] * from_b[2]
    scale = np.maximum(distance_a, np.float32(1)) * np.maximum(distance_b, np.float32(1))
    # |grad(d_b - d_a)|: 2 where the membrane stands between the rods, small where both lie on one
    # side; bounded below so that a far shallow valley is not taken for a membrane.
    slope = np.sqrt(np.maximum(2 - 2 * cosine / scale, np.float32(0.16)))
    value = (distance_b - table.calibre[b]) - (distance_a - table.calibre[a])
    normal_z = from_b[0] / np.maximum(distance_b, np.float32(1)) - from_a[0] / np.maximum(distance_a, np.float32(1))
    return value / slope, np.clip(normal_z / slope, -1, 1)
