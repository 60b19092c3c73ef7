"""Pseudo-random numbers that are a hash of integer coordinates, instead of a sequence from a generator.

A number depends only on the seed, on its purpose and on its coordinates, not on numbers drawn before it. This makes the
volume unlimited, and gives a voxel the same value in every box that contains it.

Knows integers; must not know tissue.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

# Constants of SplitMix64 (Steele, Lea and Flood 2014): the increment and the two multipliers.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
# Lattice coordinates are packed into ids with 20 bits each: 2^20 cells of 400 nm are 0.4 m.
_BITS = 20


@lru_cache(maxsize=4096)
def key(seed: int, purpose: str) -> int:
    """A 64-bit hash key for one purpose, so that numbers for different purposes are independent.

    Args:
        seed: seed of the tissue.
        purpose: any text.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest(), "little")


def _mix(h: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, which makes every output bit depend on every input bit."""
    h = (h ^ (h >> np.uint64(30))) * _FIRST
    h = (h ^ (h >> np.uint64(27))) * _SECOND
    return h ^ (h >> np.uint64(31))


def hashed(key_: int | np.ndarray, *coordinates: np.ndarray) -> np.ndarray:
    """Hash of integer coordinates, which broadcast against each other.

    Args:
        key_: a key from ``key``, or an array of keys that broadcasts against the coordinates.
        coordinates: integer arrays; may be negative. Pass the largest last: each is hashed at the broadcast shape of
            those before it.

    Returns:
        uint64 array of the broadcast shape.
    """
    h = np.atleast_1d(np.asarray(key_, np.uint64))
    for coordinate in coordinates:
        c = np.atleast_1d(np.asarray(coordinate, np.int64)).view(np.uint64)
        h = _mix(h * _STEP + c)
    return h


def uniform(h: np.ndarray) -> np.ndarray:
    """Convert uint64 hashes to float64 in [0, 1), using their upper 53 bits. The shape is kept."""
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms(key_: int, cells: np.ndarray, count: int) -> np.ndarray:
    """Independent uniform numbers for each lattice cell.

    Args:
        key_: a key from ``key``.
        cells: (N, 3) int64 lattice coordinates, ZYX.
        count: how many numbers per cell.

    Returns:
        (N, count) float64 in [0, 1).
    """
    z, y, x = (cells[:, axis, None] for axis in range(3))
    return uniform(hashed(key_, z, y, x, np.arange(count)[None]))


def cell_id(cells: np.ndarray) -> np.ndarray:
    """Ids of lattice cells: distinct, and the same in every box.

    Args:
        cells: (N, 3) int64 lattice coordinates, ZYX, each within +-2^19.

    Returns:
        (N,) uint64, 1 or more, below 2^60.
    """
    packed = (cells + (1 << (_BITS - 1))).astype(np.uint64)
    return ((packed[:, 0] << np.uint64(2 * _BITS)) | (packed[:, 1] << np.uint64(_BITS)) | packed[:, 2]) + np.uint64(1)


def lattice_cells(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """All lattice cells with start <= cell < stop along each axis, in raster order: (N, 3) int64, ZYX."""
    axes = [np.arange(a, b, dtype=np.int64) for a, b in zip(start, stop, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
