"""One tile of tissue: its truth and its darkness, drawn from the same fields.

Lengths are nm; darkness runs from 0 (cytoplasm) to 1 (as dark as stain gets). Everything is
computed voxel by voxel, so a tile may be cut anywhere without changing.

Knows partitions, sites, vesicles and organelles; must not know sections, noise or boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twostream.volume.synthetic.hashing import hashed, key, uniform
from twostream.volume.synthetic.neurites import Partition, between
from twostream.volume.synthetic.noise import Grid, grid_noise
from twostream.volume.synthetic.organelles import Organelles
from twostream.volume.synthetic.sites import KINDS, Sites

POST_DEPTH_NM = 75.0
RIM_NM = 18.0  # the labels reach this far beyond the disc of contact
CLEFT_NM = 11.0  # half-width of the cleft label
APART_NM = 70.0  # twice the step to a diagonal neighbour at 30 x 8 x 8 nm, shifted section included
_MEMBRANE_NM = 8.5  # half-width of two membranes and what lies between
_CLEAR_NM = 30.0  # organelles keep off the membrane and off synapses
_NO_VESICLES = ("density_without_vesicles", "adherens_junction")


Window = tuple[slice, slice, slice]


@dataclass
class Tile:
    """What has been drawn so far; all arrays (Z, Y, X).

    Args:
        grid: where the voxels lie.
        owners: who holds each voxel.
        polarity: uint64, 2n - 1 before and 2n after the synapse.
        cleft: uint64 n.
        mitochondrion: uint64 n.
        dark: float32 darkness.
        clear_nm: float32, distance to the nearest place kept free for a contact.
    """

    grid: Grid
    owners: Partition
    polarity: np.ndarray
    cleft: np.ndarray
    mitochondrion: np.ndarray
    dark: np.ndarray
    clear_nm: np.ndarray

    @classmethod
    def blank(cls, grid: Grid, owners: Partition, section_nm: float) -> Tile:
        polarity, cleft, mitochondrion = (np.zeros(grid.shape, np.uint64) for _ in range(3))
        return cls(
            grid,
            owners,
            polarity,
            cleft,
            mitochondrion,
            _membranes(owners, section_nm),
            np.full(grid.shape, 1e3, np.float32),
        )


def _soft(value: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, straight between."""
    return np.clip(value * np.float32(0.5 / width) + np.float32(0.5), 0, 1)


def _membranes(owners: Partition, section_nm: float) -> np.ndarray:
    # A section has thickness: a tilted membrane is smeared over section_nm * |normal_z|, wider and paler.
    smear = 4 + np.float32(min(0.45 * section_nm, 20)) * owners.tilt
    width = np.float32(_MEMBRANE_NM)
    edge = (width + smear - owners.membrane_nm) / (2 * np.minimum(width, smear))
    return np.float32(0.95) * np.clip(edge, 0, 1) * np.minimum(1, width / smear)


def _window(grid: Grid, centre: np.ndarray, reach: float) -> Window | None:
    slices = []
    for axis, place in zip((grid.z, grid.y, grid.x), centre, strict=True):
        near = np.abs(axis - place) <= reach
        index = np.flatnonzero(near if near.ndim == 1 else near.any(axis=0))
        if len(index) == 0:
            return None
        slices.append(slice(index[0], index[-1] + 1))
    return slices[0], slices[1], slices[2]


def _offsets(grid: Grid, window: Window, centre: np.ndarray) -> list[np.ndarray]:
    z, y, x = window
    return [
        (grid.z[z] - centre[0]).astype(np.float32)[:, None, None],
        (grid.y[z, y] - centre[1]).astype(np.float32)[:, :, None],
        (grid.x[z, x] - centre[2]).astype(np.float32)[:, None, :],
    ]


def _length(offset: list[np.ndarray]) -> np.ndarray:
    return np.sqrt(offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2])


