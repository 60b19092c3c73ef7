"""Mitochondria, and lysosomes that look like them: rods inside a neurite, along its axis.

Knows points in nanometres; must not know voxels, synapses or grey values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from twostream.volume.synthetic.hashing import cell_id, key, lattice_cells, uniforms
from twostream.volume.synthetic.neurites import Rods, dot, rods_near, unit, warp_points
from twostream.volume.synthetic.sites import shortlist

LATTICE_NM = 560.0  # 5.7 candidates per cubic micrometre
MAX_MOVE_NM = 250.0
MAX_HALF_LENGTH_NM = 400.0
MAX_RADIUS_NM = 170.0
_SPACING_NM = 900.0  # two organelles of one neurite: their ends stay apart
_MIN_ROOM_NM = 85.0  # distance from the membrane that makes a neurite wide enough
_BLOCK, _ATTEMPTS = 2, 3
KINDS = ("mitochondrion", "lysosome")


@dataclass(frozen=True)
class Organelles:
    """N organelles; coordinates in tissue nm, ZYX.

    Args:
        id: (N,) uint64, permanent.
        kind: (N,) int, position in ``KINDS``.
        centre: (N, 3) float64.
        direction: (N, 3) float64 unit vector along it.
        half_length: (N,) float64 nm, of the straight part.
        radius: (N,) float64 nm.
        look: (N, 3) float64 in [0, 1]: darkness, spacing of cristae, their slant.
        priority: (N,) float64.
        host: (N,) uint64, the neurite it lies in.
    """

    id: np.ndarray
    kind: np.ndarray
    centre: np.ndarray
    direction: np.ndarray
    half_length: np.ndarray
    radius: np.ndarray
    look: np.ndarray
    priority: np.ndarray
    host: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def take(self, index: Any) -> Organelles:
        return Organelles(*(getattr(self, f.name)[index] for f in fields(self)))


@lru_cache(maxsize=4096)
def _candidates(seed: int, block: tuple[int, int, int]) -> Organelles:
    start = np.array(block) * _BLOCK
    cells = lattice_cells(start, start + _BLOCK)
    owner = np.repeat(np.arange(len(cells)), _ATTEMPTS)
    jitter = uniforms(key(seed, "organelle-place"), cells, 3 * _ATTEMPTS).reshape(-1, 3)
    first = (cells[owner] + jitter) * LATTICE_NM
    rods = rods_near(seed, start * LATTICE_NM - MAX_MOVE_NM, (start + _BLOCK) * LATTICE_NM + MAX_MOVE_NM)
    warped = warp_points(seed, first)
    host = rods.take(shortlist(rods, warped, 1)[:, 0])
    # Towards the axis of the neurite, where there is most room.
    distance, away = host.distance(warped)
    move = -0.8 * (distance + host.calibre)[:, None] * away
    centre = first + move
    warped = warp_points(seed, centre)
    two = rods.take(shortlist(rods, warped, 2))
    (near, u), (far, v) = two.take(np.s_[:, 0]).distance(warped), two.take(np.s_[:, 1]).distance(warped)
    room = (far - near) / np.maximum(np.sqrt(dot(u - v, u - v)), 0.5)
    ok = (two.id[:, 0] == host.id) & (room > _MIN_ROOM_NM) & (dot(move, move) < MAX_MOVE_NM * MAX_MOVE_NM)
    score = np.where(ok, room, 0)
    order = np.lexsort((-score, owner))
    best = order[np.unique(owner[order], return_index=True)[1]]
    best = best[score[best] > 0]
    return _look(seed, cells[owner[best]], centre[best], host.take(best))


def _look(seed: int, cells: np.ndarray, centre: np.ndarray, host: Rods) -> Organelles:
    u = uniforms(key(seed, "organelle-look"), cells, 12)
    lysosome = u[:, 0] < 0.25
    return Organelles(
        id=cell_id(cells),
        kind=lysosome.astype(int),
        centre=centre,
        direction=unit(host.direction + 0.3 * (u[:, 1:4] - 0.5)),
        half_length=np.where(lysosome, 20 + 60 * u[:, 4], 100 + (MAX_HALF_LENGTH_NM - 100) * u[:, 4]),
        radius=np.where(lysosome, 75 + 45 * u[:, 5], 105 + (MAX_RADIUS_NM - 105) * u[:, 5]),
        look=u[:, 6:9],
        priority=u[:, 9],
        host=host.id,
    )


@lru_cache(maxsize=16)
def organelles_near(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Organelles:
    """Every organelle whose centre lies in a box of the tissue, in order of id."""
    low, high = np.array(low_nm), np.array(high_nm)
    side, margin = _BLOCK * LATTICE_NM, _SPACING_NM + MAX_MOVE_NM
    blocks = lattice_cells(np.floor((low - margin) / side), np.floor((high + margin) / side) + 1)
    parts = [_candidates(seed, tuple(b.tolist())) for b in blocks]
    every = Organelles(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Organelles)))
    lost = np.zeros(len(every), bool)
    for i in range(len(every)):
        rival = np.flatnonzero((every.host == every.host[i]) & (every.priority > every.priority[i]))
        offset = every.centre[rival] - every.centre[i]
        lost[i] = (dot(offset, offset) < _SPACING_NM * _SPACING_NM).any()
    inside = ((every.centre >= low) & (every.centre < high)).all(axis=1)
    kept = every.take(np.flatnonzero(inside & ~lost))
    return kept.take(np.argsort(kept.id))
