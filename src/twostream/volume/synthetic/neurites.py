"""Neurites: a Voronoi partition of space around randomly placed rods, deformed by smooth noise.

A rod is a line segment with a calibre. Each point belongs to the rod at the smallest distance, where the distance to a
rod is the distance to its segment minus its calibre (an additively weighted Voronoi diagram), so that there are thick
and thin neurites. The membrane between two neurites is the surface where their distances are equal.

There are two coordinate systems, both ZYX in nm: *tissue* coordinates, and *warped* coordinates, in which rods are
straight. ``warp_points`` converts from the first to the second.

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

LATTICE_NM = 500.0  # one rod per cube of this side, which makes cross-sections 250 to 500 nm wide
MAX_HALF_LENGTH_NM = 600.0
MAX_CALIBRE_NM = 75.0
# Every cell contains a rod whose centre is at least a tenth of a cell away from its faces, so the centres of at least
# two rods are within 946 nm of any point. A rod whose centre is farther from the point than REACH_NM cannot be one of
# the two nearest, however long and thick it is.
REACH_NM = 946.0 + 2 * MAX_CALIBRE_NM + MAX_HALF_LENGTH_NM
# Lattice spacing and amplitude, in nm, of the two components of the warp: one bends neurites, one makes membranes wavy.
_WARP_NM = ((520.0, 230.0), (160.0, 42.0))
MAX_WARP_NM = sum(amplitude for _, amplitude in _WARP_NM)


@dataclass(frozen=True)
class Rods:
    """An array of rods of any shape (...), in warped coordinates (nm, ZYX).

    Args:
        start: (..., 3) float64 nm, one end of the segment.
        direction: (..., 3) float64 unit vector along it.
        length: (...) float64 nm.
        calibre: (...) float64 nm, subtracted from the distance; negative for thin neurites.
        id: (...) uint64, id of the neurite, the same in every box.
    """

    start: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    calibre: np.ndarray
    id: np.ndarray

    def take(self, index: Any) -> Rods:
        """The rods at a NumPy index into the shape (...)."""
        return Rods(*(getattr(self, f.name)[index] for f in fields(self)))

    def distance(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance in nm minus calibre (...), and the unit vector from the rod to the point (..., 3).

        Args:
            points: (..., 3) float64, warped nm; broadcast against the rods.
        """
        distance, rest = self._from_segment(points)
        return distance - self.calibre, np.stack([r / np.maximum(distance, 1e-6) for r in rest], axis=-1)

    def distance_only(self, points: np.ndarray) -> np.ndarray:
        """Distance in nm minus calibre, as ``distance`` but without the vector, which takes memory."""
        return self._from_segment(points)[0] - self.calibre

    def _from_segment(self, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Distance to the segment, and the three components of the vector from the segment to the point."""
        direction = [self.direction[..., axis] for axis in range(3)]
        offset = [points[..., axis] - self.start[..., axis] for axis in range(3)]
        along = offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]
        along = np.minimum(np.maximum(along, 0), self.length)
        rest = [o - along * d for o, d in zip(offset, direction, strict=True)]
        return np.sqrt(rest[0] * rest[0] + rest[1] * rest[1] + rest[2] * rest[2]), rest


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product over the last axis, of length 3. The order of the sum is fixed, so that results are reproducible."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def unit(v: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) scaled to length 1."""
    return v / np.sqrt(np.maximum(dot(v, v), 1e-12))[..., None]


def _rods_of(seed: int, cells: np.ndarray) -> Rods:
    """The rods of lattice cells (N, 3), one per cell."""
    u = uniforms(key(seed, "neurite"), cells, 8)
    centre = (cells + 0.1 + 0.8 * u[:, :3]) * LATTICE_NM
    direction = unit(u[:, 3:6] * 2 - 1)
    # The square makes most rods short and a few long. Two rods in five are thin axons.
    half = 120 + (MAX_HALF_LENGTH_NM - 120) * u[:, 6] * u[:, 6]
    calibre = np.where(u[:, 7] < 0.4, -70 + 150 * u[:, 7], -10 + (MAX_CALIBRE_NM + 10) * (u[:, 7] - 0.4) / 0.6)
    return Rods(centre - half[:, None] * direction, direction, 2 * half, calibre, cell_id(cells))


@lru_cache(maxsize=32)
def _rods_in_cells(seed: int, start: tuple[int, ...], stop: tuple[int, ...]) -> Rods:
    return _rods_of(seed, lattice_cells(np.array(start), np.array(stop)))


def rods_near(seed: int, low_nm: np.ndarray, high_nm: np.ndarray) -> Rods:
    """All rods that can be nearest or second nearest to a point of a box, in lattice order.

    Args:
        seed: seed of the tissue.
        low_nm: first corner of the box, tissue nm, ZYX.
        high_nm: last corner.
    """
    margin = REACH_NM + MAX_WARP_NM
    start = np.floor((np.asarray(low_nm) - margin) / LATTICE_NM).astype(int)
    stop = np.floor((np.asarray(high_nm) + margin) / LATTICE_NM).astype(int) + 1
    return _rods_in_cells(seed, tuple(start.tolist()), tuple(stop.tolist()))


def warp_points(seed: int, points: np.ndarray) -> np.ndarray:
    """Convert points from tissue to warped coordinates; both (N, 3) float64 nm."""
    moved = points.copy()
    for octave, (spacing, amplitude) in enumerate(_WARP_NM):
        moved += amplitude * point_noise(_warp_keys(seed, octave), spacing, points).T
    return moved


def _warp_keys(seed: int, octave: int) -> list[int]:
    return [key(seed, f"warp{octave}{axis}") for axis in range(3)]


def warp_grid(seed: int, grid: Grid, origin_nm: np.ndarray) -> list[np.ndarray]:
    """Warped coordinates of every voxel of a grid.

    Args:
        seed: seed of the tissue.
        grid: tissue positions of the voxels.
        origin_nm: (3,) subtracted from the result, so that float32 is precise enough.

    Returns:
        The z, y and x coordinates in nm: three (Z, Y, X) float32 arrays.
    """
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
    """R rods near one tile, in float32 and relative to the tile's origin, for computations on many voxels.

    Args:
        start: (3, R) float32 nm.
        direction: (3, R) float32 unit vectors.
        length: (R,) float32 nm.
        calibre: (R,) float32 nm.
        id: (R,) uint64.
    """

    start: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    calibre: np.ndarray
    id: np.ndarray

    @classmethod
    def of(cls, rods: Rods, origin_nm: np.ndarray) -> RodTable:
        """The table of ``rods`` for a tile whose origin is ``origin_nm``."""
        return cls(
            np.ascontiguousarray((rods.start - origin_nm).astype(np.float32).T),
            np.ascontiguousarray(rods.direction.astype(np.float32).T),
            rods.length.astype(np.float32),
            rods.calibre.astype(np.float32),
            rods.id,
        )

    def distance(self, rod: int | np.ndarray, points: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Distance from a segment, calibre not subtracted.

        Args:
            rod: index of one rod, or a (Z, Y, X) array of indices, one per voxel.
            points: z, y and x, each (Z, Y, X) float32 nm.

        Returns:
            (Z, Y, X) distance in nm, and the z, y and x components of the vector from the segment to the voxel.
        """
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
    """The neurite of each voxel of a tile, and the distance to its membrane.

    Args:
        points: z, y and x, each (Z, Y, X) float32: warped positions in nm, relative to the tile's origin.
        rods: the rods that ``nearest`` indexes.
        nearest: (Z, Y, X) int16, index of the rod that the voxel belongs to.
        membrane_nm: (Z, Y, X) float32 >= 0, distance to the nearest membrane, a first-order approximation.
        tilt: (Z, Y, X) float32 in [0, 1], absolute z component of the unit normal of that membrane; it is 1 where the
            membrane is parallel to the section.
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


def _relevant_rods(rods: Rods, points: list[np.ndarray], origin_nm: np.ndarray) -> Rods:
    """Those of ``rods`` that can be nearest or second nearest to any of the points, in the same order.

    The tile is searched in eighths: the ball around an eighth is small, so fewer rods have to be kept.
    """
    halves = [[slice(0, (n + 1) // 2), slice((n + 1) // 2, n)][: min(n, 2)] for n in points[0].shape]
    parts = [[p[where] for p in points] for where in product(*halves)]
    low, high = (np.array([[getattr(p, f)() for p in part] for part in parts], np.float64) for f in ("min", "max"))
    pairs = Rods(*(getattr(rods, f.name)[None] for f in fields(Rods)))
    distance = pairs.distance_only(((low + high) / 2 + origin_nm)[:, None])
    radius = np.sqrt(dot(high - low, high - low)) / 2
    # Within a ball, distances differ from that at its centre by at most the radius.
    limit = np.partition(distance, 1, axis=1)[:, 1] + 2 * radius + 1
    return rods.take(np.flatnonzero((distance <= limit[:, None]).any(axis=0)))


def partition(rods: Rods, points: list[np.ndarray], origin_nm: np.ndarray) -> Partition:
    """Assign the voxels of a tile to rods.

    Args:
        rods: all rods that can be near the tile.
        points: z, y and x, each (Z, Y, X) float32: warped positions in nm, relative to ``origin_nm``.
        origin_nm: (3,) origin of the tile.
    """
    table = RodTable.of(_relevant_rods(rods, points, origin_nm), origin_nm)
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
    gap, tilt = membrane_distance(table, nearest, runner_up, points)
    return Partition(points, table, nearest, gap, np.abs(tilt))


def membrane_distance(
    table: RodTable, a: int | np.ndarray, b: int | np.ndarray, points: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the membrane between two rods, to first order.

    Args:
        table: the rods.
        a: index of one rod, or a (Z, Y, X) array of indices.
        b: the same for the other rod.
        points: z, y and x, each (Z, Y, X) float32 nm.

    Returns:
        (Z, Y, X) float32: the distance in nm, positive on the side of ``a``, and the z component of the membrane's unit
        normal.
    """
    distance_a, from_a = table.distance(a, points)
    distance_b, from_b = table.distance(b, points)
    cosine = from_a[0] * from_b[0] + from_a[1] * from_b[1] + from_a[2] * from_b[2]
    scale = np.maximum(distance_a, np.float32(1)) * np.maximum(distance_b, np.float32(1))
    # The norm of the gradient of distance_b - distance_a: 2 between the rods, small where both are on the same side.
    # It is bounded from below, or else the quotient would be large far away from any membrane.
    slope = np.sqrt(np.maximum(2 - 2 * cosine / scale, np.float32(0.16)))
    value = (distance_b - table.calibre[b]) - (distance_a - table.calibre[a])
    normal_z = from_b[0] / np.maximum(distance_b, np.float32(1)) - from_a[0] / np.maximum(distance_a, np.float32(1))
    return value / slope, np.clip(normal_z / slope, -1, 1)