def draw_site(tile: Tile, sites: Sites, i: int, seed: int) -> None:
    """Draw contact ``i`` into the tile: labels if it is a synapse, and its look."""
    window = _window(tile.grid, sites.centre[i], sites.reach[i])
    if window is None:
        return
    rods = tile.owners.rods
    pre, post = (np.flatnonzero(rods.id == rod) for rod in (sites.pre.id[i], sites.post.id[i]))
    if len(pre) == 0 or len(post) == 0:
        return  # the tile is too far to hold a voxel of either side
    offset = _offsets(tile.grid, window, sites.centre[i])
    n = sites.normal[i].astype(np.float32)
    distance = _length(offset)
    axial = offset[0] * n[0] + offset[1] * n[1] + offset[2] * n[2]
    lateral = np.sqrt(np.maximum(distance * distance - axial * axial, 0))
    # Distance to this membrane, positive beyond it.
    after, _ = between(rods, int(post[0]), int(pre[0]), [p[window] for p in tile.owners.points])
    owner = tile.owners.nearest[window]
    in_pre, in_post = owner == pre[0], owner == post[0]
    inside = distance <= np.float32(sites.reach[i])
    if sites.kind[i] != KINDS.index("grazing_membrane"):
        _keep_free(tile, window, sites, i, in_pre | in_post, lateral, after)
    if sites.is_synapse[i]:
        _label(tile, window, sites, i, inside & in_pre, inside & in_post, lateral, after, distance)
    _density(tile, window, sites, i, inside & in_pre, inside & in_post, lateral, after, seed)


def _keep_free(
    tile: Tile, window: Window, sites: Sites, i: int, own: np.ndarray, lateral: np.ndarray, after: np.ndarray
) -> None:
    # A rounded box around the contact (a superellipse of power 4), longer towards the vesicles: a
    # plain box would cut sharp corners into mitochondria, an egg would leave them in the labels.
    wide = lateral / np.float32(sites.radius[i] + 25)
    long = after / np.where(after < 0, np.float32(sites.depth[i] + 20), np.float32(POST_DEPTH_NM + 10))
    wide, long = wide * wide, long * long
    outside = (np.sqrt(np.sqrt(wide * wide + long * long)) - 1) * np.float32(90)
    np.copyto(tile.clear_nm[window], np.minimum(tile.clear_nm[window], outside), where=own)


def _label(
    tile: Tile,
    window: Window,
    sites: Sites,
    i: int,
    in_pre: np.ndarray,
    in_post: np.ndarray,
    lateral: np.ndarray,
    after: np.ndarray,
    distance: np.ndarray,
) -> None:
    near = lateral <= np.float32(sites.radius[i] + RIM_NM)
    for j in _rivals(sites, i):
        # Two masks share the space between them and leave a gap, so they never touch.
        near &= _length(_offsets(tile.grid, window, sites.centre[j])) > distance + np.float32(APART_NM)
    n = sites.id[i]
    pre = near & in_pre & (after >= -np.float32(sites.depth[i])) & (after <= 0)
    post = near & in_post & (after <= np.float32(POST_DEPTH_NM)) & (after >= 0)
    polarity, cleft = tile.polarity[window], tile.cleft[window]
    polarity[pre] = 2 * n - np.uint64(1)
    polarity[post] = 2 * n
    cleft[(pre | post) & (np.abs(after) <= np.float32(CLEFT_NM)) & (lateral <= np.float32(sites.radius[i]))] = n


def _rivals(sites: Sites, i: int) -> np.ndarray:
    offset = sites.centre - sites.centre[i]
    limit = sites.reach + sites.reach[i] + APART_NM
    near = (offset[:, 0] ** 2 + offset[:, 1] ** 2 + offset[:, 2] ** 2 < limit**2) & sites.is_synapse
    near[i] = False
    return np.flatnonzero(near)


def _density(
    tile: Tile,
    window: Window,
    sites: Sites,
    i: int,
    in_pre: np.ndarray,
    in_post: np.ndarray,
    lateral: np.ndarray,
    after: np.ndarray,
    seed: int,
) -> None:
    kind = KINDS[sites.kind[i]]
    dark = tile.dark[window]
    disc = _soft(np.float32(sites.radius[i]) - lateral, 16)
    own = in_pre | in_post
    if kind == "grazing_membrane":
        smear = disc * np.clip(1.25 - np.abs(after) / 44, 0, 0.75)
        np.copyto(dark, np.maximum(dark, smear), where=own)
        return
    if kind in ("vesicles_without_cleft", "dark_vesicles"):
        return
    if kind == "perforated":
        disc = disc * _soft(lateral - np.float32(0.36 * sites.radius[i]), 10)
    strength = np.float32(sites.strength[i])
    thick: np.ndarray = np.asarray(sites.thickness[i], np.float32)
    # The cleft: the line of the membrane opens into two dark lines with a paler gap.
    line = _soft(16 - np.abs(after), 4) * np.float32(0.9)
    gap = 1 - np.float32(0.6) * _soft(6.5 - np.abs(after), 4)
    np.copyto(dark, np.maximum(dark * (1 - disc), disc * line * gap), where=own & (disc > 0))
    # The density is a fuzzy felt: darkest at the membrane, uneven.
    both = kind in ("symmetric", "adherens_junction")
    edge = lateral / np.float32(sites.radius[i])
    thick = thick * (1 - np.float32(0.55) * edge * edge)
    felt = disc * strength * _soft(thick + 8 - np.abs(after), 11) * _soft(np.abs(after) - 7, 4)
    np.copyto(dark, np.maximum(dark, felt), where=in_post | (in_pre & both))
    if kind not in _NO_VESICLES:
        zone = disc * strength * np.float32(0.75) * _soft(19 - np.abs(after), 6) * _soft(np.abs(after) - 7, 4)
        np.copyto(dark, np.maximum(dark, zone), where=in_pre)


