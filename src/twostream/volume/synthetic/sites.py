"""Where synapses and their look-alikes sit: hashed places, moved onto a membrane between two neurites.

Candidates lie on a body-centred lattice: cells hold true synapses, cell corners hold hard
negatives, so that both are many and stay apart. Each candidate walks to the nearest membrane, is
kept if a flat contact of its size fits there, and gives way to a stronger neighbour that is too
near. Every step looks at points only, so it does not depend on the box that asks.

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

LATTICE_NM = 385.0  # 17.5 candidates of each sort per cubic micrometre; about 12 synapses survive
MAX_MOVE_NM = 200.0  # how far a candidate may walk to its membrane
SPACING_NM = 285.0  # two true synapses are at least this far apart
NEGATIVE_SPACING_NM = 190.0  # a hard negative from anything else
MAX_RADIUS_NM = 160.0
MAX_DEPTH_NM = 160.0
_BLOCK = 3  # lattice cells per side of the unit that is computed and cached at once
_ATTEMPTS = 3  # starting points per candidate; the one with the best contact is kept
_NEARBY = 16  # rods remembered per site: those that matter within its reach
_START_NEARBY = 32  # rods remembered per starting point, which may walk 200 nm
_RING = np.array(
    [(1, 0), (0.5, 0.866), (-0.5, 0.866), (-1, 0), (-0.5, -0.866), (0.5, -0.866)]
)  # where the fit is tried

TRUE_KINDS = ("asymmetric", "faint", "symmetric", "perforated")
NEGATIVE_KINDS = (
    "density_without_vesicles",
    "adherens_junction",
    "vesicles_without_cleft",
    "dark_vesicles",
    "grazing_membrane",
)
KINDS = TRUE_KINDS + NEGATIVE_KINDS
_TRUE_SHARES = np.cumsum([0.66, 0.16, 0.11])  # the rest is perforated
_NEGATIVE_SHARES = np.cumsum([0.30, 0.15, 0.33])  # the rest is dark_vesicles; grazing goes by orientation


@dataclass(frozen=True)
class Sites:
    """Planted sites; N of them, coordinates in tissue nm, ZYX.

    Args:
        id: (N,) uint64, permanent.
        kind: (N,) int, position in ``KINDS``.
        centre: (N, 3) float64, on the membrane.
        normal: (N, 3) float64 unit vector, from the presynaptic neurite to the postsynaptic one.
        radius: (N,) float64 nm, of the disc of contact.
        depth: (N,) float64 nm, of the presynaptic region.
        strength: (N,) float64 in [0, 1], darkness of the density.
        thickness: (N,) float64 nm, of the density.
        priority: (N,) float64, who stays when two are too near.
        warped: (N, 3) float64, the centre among the rods.
        jacobian: (N, 3, 3) float64, of the warp at the centre, column per tissue axis.
        pre: (N,) Rods.
        post: (N,) Rods.
        nearby: (N, 16) Rods, nearest first.
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
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        taken: list[Any] = [v.take(index) if isinstance(v, Rods) else v[index] for v in values]
        return Sites(*taken)

    @property
    def is_synapse(self) -> np.ndarray:
        return self.kind < len(TRUE_KINDS)

    @property
    def reach(self) -> np.ndarray:
        """(N,) float64 nm: nothing of a site is drawn or labelled farther from its centre."""
        lateral = self.radius + 30
        return np.sqrt(lateral * lateral + (self.depth + 10) * (self.depth + 10))

    @property
    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Two unit vectors (N, 3) that span the disc of contact."""
        axis = np.where(np.abs(self.normal[:, :1]) > 0.8, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
        first = unit(np.cross(self.normal, axis))
        return first, np.cross(self.normal, first)

    def nearest_two(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Owner and distance to its membrane at points near each site.

        Args:
            points: (N, P, 3) float64 tissue nm, within a site's reach.

        Returns:
            (N, P) intp index into ``nearby`` and (N, P) float64 nm.
        """
        offset = points - self.centre[:, None]
        # The warp is straight enough within a site's reach: its own derivative saves 162 hashes a point.
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
    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Rods):
            return Rods(*(np.concatenate([getattr(v, f.name) for v in values]) for f in fields(Rods)))
        return np.concatenate(values)

    return Sites(*(join([getattr(p, f.name) for p in parts]) for f in fields(Sites)))


def shortlist(rods: Rods, points: np.ndarray, count: int) -> np.ndarray:
    """Indices (N, count) of the rods nearest to warped points (N, 3), nearest first."""
    pairs = Rods(*(getattr(rods, f.name)[None] for f in fields(Rods)))
    distance = pairs.distance_only(points[:, None])
    # A tie decides nothing: two rods equally far at the end of a list of this length never own the point.
    near = np.argpartition(distance, count, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(distance, near, 1), axis=1)
    return np.take_along_axis(near, order, 1)


def _walk_to_membrane(seed: int, start: np.ndarray, a: Rods, b: Rods) -> np.ndarray:
    """Newton steps onto the surface that is equally far from ``a`` and ``b``: (N, 3) tissue nm."""
    points = start
    for _ in range(4):
        warped = warp_points(seed, points)
        (distance_a, u), (distance_b, v) = a.distance(warped), b.distance(warped)
        slope = v - u
        points = points - ((distance_b - distance_a) / np.maximum(dot(slope, slope), 0.5))[:, None] * slope
    return points


def _derivative(seed: int, points: np.ndarray, warped: np.ndarray) -> np.ndarray:
    step = 10.0  # nm: well below the finer octave of the warp
    columns = []
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        columns.append((warp_points(seed, points + shift) - warped) / step)
    return np.stack(columns, axis=-1)


