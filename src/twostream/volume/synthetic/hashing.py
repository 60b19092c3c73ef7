"""Random numbers that belong to places: a hash of integer coordinates, never a sequence.

This is what makes the volume endless and the same however a box is cut: a number depends on the
seed, on what it is for, and on where it is, and on nothing drawn before it.

Knows integers; must not know tissue.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

# SplitMix64 (Steele, Lea and Flood 2014): an odd increment and two odd multipliers.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
# Lattice coordinates are packed into ids with 20 bits each: 2^20 cells of 400 nm are 0.4 m.
_BITS = 20


@lru_cache(maxsize=4096)
def key(seed: int, purpose: str) -> int:
    """A 64-bit key for one purpose, so that two purposes never share numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest(), "little")


def _mix(h: np.ndarray) -> np.ndarray:
    h = (h ^ (h >> np.uint64(30))) * _FIRST
    h = (h ^ (h >> np.uint64(27))) * _SECOND
    return h ^ (h >> np.uint64(31))


def hashed(key_: int | np.ndarray, *coordinates: np.ndarray) -> np.ndarray:
    """Hash of integer coordinates, which broadcast against each other.

    Args:
        key_: from :func:`key`; or uint64 keys that broadcast against the coordinates.
        coordinates: integer arrays, negative allowed. Put the axis that varies fastest last: the
            earlier ones are mixed at their own, smaller shape.

    Returns:
        broadcast shape, uint64.
    """
    h = np.atleast_1d(np.asarray(key_, np.uint64))
    for coordinate in coordinates:
        c = np.atleast_1d(np.asarray(coordinate, np.int64)).view(np.uint64)
        h = _mix(h * _STEP + c)
    return h


def uniform(h: np.ndarray) -> np.ndarray:
    """Hashes to float64 in [0, 1), exact in 53 bits."""
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms(key_: int, cells: np.ndarray, count: int) -> np.ndarray:
    """``count`` independent numbers for each lattice cell.

    Args:
        cells: (N, 3) int64 lattice coordinates, ZYX.

    Returns:
        (N, count) float64 in [0, 1).
    """
    z, y, x = (cells[:, axis, None] for axis in range(3))
    return uniform(hashed(key_, z, y, x, np.arange(count)[None]))


def cell_id(cells: np.ndarray) -> np.ndarray:
    """Permanent ids of lattice cells.

    Args:
        cells: (N, 3) int64 lattice coordinates, ZYX, each within +-2^19.

    Returns:
        (N,) uint64, 1 or more, below 2^60.
    """
    packed = (cells + (1 << (_BITS - 1))).astype(np.uint64)
    return ((packed[:, 0] << np.uint64(2 * _BITS)) | (packed[:, 1] << np.uint64(_BITS)) | packed[:, 2]) + np.uint64(1)


def lattice_cells(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """All lattice cells with ``start <= cell < stop``, raster order: (N, 3) int64, ZYX."""
    axes = [np.arange(a, b, dtype=np.int64) for a, b in zip(start, stop, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
