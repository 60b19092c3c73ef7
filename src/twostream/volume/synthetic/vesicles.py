"""Vesicles: round, hashed, inside the presynaptic neurite, not touching each other.

Knows sites; must not know voxels or grey values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from twostream.volume.synthetic.hashing import hashed, key, uniform
from twostream.volume.synthetic.neurites import dot
from twostream.volume.synthetic.sites import KINDS, TRUE_KINDS, Sites, sites_near

_DARTS = 260  # places tried per site; most fall on a neighbour or outside the neurite
_GAP_NM = 1.0  # between two vesicles
_PLAIN_RADIUS_NM = 20.0  # 40 nm across, as in the brain
_DENSE_RADIUS_NM = 36.0  # dense-core vesicles are 60 to 100 nm across


@dataclass(frozen=True)
class Vesicles:
    """Args:
    centre: (V, 3) float64 tissue nm, ZYX.
    radius: (V,) float64 nm.
    is_dense: (V,) bool, with a dark core.
    """

    centre: np.ndarray
    radius: np.ndarray
    is_dense: np.ndarray


def _places(seed: int, sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """Darts (N, D, 3) in tissue nm in the cloud's region, and their radii (N, D) nm."""
    u = uniform(hashed(key(seed, "vesicle"), sites.id.view(np.int64)[:, None], np.arange(4 * _DARTS)[None]))
    u = u.reshape(len(sites), _DARTS, 4)
    dense = (sites.kind == KINDS.index("dark_vesicles"))[:, None]
    radius = np.where(dense, _DENSE_RADIUS_NM, _PLAIN_RADIUS_NM) * (0.88 + 0.24 * u[..., 3])
    across = (2 * u[..., :2] - 1) * (sites.radius + 5)[:, None, None]
    # A cloud that is not at a density lies anywhere, half of them away from the membrane too.
    away = np.where((sites.kind == KINDS.index("vesicles_without_cleft")) & (sites.priority * 9 % 1 < 0.5), 60.0, 0.0)
    near = 10 + radius
    deep = near + (np.maximum(sites.depth[:, None] - near + 2, 10) + away[:, None]) * u[..., 2]
    first, second = sites.frame
    inside = dot(
        np.stack([across[..., 0], across[..., 1], 0 * deep], -1),
        np.stack([across[..., 0], across[..., 1], 0 * deep], -1),
    )
    radius = np.where(inside < (sites.radius * sites.radius)[:, None], radius, np.nan)
    places = sites.centre[:, None] - deep[..., None] * sites.normal[:, None]
    return places + across[..., :1] * first[:, None] + across[..., 1:2] * second[:, None], radius


def _wanted(seed: int, sites: Sites) -> np.ndarray:
    """How many vesicles each site may hold: (N,) int."""
    u = uniform(hashed(key(seed, "vesicle-count"), sites.id.view(np.int64)))
    most = np.where(
        sites.kind < len(TRUE_KINDS),
        24 + 46 * u,
        np.where(sites.kind == KINDS.index("dark_vesicles"), 5 + 8 * u, 20 + 44 * u),
    )
    has_cloud = sites.is_synapse | np.isin(
        sites.kind, [KINDS.index("vesicles_without_cleft"), KINDS.index("dark_vesicles")]
    )
    return np.where(has_cloud, most, 0).astype(int)


def _fill(seed: int, sites: Sites) -> Vesicles:
    places, radius = _places(seed, sites)
    owner, gap = sites.nearest_two(places)
    ids = np.take_along_axis(sites.nearby.id, owner, axis=1)
    valid = (ids == sites.pre.id[:, None]) & (gap > radius + 5) & ~np.isnan(radius)
    kept, count, wanted = np.zeros_like(valid), np.zeros(len(sites), int), _wanted(seed, sites)
    for dart in range(_DARTS):
        offset = places[:, :dart] - places[:, dart, None]
        limit = radius[:, :dart] + radius[:, dart, None] + _GAP_NM
        clash = (kept[:, :dart] & (dot(offset, offset) < limit * limit)).any(axis=1)
        kept[:, dart] = valid[:, dart] & ~clash & (count < wanted)
        count += kept[:, dart]
    dense = np.broadcast_to((sites.kind == KINDS.index("dark_vesicles"))[:, None], kept.shape)
    return Vesicles(places[kept], radius[kept], dense[kept])


@lru_cache(maxsize=16)
def vesicles_near(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Vesicles:
    """The vesicles of every site whose centre lies in a box of the tissue."""
    sites = sites_near(seed, low_nm, high_nm)
    parts = [_fill(seed, sites.take(np.arange(i, min(i + 64, len(sites))))) for i in range(0, len(sites), 64)]
    if not parts:
        return Vesicles(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    return Vesicles(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("centre", "radius", "is_dense")))
