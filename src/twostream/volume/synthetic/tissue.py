"""Tissue: an endless volume of synthetic electron microscopy, with its exact truth.

Knows boxes of voxels and puts the other modules together; must not know disks, tasks or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.volume.synthetic import organelles as organelles_
from twostream.volume.synthetic import sites as sites_
from twostream.volume.synthetic.neurites import Rods, partition, rods_near, warp_grid
from twostream.volume.synthetic.noise import Grid
from twostream.volume.synthetic.render import APART_NM, Tile, draw_organelle, draw_site, grey
from twostream.volume.synthetic.sections import MAX_SHIFT_NM, expose, shift_yx
from twostream.volume.synthetic.stamps import stamp
from twostream.volume.synthetic.vesicles import vesicles_near

# 240 x 384 x 384 nm at 30 x 8 x 8: as wide as a neurite, so few rods matter to a tile, and its
# arrays stay in the cache; measured as the fastest of 32, 48 and 64.
_TILE_ZYX = (8, 48, 48)
_SITE_REACH_NM = float(np.hypot(sites_.MAX_RADIUS_NM + 30, sites_.MAX_DEPTH_NM + 10))
_ORGANELLE_REACH_NM = organelles_.MAX_HALF_LENGTH_NM + organelles_.MAX_RADIUS_NM
_END_NM = 95e6  # ids pack lattice coordinates into 20 bits: 2^19 half cells of 192.5 nm are 101 mm
OBJECT = np.dtype([("id", np.uint64), ("kind", "U24"), ("centre_zyx", np.float64, 3)])


@dataclass(frozen=True)
class Tissue:
    """Synthetic neuropil: any box of an endless volume, the same voxels however it is cut.

    Endless means 95 mm each way. Space is shared out among short warped neurites. Contacts are
    planted on the membranes between them: about 10 to 14 true synapses per cubic micrometre, some
    ten times the density of cortex and on purpose, so that 32 x 512 x 512 voxels hold about 150 to
    230; hard negatives beside them; mitochondria and lysosomes inside. All truth is exact: image
    and labels come from the same fields. Noise and defects belong to absolute voxels, tissue to
    absolute nanometres.

    Args:
        seed: another seed, another tissue.
        voxel_size_nm: Z, Y, X, slowest first; changes the sampling, not the tissue. Shifts of
            sections are whole voxels, and section effects belong to the section's number.

    Raises:
        InputError: a voxel size that is not three positive numbers.
    """

    seed: int
    voxel_size_nm: tuple[float, float, float] = (30.0, 8.0, 8.0)

    def __post_init__(self) -> None:
        size = tuple(float(v) for v in self.voxel_size_nm)
        if len(size) != 3 or not all(0 < v < np.inf for v in size):
            raise InputError(f"voxel_size_nm is {self.voxel_size_nm}; expected three positive numbers: Z, Y, X in nm.")
        object.__setattr__(self, "voxel_size_nm", size)

    def image(self, box: Box) -> np.ndarray:
        """The microscope's image: (Z, Y, X) uint8, larger is brighter."""
        image = np.zeros(box.shape_zyx, np.uint8)
        rim, core = self._stamps(box)
        for part, tile in self._tiles(box):
            at = part.relative_to(box).slices
            image[at] = expose(self.seed, grey(tile, rim[at], core[at], self.seed), tile.grid, part)
        return image

    def synapses(self, box: Box) -> np.ndarray:
        """Polarity labels: (Z, Y, X) uint64, 2n - 1 before synapse n, 2n after it, 0 elsewhere."""
        return self._truth(box, lambda tile: tile.polarity, organelles=False)

    def clefts(self, box: Box) -> np.ndarray:
        """Synaptic clefts: (Z, Y, X) uint64, the synapse's n, 0 elsewhere."""
        return self._truth(box, lambda tile: tile.cleft, organelles=False)

    def mitochondria(self, box: Box) -> np.ndarray:
        """Mitochondria: (Z, Y, X) uint64 n, 0 elsewhere."""
        return self._truth(box, lambda tile: tile.mitochondrion)

    def neurites(self, box: Box) -> np.ndarray:
        """Neurites: (Z, Y, X) uint64, 1 or more everywhere; the membrane belongs to the nearer side."""
        return self._truth(box, lambda tile: tile.owners.neurite, sites=False, organelles=False)

    def kinds(self, box: Box) -> np.ndarray:
        """What was planted with its centre in the box, without regard to shifted sections.

        Returns:
            (N,) records of ``OBJECT``: permanent id (uint64; of a synapse its n; unique among
            contacts and among organelles), kind (text), centre_zyx (3 float64, absolute voxels).
        """
        low, high = self._bounds(box, 0)
        contacts = sites_.sites_near(self.seed, low, high)
        bodies = organelles_.organelles_near(self.seed, low, high)
        table = np.zeros(len(contacts) + len(bodies), OBJECT)
        table["id"] = np.concatenate([contacts.id, bodies.id])
        table["kind"] = [sites_.KINDS[k] for k in contacts.kind] + [organelles_.KINDS[k] for k in bodies.kind]
        table["centre_zyx"] = np.concatenate([contacts.centre, bodies.centre]) / self.voxel_size_nm - 0.5
        return table

    def _truth(
        self, box: Box, read: Callable[[Tile], np.ndarray], sites: bool = True, organelles: bool = True
    ) -> np.ndarray:
        labels = np.zeros(box.shape_zyx, np.uint64)
        for part, tile in self._tiles(box, sites, organelles):
            labels[part.relative_to(box).slices] = read(tile)
        return labels

    def _bounds(self, box: Box, margin_nm: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """First and last corner of a box in tissue nm, grown; plain numbers, to be cached by."""
        corners = np.array([box.offset_zyx, box.stop_zyx]) * np.array(self.voxel_size_nm)
        if np.abs(corners).max() > _END_NM:
            raise InputError(
                f"box {box} reaches beyond {_END_NM / 1e6:.0f} mm from the origin, where ids end; move it closer."
            )
        low = tuple(float(o * v - margin_nm) for o, v in zip(box.offset_zyx, self.voxel_size_nm, strict=True))
        high = tuple(float(o * v + margin_nm) for o, v in zip(box.stop_zyx, self.voxel_size_nm, strict=True))
        return low, high

    def _grid(self, box: Box) -> Grid:
        z, y, x = (np.arange(o, o + s) for o, s in zip(box.offset_zyx, box.shape_zyx, strict=True))
        shift = shift_yx(self.seed, z, self.voxel_size_nm)
        dz, dy, dx = self.voxel_size_nm
        return Grid((z + 0.5) * dz, (y + shift[:, :1] + 0.5) * dy, (x + shift[:, 1:] + 0.5) * dx)

    def _stamps(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        vesicles = vesicles_near(self.seed, *self._bounds(box, MAX_SHIFT_NM + 2 * _SITE_REACH_NM))
        return stamp(vesicles, self._grid(box), box, self.voxel_size_nm)

    def _tiles(self, box: Box, sites: bool = True, organelles: bool = True) -> Iterator[tuple[Box, Tile]]:
        """The box in tiles aligned to absolute voxels, cut where the box ends, all drawn."""
        if box.num_voxels == 0:
            return
        # A synapse's mask stops short of its neighbours': so their centres are needed as well.
        contacts = sites_.sites_near(self.seed, *self._bounds(box, MAX_SHIFT_NM + 3 * _SITE_REACH_NM + APART_NM))
        bodies = organelles_.organelles_near(self.seed, *self._bounds(box, MAX_SHIFT_NM + _ORGANELLE_REACH_NM))
        rods = rods_near(self.seed, *(np.array(v) for v in self._bounds(box, MAX_SHIFT_NM)))
        for part, origin_nm in self._parts(box):
            tile = self._tile(part, origin_nm, rods)
            for i in _touching(contacts.centre, contacts.reach, tile.grid) if sites else ():
                draw_site(tile, contacts, i, self.seed)
            for i in _touching(bodies.centre, bodies.half_length + bodies.radius, tile.grid) if organelles else ():
                draw_organelle(tile, bodies, i)
            yield part, tile

    def _parts(self, box: Box) -> Iterator[tuple[Box, np.ndarray]]:
        first = [o // t * t for o, t in zip(box.offset_zyx, _TILE_ZYX, strict=True)]
        for block in grid(Box.from_corners(first, box.stop_zyx), _TILE_ZYX):
            origin_nm = np.array(block.write_box.offset_zyx) * np.array(self.voxel_size_nm)
            part = block.write_box.intersection(box)
            if part.num_voxels:
                yield part, origin_nm

    def _tile(self, part: Box, origin_nm: np.ndarray, rods: Rods) -> Tile:
        where = self._grid(part)
        owners = partition(rods, warp_grid(self.seed, where, origin_nm), origin_nm)
        return Tile.blank(where, owners, self.voxel_size_nm[0])


def _touching(centre: np.ndarray, reach: np.ndarray, grid_: Grid) -> np.ndarray:
    """Which objects may reach into a tile: indices, in order."""
    low = np.array([axis.min() for axis in (grid_.z, grid_.y, grid_.x)])
    high = np.array([axis.max() for axis in (grid_.z, grid_.y, grid_.x)])
    return np.flatnonzero(((centre >= low - reach[:, None]) & (centre <= high + reach[:, None])).all(axis=1))
