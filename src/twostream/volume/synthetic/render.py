"""Drawing one tile of tissue: labels and darkness are computed from the same distances, so the labels are exact.

Lengths are nm. Darkness is 0 in cytoplasm and 1 where the stain is darkest. Every voxel is computed on its own, so its
value does not depend on the extent of the tile.

Knows neurites, sites and organelles; must not know boxes, defects of sections or detector noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twostream.volume.synthetic.hashing import hashed, key, uniform
from twostream.volume.synthetic.neurites import Partition, membrane_distance
from twostream.volume.synthetic.noise import Grid, grid_noise
from twostream.volume.synthetic.organelles import Organelles
from twostream.volume.synthetic.sites import KINDS, Sites

POST_DEPTH_NM = 75.0  # how far the postsynaptic label extends from the membrane
RIM_NM = 18.0  # how far the synapse labels extend beyond the disc of contact
CLEFT_NM = 11.0  # half the thickness of the cleft label
# Difference of the distances to two synapses below which a voxel gets no label: twice the step to a diagonal neighbour
# at 30 x 8 x 8 nm, with a margin for shifted sections.
APART_NM = 70.0
_MEMBRANE_NM = 8.5  # half the thickness of a membrane pair, including the gap between them
_CLEAR_NM = 30.0  # smallest distance of an organelle from the membrane
_NO_VESICLES = ("density_without_vesicles", "adherens_junction")


Window = tuple[slice, slice, slice]


@dataclass
class Tile:
    """The labels and the darkness of a tile, which the functions below draw into; all arrays are (Z, Y, X).

    Args:
        grid: positions of the voxels.
        partition: the neurite of each voxel.
        polarity: uint64, 2n - 1 on the presynaptic and 2n on the postsynaptic side of synapse n.
        cleft: uint64, n in the cleft of synapse n.
        mitochondrion: uint64, n in mitochondrion n.
        dark: float32, darkness.
        clear_nm: float32, approximate distance to the nearest region that contacts reserve, negative inside it;
            organelles are drawn only outside.
    """

    grid: Grid
    partition: Partition
    polarity: np.ndarray
    cleft: np.ndarray
    mitochondrion: np.ndarray
    dark: np.ndarray
    clear_nm: np.ndarray

    @classmethod
    def blank(cls, grid: Grid, partition: Partition, section_nm: float) -> Tile:
        """A tile with membranes only; ``section_nm`` is the thickness of a section."""
        polarity, cleft, mitochondrion = (np.zeros(grid.shape, np.uint64) for _ in range(3))
        return cls(
            grid,
            partition,
            polarity,
            cleft,
            mitochondrion,
            _membranes(partition, section_nm),
            np.full(grid.shape, 1e3, np.float32),
        )


def _ramp(value: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, linear between; float32."""
    return np.clip(value * np.float32(0.5 / width) + np.float32(0.5), 0, 1)


def _membranes(partition: Partition, section_nm: float) -> np.ndarray:
    """Darkness of the membranes, (Z, Y, X) float32."""
    # The image is a projection through the section: an oblique membrane appears wider and paler.
    smear = 4 + np.float32(min(0.45 * section_nm, 20)) * partition.tilt
    width = np.float32(_MEMBRANE_NM)
    edge = (width + smear - partition.membrane_nm) / (2 * np.minimum(width, smear))
    return np.float32(0.95) * np.clip(edge, 0, 1) * np.minimum(1, width / smear)


def _window(grid: Grid, centre: np.ndarray, reach: float) -> Window | None:
    """Slices of the tile that contain all voxels within ``reach`` nm of ``centre``; None if there are none."""
    slices = []
    for axis, place in zip((grid.z, grid.y, grid.x), centre, strict=True):
        near = np.abs(axis - place) <= reach
        index = np.flatnonzero(near if near.ndim == 1 else near.any(axis=0))
        if len(index) == 0:
            return None
        slices.append(slice(index[0], index[-1] + 1))
    return slices[0], slices[1], slices[2]


def _offsets(grid: Grid, window: Window, centre: np.ndarray) -> list[np.ndarray]:
    """The z, y and x components, in nm, of the vector from ``centre`` to each voxel; they broadcast to the window."""
    z, y, x = window
    return [
        (grid.z[z] - centre[0]).astype(np.float32)[:, None, None],
        (grid.y[z, y] - centre[1]).astype(np.float32)[:, :, None],
        (grid.x[z, x] - centre[2]).astype(np.float32)[:, None, :],
    ]


def _length(offset: list[np.ndarray]) -> np.ndarray:
    return np.sqrt(offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2])


