"""Positions and shapes of contacts: synapses, and structures that resemble synapses (hard negatives).

Contacts are proposed near the points of a body-centred cubic lattice: synapses on one of its two cubic sub-lattices,
hard negatives on the other, so that both are frequent and keep a distance. Each is moved onto the nearest membrane
between two neurites and kept if a disc of its size fits there. Of two contacts that are too close, the one with the
lower priority is removed. All of this is a function of positions in the tissue, so the result does not depend on the
box that is asked for.

A *site* is the place of one contact with everything that is needed to draw it.

Knows points in nanometres; must not know voxels or grey values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from twostream.volume.synthetic.hashing import cell_id, key, lattice_cells, uniforms
from twostream.volume.synthetic.neurites import Rods, dot, rods_near, unit, warp_points

LATTICE_NM = 385.0  # 17.5 synapses and as many negatives are proposed per cubic micrometre; about 12 synapses are kept
MAX_MOVE_NM = 200.0  # from the proposed position to the membrane
SPACING_NM = 285.0  # minimum distance between two synapses
NEGATIVE_SPACING_NM = 190.0  # minimum distance of a hard negative from any other contact
MAX_RADIUS_NM = 160.0
MAX_DEPTH_NM = 160.0
_BLOCK = 3  # lattice cells per side of the block that is computed and cached together
_ATTEMPTS = 3  # positions tried per site; the one with the best contact is used
_NEARBY = 16  # rods stored per site: enough for all points within its reach
_START_NEARBY = 32  # rods considered per start position, which is moved by up to MAX_MOVE_NM
# Points of the unit circle at which it is tested whether a disc of contact fits.
_RING = np.array([(1, 0), (0.5, 0.866), (-0.5, 0.866), (-1, 0), (-0.5, -0.866), (0.5, -0.866)])

TRUE_KINDS = ("asymmetric", "faint", "symmetric", "perforated")
NEGATIVE_KINDS = (
    "density_without_vesicles",
    "adherens_junction",
    "vesicles_without_cleft",
    "dark_vesicles",
    "grazing_membrane",
)
KINDS = TRUE_KINDS + NEGATIVE_KINDS
_TRUE_SHARES = np.cumsum([0.66, 0.16, 0.11])  # of the first three true kinds; the rest are perforated
_NEGATIVE_SHARES = np.cumsum([0.30, 0.15, 0.33])  # the rest are dark_vesicles; grazing_membrane depends on orientation


@dataclass(frozen=True)
class Sites:
    """N contacts. Coordinates are tissue nm, ZYX, unless stated otherwise.

    Args:
        id: (N,) uint64, the same in every box.
        kind: (N,) int, index into ``KINDS``.
        centre: (N, 3) float64, on the membrane.
        normal: (N, 3) float64 unit vector, from the presynaptic to the postsynaptic neurite.
        radius: (N,) float64 nm, of the disc of contact.
        depth: (N,) float64 nm, how far the presynaptic label and the vesicles extend from the membrane.
        strength: (N,) float64 in [0, 1], darkness of the postsynaptic density.
        thickness: (N,) float64 nm, of the postsynaptic density.
        priority: (N,) float64; of two contacts that are too close, the one with the higher priority is kept.
        warped: (N, 3) float64, the centre in warped coordinates.
        jacobian: (N, 3, 3) float64, derivative of the warped coordinates at the centre, one column per tissue axis.
        pre: (N,) the rods of the presynaptic neurites.
        post: (N,) the rods of the postsynaptic neurites.
        nearby: (N, 16) the rods nearest to the centre, nearest first.
    """

    id: np.ndarray
    kind: np.ndarray
    centre: np.ndarray
    normal: np.ndarray
    radius: np.ndarray
    depth: np.ndarray
    strength: np.ndarray
    thickness: np.ndarray
    priority: np.ndarray
    warped: np.ndarray
    jacobian: np.ndarray
    pre: Rods
    post: Rods
    nearby: Rods

    def __len__(self) -> int:
        return len(self.id)

    def take(self, index: Any) -> Sites:
        """The sites at a NumPy index."""
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        taken: list[Any] = [v.take(index) if isinstance(v, Rods) else v[index] for v in values]
        return Sites(*taken)

    @property
    def is_synapse(self) -> np.ndarray:
        """(N,) bool: a synapse, not a hard negative."""
        return self.kind < len(TRUE_KINDS)

    @property
    def reach(self) -> np.ndarray:
        """(N,) float64 nm: radius of a ball around the centre that contains all that is drawn for a site."""
        lateral = self.radius + 30
        return np.sqrt(lateral * lateral + (self.depth + 10) * (self.depth + 10))

    @property
    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Two orthogonal unit vectors, each (N, 3), in the plane of the disc of contact."""
        axis = np.where(np.abs(self.normal[:, :1]) > 0.8, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        first = unit(np.cross(self.normal, axis))
        return first, np.cross(self.normal, first)

    def nearest_rod(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The neurite at points near each site, and their distance from its membrane.

        Args:
            points: (N, P, 3) float64 tissue nm: P points per site, within its reach.

        Returns:
            (N, P) intp index into ``nearby``, and (N, P) float64 distance in nm, to first order.
        """
        offset = points - self.centre[:, None]
        # Within its reach the warp is nearly linear, and its derivative is much cheaper: it saves 162 hashes per point.
        moved = self.warped[:, None] + sum(offset[..., k, None] * self.jacobian[:, None, :, k] for k in range(3))
        rods = Rods(*(getattr(self.nearby, f.name)[:, None] for f in fields(Rods)))
        distance, away = rods.distance(moved[:, :, None])
        first = np.argmin(distance, axis=-1)[..., None]
        nearest = np.take_along_axis(distance, first, -1)[..., 0]
        np.put_along_axis(distance, first, np.inf, -1)
        second = np.argmin(distance, axis=-1)[..., None]
        gap = np.take_along_axis(distance, second, -1)[..., 0] - nearest
        slope = (np.take_along_axis(away, i[..., None], 2)[:, :, 0] for i in (first, second))
        slope = next(slope) - next(slope)
        return first[..., 0], gap / np.maximum(np.sqrt(dot(slope, slope)), 0.4)


def concatenate(parts: list[Sites]) -> Sites:
    """Join several sets of sites."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Rods):
            return Rods(*(np.concatenate([getattr(v, f.name) for v in values]) for f in fields(Rods)))
        return np.concatenate(values)

    return Sites(*(join([getattr(p, f.name) for p in parts]) for f in fields(Sites)))


def shortlist(rods: Rods, points: np.ndarray, count: int) -> np.ndarray:
    """Indices (N, count) of the rods nearest to points (N, 3) in warped nm, nearest first."""
    pairs = Rods(*(getattr(rods, f.name)[None] for f in fields(Rods)))
    distance = pairs.distance_only(points[:, None])
    # A tie at the end of the list does no harm: the last of so many rods is never the nearest to a point.
    near = np.argpartition(distance, count, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(distance, near, 1), axis=1)
    return np.take_along_axis(near, order, 1)


def _move_to_membrane(seed: int, start: np.ndarray, a: Rods, b: Rods) -> np.ndarray:
    """Move points onto the membrane between rods ``a`` and ``b`` with Newton's method; (N, 3) tissue nm."""
    points = start
    for _ in range(4):
        warped = warp_points(seed, points)
        (distance_a, u), (distance_b, v) = a.distance(warped), b.distance(warped)
        slope = v - u
        points = points - ((distance_b - distance_a) / np.maximum(dot(slope, slope), 0.5))[:, None] * slope
    return points


def _derivative(seed: int, points: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """Derivative (N, 3, 3) of the warp at points (N, 3), by finite differences; a column per tissue axis."""
    step = 10.0  # nm, small compared with the finest features of the warp
    columns = []
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        columns.append((warp_points(seed, points + shift) - warped) / step)
    return np.stack(columns, axis=-1)


@lru_cache(maxsize=8192)
def _proposed(seed: int, block: tuple[int, int, int]) -> Sites:
    """Sites of one block of lattice cells, on membranes, before those that are too close to another are removed."""
    start = np.array(block) * _BLOCK
    cells = lattice_cells(start, start + _BLOCK)
    # In units of half a cell: even coordinates are synapses, odd ones hard negatives.
    doubled = np.concatenate([2 * cells, 2 * cells + 1])
    ids = cell_id(doubled)
    owner = np.repeat(np.arange(len(doubled)), _ATTEMPTS)
    jitter = uniforms(key(seed, "site-place"), doubled, 3 * _ATTEMPTS).reshape(-1, 3)
    start_nm = (doubled[owner] / 2 + 0.25 + 0.7 * (jitter - 0.5)) * LATTICE_NM
    margin = 2 * MAX_MOVE_NM
    rods = rods_near(seed, start * LATTICE_NM - margin, (start + _BLOCK) * LATTICE_NM + margin)
    near = rods.take(shortlist(rods, warp_points(seed, start_nm), _START_NEARBY))
    centre = _move_to_membrane(seed, start_nm, near.take(np.s_[:, 0]), near.take(np.s_[:, 1]))
    warped, moved = warp_points(seed, centre), centre - start_nm
    order = np.argsort(near.distance_only(warped[:, None]), axis=1)[:, :_NEARBY]
    # Keep a site if its membrane is still the nearest one after the move, and if it did not move too far.
    kept = np.flatnonzero((order[:, :2].max(axis=1) == 1) & (dot(moved, moved) < MAX_MOVE_NM * MAX_MOVE_NM))
    near = near.take((kept[:, None], order[kept]))
    return _best_contacts(seed, near, doubled, ids, owner[kept], centre[kept], warped[kept])


def _best_contacts(
    seed: int, near: Rods, cells: np.ndarray, ids: np.ndarray, owner: np.ndarray, centre: np.ndarray, warped: np.ndarray
) -> Sites:
    """Choose the best of the positions tried for each site, and derive all its properties.

    Args:
        seed: seed of the tissue.
        near: (M, 16) rods near each position, nearest first.
        cells: (C, 3) lattice coordinates of the sites, in half cells.
        ids: (C,) ids of the sites.
        owner: (M,) index of the site that each position was tried for.
        centre: (M, 3) the positions, tissue nm.
        warped: (M, 3) the positions in warped nm.
    """
    u = uniforms(key(seed, "site-look"), cells, 8)[owner]
    # A hash decides which neurite is presynaptic. The neurites are distinguished by id, because both are equally near.
    swap = (u[:, 0] < 0.5) == (near.id[:, 0] < near.id[:, 1])
    rows = np.arange(len(owner))
    pre_rods, post_rods = near.take((rows, swap.astype(int))), near.take((rows, 1 - swap.astype(int)))
    jacobian = _derivative(seed, centre, warped)
    slope = pre_rods.distance(warped)[1] - post_rods.distance(warped)[1]
    normal = unit(sum(jacobian[:, axis] * slope[:, axis, None] for axis in range(3)))
    kind = _kinds(u[:, 1], cells[owner, 0] % 2 == 0, np.abs(normal[:, 0]))
    sites = Sites(
        id=ids[owner], kind=kind, centre=centre, normal=normal,
        radius=_radius(u[:, 2], kind), depth=100 + (MAX_DEPTH_NM - 100) * u[:, 3],
        strength=_strength(u[:, 4], kind), thickness=_thickness(u[:, 5], kind), priority=u[:, 6],
        warped=warped, jacobian=jacobian, pre=pre_rods, post=post_rods, nearby=near,
    )  # fmt: skip
    fit, radius = _fit(sites)
    score = fit * radius
    order = np.lexsort((-score, owner))
    best = order[np.unique(owner[order], return_index=True)[1]]
    best = best[score[best] > 0]
    return Sites(**{**_as_dict(sites), "radius": radius}).take(best)


def _as_dict(sites: Sites) -> dict[str, Any]:
    return {f.name: getattr(sites, f.name) for f in fields(sites)}


def _fit(sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """Test whether a disc of contact fits on the membrane, at full size or somewhat smaller.

    Returns:
        (N,) share of the test points that lie in the right neurite, 0 if neither size fits; and (N,) the radius that
        fits.
    """
    best, best_radius = np.zeros(len(sites)), np.zeros(len(sites))
    first, second = sites.frame
    for scale in (1.0, 0.78):
        radius = np.maximum(scale * sites.radius, 90)
        ring = radius[:, None, None] * 0.8 * (_RING[:, :1] * first[:, None] + _RING[:, 1:] * second[:, None])
        share = np.ones(len(sites))
        for side, owner in ((-1, sites.pre), (1, sites.post)):
            points = sites.centre[:, None] + ring + side * 32 * sites.normal[:, None]
            index, _ = sites.nearest_rod(points)
            ids = np.take_along_axis(sites.nearby.id, index, axis=1)
            share = np.minimum(share, (ids == owner.id[:, None]).mean(axis=1))
        better = (best == 0) & (share >= 0.85)
        best, best_radius = np.where(better, share, best), np.where(better, radius, best_radius)
    return best, best_radius


def _kinds(u: np.ndarray, is_synapse: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Index into ``KINDS``, from a uniform number and the absolute z component of the normal; all (N,)."""
    true = np.searchsorted(_TRUE_SHARES, u, side="right")
    negative = np.minimum(np.searchsorted(_NEGATIVE_SHARES, u, side="right"), 3)
    # A membrane nearly parallel to the section is blurred and resembles a density: 60 percent of the negatives there.
    negative = np.where((tilt > 0.75) & (u * 7 % 1 < 0.6), NEGATIVE_KINDS.index("grazing_membrane"), negative)
    return np.where(is_synapse, true, len(TRUE_KINDS) + negative)


def _radius(u: np.ndarray, kind: np.ndarray) -> np.ndarray:
    perforated = kind == KINDS.index("perforated")
    return np.where(perforated, 140 + 20 * u, 95 + (MAX_RADIUS_NM - 95) * u * u)


def _strength(u: np.ndarray, kind: np.ndarray) -> np.ndarray:
    faint = (kind == KINDS.index("faint")) | (kind == KINDS.index("symmetric"))
    return np.where(faint, 0.38 + 0.2 * u, 0.68 + 0.32 * u)


def _thickness(u: np.ndarray, kind: np.ndarray) -> np.ndarray:
    thin = (kind == KINDS.index("symmetric")) | (kind == KINDS.index("adherens_junction"))
    return np.where(thin, 16 + 8 * u, 28 + 18 * u)


def _suppressed(sites: Sites, spacing: float, by: Sites) -> np.ndarray:
    """(N,) bool: whether one of the sites ``by`` has a higher priority and is closer than ``spacing`` nm."""
    suppressed = np.zeros(len(sites), bool)
    if len(sites) == 0 or len(by) == 0:
        return suppressed
    # The tree finds pairs at a slightly larger distance; the exact test is our own arithmetic, the same in every box.
    pairs = cKDTree(sites.centre).query_ball_tree(cKDTree(by.centre), spacing + 1)
    for i, others in enumerate(pairs):
        j = np.array([k for k in others if by.id[k] != sites.id[i]], int)
        offset = by.centre[j] - sites.centre[i]
        suppressed[i] = (by.priority[j] > sites.priority[i])[dot(offset, offset) < spacing * spacing].any()
    return suppressed


@lru_cache(maxsize=16)
def sites_in(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Sites:
    """All sites whose centre lies in a box, sorted by id.

    Args:
        seed: seed of the tissue.
        low_nm: first corner of the box, tissue nm, ZYX.
        high_nm: last corner.
    """
    low, high = np.array(low_nm), np.array(high_nm)
    # Whether a negative is kept depends on synapses around it, and these depend on synapses around them: two distances.
    # To these come the largest move and the tenth of a cell by which a start position may lie outside its cell.
    margin = SPACING_NM + NEGATIVE_SPACING_NM + MAX_MOVE_NM + 0.1 * LATTICE_NM
    side = _BLOCK * LATTICE_NM
    blocks = lattice_cells(np.floor((low - margin) / side), np.floor((high + margin) / side) + 1)
    sites = concatenate([_proposed(seed, tuple(b.tolist())) for b in blocks])
    true, negative = sites.take(sites.is_synapse), sites.take(~sites.is_synapse)
    true = true.take(~_suppressed(true, SPACING_NM, true))
    dominant = Sites(**{**_as_dict(true), "priority": np.full(len(true), 2.0)})
    lost = _suppressed(negative, NEGATIVE_SPACING_NM, dominant) | _suppressed(negative, NEGATIVE_SPACING_NM, negative)
    sites = concatenate([true, negative.take(~lost)])
    sites = sites.take(np.argsort(sites.id))
    return sites.take(((sites.centre >= low) & (sites.centre < high)).all(axis=1))