@lru_cache(maxsize=8192)
def _candidates(seed: int, block: tuple[int, int, int]) -> Sites:
    """Candidates of one block of cells, on their membranes, before they compete."""
    start = np.array(block) * _BLOCK
    cells = lattice_cells(start, start + _BLOCK)
    # Sub-lattice 0 holds true synapses, sub-lattice 1 (half a cell away) hard negatives.
    doubled = np.concatenate([2 * cells, 2 * cells + 1])
    ids = cell_id(doubled)
    owner = np.repeat(np.arange(len(doubled)), _ATTEMPTS)
    jitter = uniforms(key(seed, "site-place"), doubled, 3 * _ATTEMPTS).reshape(-1, 3)
    first = (doubled[owner] / 2 + 0.25 + 0.7 * (jitter - 0.5)) * LATTICE_NM
    margin = 2 * MAX_MOVE_NM
    rods = rods_near(seed, start * LATTICE_NM - margin, (start + _BLOCK) * LATTICE_NM + margin)
    near = rods.take(shortlist(rods, warp_points(seed, first), _START_NEARBY))
    centre = _walk_to_membrane(seed, first, near.take(np.s_[:, 0]), near.take(np.s_[:, 1]))
    warped, moved = warp_points(seed, centre), centre - first
    order = np.argsort(near.distance_only(warped[:, None]), axis=1)[:, :_NEARBY]
    # Still between the two neurites it set out for, and not too far away.
    kept = np.flatnonzero((order[:, :2].max(axis=1) == 1) & (dot(moved, moved) < MAX_MOVE_NM * MAX_MOVE_NM))
    near = near.take((kept[:, None], order[kept]))
    return _best_contacts(seed, near, doubled, ids, owner[kept], centre[kept], warped[kept])


def _best_contacts(
    seed: int, near: Rods, cells: np.ndarray, ids: np.ndarray, owner: np.ndarray, centre: np.ndarray, warped: np.ndarray
) -> Sites:
    u = uniforms(key(seed, "site-look"), cells, 8)[owner]
    # Which neurite sends: by hash, told apart by id, since "nearest" is a coin standing on its edge here.
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


def _as_dict(sites: Sites) -> dict:
    return {f.name: getattr(sites, f.name) for f in fields(sites)}


def _fit(sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """How much of a disc of contact has the right neurite on each side, and the radius that fits best."""
    best, best_radius = np.zeros(len(sites)), np.zeros(len(sites))
    first, second = sites.frame
    for scale in (1.0, 0.78):
        radius = np.maximum(scale * sites.radius, 90)
        ring = radius[:, None, None] * 0.8 * (_RING[:, :1] * first[:, None] + _RING[:, 1:] * second[:, None])
        share = np.ones(len(sites))
        for side, owner in ((-1, sites.pre), (1, sites.post)):
            points = sites.centre[:, None] + ring + side * 32 * sites.normal[:, None]
            index, _ = sites.nearest_two(points)
            ids = np.take_along_axis(sites.nearby.id, index, axis=1)
            share = np.minimum(share, (ids == owner.id[:, None]).mean(axis=1))
        better = (best == 0) & (share >= 0.85)
        best, best_radius = np.where(better, share, best), np.where(better, radius, best_radius)
    return best, best_radius


def _kinds(u: np.ndarray, is_synapse: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    true = np.searchsorted(_TRUE_SHARES, u, side="right")
    negative = np.minimum(np.searchsorted(_NEGATIVE_SHARES, u, side="right"), 3)
    # A membrane that lies nearly flat in the section looks like a density; half of those are planted.
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


def _losers(sites: Sites, spacing: float, rivals: Sites) -> np.ndarray:
    """(N,) bool: a rival with more priority is nearer than ``spacing``."""
    lost = np.zeros(len(sites), bool)
    if len(sites) == 0 or len(rivals) == 0:
        return lost
    # cKDTree only proposes pairs (a little wider); the test itself is the same arithmetic everywhere.
    pairs = cKDTree(sites.centre).query_ball_tree(cKDTree(rivals.centre), spacing + 1)
    for i, others in enumerate(pairs):
        j = np.array([k for k in others if rivals.id[k] != sites.id[i]], int)
        offset = rivals.centre[j] - sites.centre[i]
        lost[i] = (rivals.priority[j] > sites.priority[i])[dot(offset, offset) < spacing * spacing].any()
    return lost


@lru_cache(maxsize=16)
def sites_near(seed: int, low_nm: tuple[float, ...], high_nm: tuple[float, ...]) -> Sites:
    """Every site whose centre lies in a box of the tissue, after competition, in order of id."""
    low, high = np.array(low_nm), np.array(high_nm)
    # A loser's rival, and a synapse's rival that spares the loser: two steps, and the walk.
    # A start lies at most a tenth of a cell outside its cell.
    margin = SPACING_NM + NEGATIVE_SPACING_NM + MAX_MOVE_NM + 0.1 * LATTICE_NM
    side = _BLOCK * LATTICE_NM
    blocks = lattice_cells(np.floor((low - margin) / side), np.floor((high + margin) / side) + 1)
    sites = concatenate([_candidates(seed, tuple(b.tolist())) for b in blocks])
    true, negative = sites.take(sites.is_synapse), sites.take(~sites.is_synapse)
    true = true.take(~_losers(true, SPACING_NM, true))
    always = Sites(**{**_as_dict(true), "priority": np.full(len(true), 2.0)})
    lost = _losers(negative, NEGATIVE_SPACING_NM, always) | _losers(negative, NEGATIVE_SPACING_NM, negative)
    sites = concatenate([true, negative.take(~lost)])
    sites = sites.take(np.argsort(sites.id))
    return sites.take(((sites.centre >= low) & (sites.centre < high)).all(axis=1))