def draw_organelle(tile: Tile, organelles: Organelles, i: int) -> None:
    """Draw organelle ``i``: inside its neurite, off the membrane and off contacts."""
    reach = organelles.half_length[i] + organelles.radius[i] + 1
    window = _window(tile.grid, organelles.centre[i], reach)
    host = np.flatnonzero(tile.owners.rods.id == organelles.host[i])
    if window is None or len(host) == 0:
        return
    offset = _offsets(tile.grid, window, organelles.centre[i])
    d = organelles.direction[i].astype(np.float32)
    half = np.float32(organelles.half_length[i])
    along = offset[0] * d[0] + offset[1] * d[1] + offset[2] * d[2]
    rest = np.clip(along, -half, half)
    across = _length([o - rest * c for o, c in zip(offset, d, strict=True)])
    depth = np.minimum(
        np.float32(organelles.radius[i]) - across, tile.owners.membrane_nm[window] - np.float32(_CLEAR_NM)
    )
    depth = np.minimum(depth, tile.clear_nm[window] - 10)
    inside = (tile.owners.nearest[window] == host[0]) & (depth > 0)
    look = organelles.look[i].astype(np.float32)
    if organelles.kind[i] == 0:
        tile.mitochondrion[window][inside] = organelles.id[i]
        shade = _mitochondrion(depth, along, offset, look)
    else:
        shade = (np.float32(0.55) + np.float32(0.3) * look[0]) * _soft(depth - 5, 5)
    dark = tile.dark[window]
    np.copyto(dark, np.maximum(dark, shade), where=inside)


def _mitochondrion(depth: np.ndarray, along: np.ndarray, offset: list[np.ndarray], look: np.ndarray) -> np.ndarray:
    matrix = np.float32(0.34) + np.float32(0.14) * look[0]
    # Cristae: slanted, slightly wavy sheets across the rod that stop short of its border.
    wave = np.abs(offset[1] / 90 - np.floor(offset[1] / 90) - np.float32(0.5))
    phase = (along + (look[2] - np.float32(0.5)) * offset[2] + 16 * wave) / (38 + 16 * look[1])
    sheet = _soft(np.float32(0.17) - np.abs(phase - np.floor(phase) - np.float32(0.5)), 0.1) * _soft(depth - 24, 6)
    border = np.maximum(
        _soft(8 - np.abs(depth - 5), 4) * np.float32(0.8), _soft(4 - np.abs(depth - 23), 4) * np.float32(0.62)
    )
    pale = _soft(5 - np.abs(depth - 14), 3) * np.float32(0.22)
    return np.maximum(np.maximum(border, (matrix - pale) * _soft(depth - 8, 5)), sheet * np.float32(0.72))


def grey(tile: Tile, rim: np.ndarray, core: np.ndarray, seed: int) -> np.ndarray:
    """Grey levels of a drawn tile.

    Args:
        rim: (Z, Y, X) float32, darkness of vesicles.
        core: (Z, Y, X) float32 in [0, 1], where they are empty and bright.

    Returns:
        (Z, Y, X) float32, 0 to 255.
    """
    coarse = grid_noise([key(seed, "cytoplasm-coarse")], 75.0, tile.grid)[0]
    fine = grid_noise([key(seed, "cytoplasm-fine")], 22.0, tile.grid)[0]
    ids = tile.owners.rods.id
    tint = uniform(hashed(key(seed, "tint"), ids.view(np.int64))).astype(np.float32)[tile.owners.nearest]
    # Filaments and granules: dark specks where fine noise runs low.
    speck = np.clip(-fine - np.float32(0.22), 0, 1)
    cytoplasm = 178 + 18 * (tint - np.float32(0.5)) + 26 * coarse + 30 * fine - 75 * speck
    cytoplasm = cytoplasm + (204 - cytoplasm) * core
    uneven = np.clip(tile.dark * (1 + np.float32(0.5) * fine), 0, 1)
    dark = np.maximum(uneven, rim)
    return cytoplasm + (42 - cytoplasm) * dark
