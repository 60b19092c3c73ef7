"""Positions of vesicles: spheres inside the presynaptic neurite that do not touch each other.

They are placed by dart throwing: random positions are tried one after the other, and one is kept if it lies inside the
neurite and does not overlap a vesicle that was placed before.

Knows sites; must not know voxels or grey values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from twostream.volume.synthetic.hashing import hashed, key, uniform
from twostream.volume.synthetic.neurites import dot
from twostream.volume.synthetic.sites import KINDS, TRUE_KINDS, Sites, sites_in

_DARTS = 260  # positions tried per site; most overlap another vesicle or lie outside the neurite
_GAP_NM = 1.0  # smallest distance between the surfaces of two vesicles
_PLAIN_RADIUS_NM = 20.0  # diameter 40 nm, as in the brain
_DENSE_RADIUS_NM = 36.0  # dense-core vesicles have diameters of 60 to 100 nm


@dataclass(frozen=True)
class Vesicles:
    """V vesicles.

    Args:
        centre: (V, 3) float64 tissue nm, ZYX.
        radius: (V,) float64 nm.
        is_dense: (V,) bool, whether it has a dark core.
    """

    centre: np.ndarray
    radius: np.ndarray
    is_dense: np.ndarray


def _places(seed: int, sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """Random positions (N, D, 3), tissue nm, for the vesicles of each site, and their radii (N, D) in nm.

    The radius is NaN where a position is outside the disc of contact.
    """
    u = uniform(hashed(key(seed, "vesicle"), sites.id.view(np.int64)[:, None], np.arange(4 * _DARTS)[None]))
    u = u.reshape(len(sites), _DARTS, 4)
    dense = (sites.kind == KINDS.index("dark_vesicles"))[:, None]
    radius = np.where(dense, _DENSE_RADIUS_NM, _PLAIN_RADIUS_NM) * (0.88 + 0.24 * u[..., 3])
    across = (2 * u[..., :2] - 1) * (sites.radius + 5)[:, None, None]
    # Vesicles without a cleft need not be near the membrane: half of these clouds are moved away from it.
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


def _max_count(seed: int, sites: Sites) -> np.ndarray:
    """Largest number of vesicles of each site: (N,) int."""
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


def _place_vesicles(seed: int, sites: Sites) -> Vesicles:
    """The vesicles of all given sites."""
    places, radius = _places(seed, sites)
    owner, gap = sites.nearest_rod(places)
    ids = np.take_along_axis(sites.nearby.id, owner, axis=1)
    valid = (ids == sites.pre.id[:, None]) & (gap > radius + 5) & ~np.isnan(radius)
    kept, count, max_count = np.zeros_like(valid), np.zeros(len(sites), int), _max_count(seed, sites)
    for dart in range(_DARTS):
        offset = places[:, :dart] - places[:, dart, None]
        limit = radius[:, :dart] + radius[:, dart, None] + _GAP_NM
        clash = (kept[:, :dart] & (dot(offset, offset) < limit * limit)).any(axis=1)
        kept[:, dart] = valid[:, dart] & ~clash & (count < max_count)
        count += kept[:, dart]
    dense = np.broadcast_to((sites.kind == KINDS.index("dark_vesicles"))[:, None], kept.shape)
    return Vesicles(places[kept], radius[kept], dense[kept])


@lru_cache(maxsize=16)
def vesicles_near(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Vesicles:
    """The vesicles of all sites whose centre lies in a box; vesicles themselves may lie outside it.

    Args:
        seed: seed of the tissue.
        low_nm: first corner of the box, tissue nm, ZYX.
        high_nm: last corner.
    """
    sites = sites_in(seed, low_nm, high_nm)
    # In groups of 64 sites, because their distance arrays are large.
    parts = [_place_vesicles(seed, sites.take(np.arange(i, min(i + 64, len(sites))))) for i in range(0, len(sites), 64)]
    if not parts:
        return Vesicles(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    return Vesicles(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("centre", "radius", "is_dense")))