def draw_site(tile: Tile, sites: Sites, i: int) -> None:
    """Draw contact ``i`` into the tile: its darkness, and its labels if it is a synapse.

    Args:
        tile: changed in place.
        sites: all contacts that reach into the tile, and the synapses near these.
        i: index into ``sites``.
    """
    window = _window(tile.grid, sites.centre[i], sites.reach[i])
    if window is None:
        return
    rods = tile.partition.rods
    pre, post = (np.flatnonzero(rods.id == rod) for rod in (sites.pre.id[i], sites.post.id[i]))
    if len(pre) == 0 or len(post) == 0:
        return  # no voxel of the tile belongs to one of the two neurites
    offset = _offsets(tile.grid, window, sites.centre[i])
    n = sites.normal[i].astype(np.float32)
    distance = _length(offset)
    # Components of the offset along the normal and perpendicular to it.
    axial = offset[0] * n[0] + offset[1] * n[1] + offset[2] * n[2]
    lateral = np.sqrt(np.maximum(distance * distance - axial * axial, 0))
    # Distance to the membrane between the two neurites: negative on the presynaptic, positive on the postsynaptic side.
    signed_nm, _ = membrane_distance(rods, int(post[0]), int(pre[0]), [p[window] for p in tile.partition.points])
    owner = tile.partition.nearest[window]
    in_pre, in_post = owner == pre[0], owner == post[0]
    inside = distance <= np.float32(sites.reach[i])
    if sites.kind[i] != KINDS.index("grazing_membrane"):
        _keep_free(tile, window, sites, i, in_pre | in_post, lateral, signed_nm)
    if sites.is_synapse[i]:
        _label(tile, window, sites, i, inside & in_pre, inside & in_post, lateral, signed_nm, distance)
    _density(tile, window, sites, i, inside & in_pre, inside & in_post, lateral, signed_nm)


def _keep_free(
    tile: Tile, window: Window, sites: Sites, i: int, in_either: np.ndarray, lateral: np.ndarray, signed_nm: np.ndarray
) -> None:
    """Reserve the region of a contact, so that no organelle is drawn in it."""
    # A superellipse of power 4, longer on the side of the vesicles. A box would cut sharp corners into mitochondria,
    # and an ellipse would leave parts of mitochondria in the corners of the labels.
    wide = lateral / np.float32(sites.radius[i] + 25)
    long = signed_nm / np.where(signed_nm < 0, np.float32(sites.depth[i] + 20), np.float32(POST_DEPTH_NM + 10))
    wide, long = wide * wide, long * long
    outside = (np.sqrt(np.sqrt(wide * wide + long * long)) - 1) * np.float32(90)
    np.copyto(tile.clear_nm[window], np.minimum(tile.clear_nm[window], outside), where=in_either)


def _label(
    tile: Tile,
    window: Window,
    sites: Sites,
    i: int,
    in_pre: np.ndarray,
    in_post: np.ndarray,
    lateral: np.ndarray,
    signed_nm: np.ndarray,
    distance: np.ndarray,
) -> None:
    """Write the polarity and cleft labels of synapse ``i``."""
    near = lateral <= np.float32(sites.radius[i] + RIM_NM)
    for j in _synapses_nearby(sites, i):
        # A voxel between two synapses belongs to the nearer one, with a gap, so that labels never touch.
        near &= _length(_offsets(tile.grid, window, sites.centre[j])) > distance + np.float32(APART_NM)
    n = sites.id[i]
    pre = near & in_pre & (signed_nm >= -np.float32(sites.depth[i])) & (signed_nm <= 0)
    post = near & in_post & (signed_nm <= np.float32(POST_DEPTH_NM)) & (signed_nm >= 0)
    polarity, cleft = tile.polarity[window], tile.cleft[window]
    polarity[pre] = 2 * n - np.uint64(1)
    polarity[post] = 2 * n
    cleft[(pre | post) & (np.abs(signed_nm) <= np.float32(CLEFT_NM)) & (lateral <= np.float32(sites.radius[i]))] = n


def _synapses_nearby(sites: Sites, i: int) -> np.ndarray:
    """Indices of the other synapses whose labels could touch those of synapse ``i``."""
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
    signed_nm: np.ndarray,
) -> None:
    """Draw the darkness of contact ``i``: cleft and densities, or what its kind has in their place."""
    kind = KINDS[sites.kind[i]]
    dark = tile.dark[window]
    disc = _ramp(np.float32(sites.radius[i]) - lateral, 16)
    in_either = in_pre | in_post
    if kind == "grazing_membrane":
        smear = disc * np.clip(1.25 - np.abs(signed_nm) / 44, 0, 0.75)
        np.copyto(dark, np.maximum(dark, smear), where=in_either)
        return
    if kind in ("vesicles_without_cleft", "dark_vesicles"):
        return
    if kind == "perforated":
        disc = disc * _ramp(lateral - np.float32(0.36 * sites.radius[i]), 10)
    strength = np.float32(sites.strength[i])
    thick: np.ndarray = np.asarray(sites.thickness[i], np.float32)
    # Cleft: the membranes appear as two dark lines with a paler gap.
    line = _ramp(16 - np.abs(signed_nm), 4) * np.float32(0.9)
    gap = 1 - np.float32(0.6) * _ramp(6.5 - np.abs(signed_nm), 4)
    np.copyto(dark, np.maximum(dark * (1 - disc), disc * line * gap), where=in_either & (disc > 0))
    # Density: darkest at the membrane, thinner towards the edge of the disc.
    both = kind in ("symmetric", "adherens_junction")
    edge = lateral / np.float32(sites.radius[i])
    thick = thick * (1 - np.float32(0.55) * edge * edge)
    density = disc * strength * _ramp(thick + 8 - np.abs(signed_nm), 11) * _ramp(np.abs(signed_nm) - 7, 4)
    np.copyto(dark, np.maximum(dark, density), where=in_post | (in_pre & both))
    if kind not in _NO_VESICLES:
        zone = disc * strength * np.float32(0.75) * _ramp(19 - np.abs(signed_nm), 6) * _ramp(np.abs(signed_nm) - 7, 4)
        np.copyto(dark, np.maximum(dark, zone), where=in_pre)


