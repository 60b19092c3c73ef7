"""Positions and shapes of mitochondria, and of lysosomes, which resemble them: capsules along the axis of a neurite.

Like synapses (``sites``), organelles are proposed at hashed positions, moved to where the neurite is wide, and thinned
out so that those of one neurite keep a distance.

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

LATTICE_NM = 560.0  # one is proposed per cube of this side: 5.7 per cubic micrometre
MAX_MOVE_NM = 250.0  # from the hashed position to the axis of the neurite
MAX_HALF_LENGTH_NM = 400.0
MAX_RADIUS_NM = 170.0
_SPACING_NM = 900.0  # between the centres of two organelles of one neurite, so that their ends do not touch
_MIN_ROOM_NM = 85.0  # distance of the centre from the membrane; a thinner neurite holds no organelle
_BLOCK = 2  # lattice cells per side of the block that is computed and cached together
_ATTEMPTS = 3  # positions tried per organelle; the one with most room is used
KINDS = ("mitochondrion", "lysosome")


@dataclass(frozen=True)
class Organelles:
    """N organelles, each a capsule (a cylinder with round ends). Coordinates are tissue nm, ZYX.

    Args:
        id: (N,) uint64, the same in every box.
        kind: (N,) int, index into ``KINDS``.
        centre: (N, 3) float64.
        direction: (N, 3) float64 unit vector along the axis.
        half_length: (N,) float64 nm, of the axis without the round ends.
        radius: (N,) float64 nm.
        appearance: (N, 3) float64 in [0, 1]: darkness, distance between cristae, slant of the cristae.
        priority: (N,) float64; of two organelles that are too close, the one with the higher priority is kept.
        host: (N,) uint64, id of the neurite that contains it.
    """

    id: np.ndarray
    kind: np.ndarray
    centre: np.ndarray
    direction: np.ndarray
    half_length: np.ndarray
    radius: np.ndarray
    appearance: np.ndarray
    priority: np.ndarray
    host: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def take(self, index: Any) -> Organelles:
        """The organelles at a NumPy index."""
        return Organelles(*(getattr(self, f.name)[index] for f in fields(self)))


@lru_cache(maxsize=4096)
def _proposed(seed: int, block: tuple[int, int, int]) -> Organelles:
    """Organelles of one block of lattice cells, before those that are too close to another are removed."""
    start = np.array(block) * _BLOCK
    cells = lattice_cells(start, start + _BLOCK)
    owner = np.repeat(np.arange(len(cells)), _ATTEMPTS)
    jitter = uniforms(key(seed, "organelle-place"), cells, 3 * _ATTEMPTS).reshape(-1, 3)
    first = (cells[owner] + jitter) * LATTICE_NM
    rods = rods_near(seed, start * LATTICE_NM - MAX_MOVE_NM, (start + _BLOCK) * LATTICE_NM + MAX_MOVE_NM)
    warped = warp_points(seed, first)
    host = rods.take(shortlist(rods, warped, 1)[:, 0])
    # Move towards the axis of the neurite, where it is widest.
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
    return _organelles(seed, cells[owner[best]], centre[best], host.take(best))


def _organelles(seed: int, cells: np.ndarray, centre: np.ndarray, host: Rods) -> Organelles:
    """Organelles at N given positions; everything else about them is hashed from their lattice cells."""
    u = uniforms(key(seed, "organelle-look"), cells, 12)
    lysosome = u[:, 0] < 0.25
    return Organelles(
        id=cell_id(cells),
        kind=lysosome.astype(int),
        centre=centre,
        direction=unit(host.direction + 0.3 * (u[:, 1:4] - 0.5)),
        half_length=np.where(lysosome, 20 + 60 * u[:, 4], 100 + (MAX_HALF_LENGTH_NM - 100) * u[:, 4]),
        radius=np.where(lysosome, 75 + 45 * u[:, 5], 105 + (MAX_RADIUS_NM - 105) * u[:, 5]),
        appearance=u[:, 6:9],
        priority=u[:, 9],
        host=host.id,
    )


@lru_cache(maxsize=16)
def organelles_in(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Organelles:
    """All organelles whose centre lies in a box, sorted by id.

    Args:
        seed: seed of the tissue.
        low_nm: first corner of the box, tissue nm, ZYX.
        high_nm: last corner.
    """
    low, high = np.array(low_nm), np.array(high_nm)
    side, margin = _BLOCK * LATTICE_NM, _SPACING_NM + MAX_MOVE_NM
    blocks = lattice_cells(np.floor((low - margin) / side), np.floor((high + margin) / side) + 1)
    parts = [_proposed(seed, tuple(b.tolist())) for b in blocks]
    every = Organelles(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Organelles)))
    suppressed = np.zeros(len(every), bool)
    for i in range(len(every)):
        stronger = np.flatnonzero((every.host == every.host[i]) & (every.priority > every.priority[i]))
        offset = every.centre[stronger] - every.centre[i]
        suppressed[i] = (dot(offset, offset) < _SPACING_NM * _SPACING_NM).any()
    inside = ((every.centre >= low) & (every.centre < high)).all(axis=1)
    kept = every.take(np.flatnonzero(inside & ~suppressed))
    return kept.take(np.argsort(kept.id))