def draw_organelle(tile: Tile, organelles: Organelles, i: int) -> None:
    """Draw organelle ``i`` into the tile, inside its neurite and away from membrane and contacts.

    Args:
        tile: changed in place; all contacts must have been drawn.
        organelles: all organelles that reach into the tile.
        i: index into ``organelles``.
    """
    reach = organelles.half_length[i] + organelles.radius[i] + 1
    window = _window(tile.grid, organelles.centre[i], reach)
    host = np.flatnonzero(tile.partition.rods.id == organelles.host[i])
    if window is None or len(host) == 0:
        return
    offset = _offsets(tile.grid, window, organelles.centre[i])
    d = organelles.direction[i].astype(np.float32)
    half = np.float32(organelles.half_length[i])
    along = offset[0] * d[0] + offset[1] * d[1] + offset[2] * d[2]
    rest = np.clip(along, -half, half)
    across = _length([o - rest * c for o, c in zip(offset, d, strict=True)])
    depth = np.minimum(
        np.float32(organelles.radius[i]) - across, tile.partition.membrane_nm[window] - np.float32(_CLEAR_NM)
    )
    depth = np.minimum(depth, tile.clear_nm[window] - 10)
    inside = (tile.partition.nearest[window] == host[0]) & (depth > 0)
    appearance = organelles.appearance[i].astype(np.float32)
    if organelles.kind[i] == 0:
        tile.mitochondrion[window][inside] = organelles.id[i]
        shade = _mitochondrion(depth, along, offset, appearance)
    else:
        shade = (np.float32(0.55) + np.float32(0.3) * appearance[0]) * _ramp(depth - 5, 5)
    dark = tile.dark[window]
    np.copyto(dark, np.maximum(dark, shade), where=inside)


def _mitochondrion(
    depth: np.ndarray, along: np.ndarray, offset: list[np.ndarray], appearance: np.ndarray
) -> np.ndarray:
    """Darkness of a mitochondrion: matrix, cristae and double membrane."""
    matrix = np.float32(0.34) + np.float32(0.14) * appearance[0]
    # Cristae: slanted, slightly wavy sheets across the organelle that end before its border.
    wave = np.abs(offset[1] / 90 - np.floor(offset[1] / 90) - np.float32(0.5))
    phase = (along + (appearance[2] - np.float32(0.5)) * offset[2] + 16 * wave) / (38 + 16 * appearance[1])
    sheet = _ramp(np.float32(0.17) - np.abs(phase - np.floor(phase) - np.float32(0.5)), 0.1) * _ramp(depth - 24, 6)
    border = np.maximum(
        _ramp(8 - np.abs(depth - 5), 4) * np.float32(0.8), _ramp(4 - np.abs(depth - 23), 4) * np.float32(0.62)
    )
    pale = _ramp(5 - np.abs(depth - 14), 3) * np.float32(0.22)
    return np.maximum(np.maximum(border, (matrix - pale) * _ramp(depth - 8, 5)), sheet * np.float32(0.72))


def grey(tile: Tile, rim: np.ndarray, core: np.ndarray, seed: int) -> np.ndarray:
    """Grey levels of a tile into which everything was drawn.

    Args:
        tile: the tile.
        rim: (Z, Y, X) float32, darkness of the membranes and dense cores of vesicles.
        core: (Z, Y, X) float32 in [0, 1], share of the voxel that is the bright lumen of a vesicle.
        seed: seed of the tissue.

    Returns:
        (Z, Y, X) float32, 0 to 255.
    """
    coarse = grid_noise([key(seed, "cytoplasm-coarse")], 75.0, tile.grid)[0]
    fine = grid_noise([key(seed, "cytoplasm-fine")], 22.0, tile.grid)[0]
    ids = tile.partition.rods.id
    tint = uniform(hashed(key(seed, "tint"), ids.view(np.int64))).astype(np.float32)[tile.partition.nearest]
    # Filaments and granules: dark specks where the fine noise is low.
    speck = np.clip(-fine - np.float32(0.22), 0, 1)
    cytoplasm = 178 + 18 * (tint - np.float32(0.5)) + 26 * coarse + 30 * fine - 75 * speck
    cytoplasm = cytoplasm + (204 - cytoplasm) * core
    uneven = np.clip(tile.dark * (1 + np.float32(0.5) * fine), 0, 1)
    dark = np.maximum(uneven, rim)
    return cytoplasm + (42 - cytoplasm) * dark
