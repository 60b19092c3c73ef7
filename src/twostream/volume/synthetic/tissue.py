"""The class ``Tissue``: image and labels of any box of synthetic brain tissue, computed with the other modules here.

Knows boxes of voxels and in which order things are drawn; must not know files, tasks or neural networks.
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

# 240 x 384 x 384 nm at 30 x 8 x 8 nm: about the width of a neurite, so few rods are near a tile, and its arrays fit
# into the processor's cache. Measured as the fastest of 32, 48 and 64 voxels along Y and X.
_TILE_ZYX = (8, 48, 48)
_SITE_REACH_NM = float(np.hypot(sites_.MAX_RADIUS_NM + 30, sites_.MAX_DEPTH_NM + 10))
_ORGANELLE_REACH_NM = organelles_.MAX_HALF_LENGTH_NM + organelles_.MAX_RADIUS_NM
_END_NM = 95e6  # ids hold 20 bits per lattice coordinate, and 2^19 half cells of 192.5 nm are 101 mm
OBJECT = np.dtype([("id", np.uint64), ("kind", "U24"), ("centre_zyx", np.float64, 3)])
"""One row of ``Tissue.objects``."""


@dataclass(frozen=True)
class Tissue:
    """Synthetic brain tissue (neuropil) in a volume that extends 95 mm from the origin in every direction.

    The tissue consists of short, bent neurites. On the membranes between them there are about 10 to 14 synapses per
    cubic micrometre, and hard negatives: contacts that resemble synapses. That is about ten times the density of
    synapses in cortex, so that a small volume of 32 x 512 x 512 voxels contains 150 to 230 synapses. The neurites
    contain mitochondria and lysosomes. Labels are exact, because image and labels are computed from the same geometry.
    A voxel has the same value in every box that contains it.

    Args:
        seed: each seed gives a different tissue.
        voxel_size_nm: (z, y, x) in nm. The tissue is defined in nanometres, so it does not depend on the voxel size.
            Noise is defined per voxel and the defects of sections per section, so these do; shifts of sections are
            whole voxels.

    Raises:
        InputError: the voxel size is not three positive numbers; or, from the methods, a box reaches more than 95 mm
            from the origin.
    """

    seed: int
    voxel_size_nm: tuple[float, float, float] = (30.0, 8.0, 8.0)

    def __post_init__(self) -> None:
        size = tuple(float(v) for v in self.voxel_size_nm)
        if len(size) != 3 or not all(0 < v < np.inf for v in size):
            raise InputError(f"voxel_size_nm is {self.voxel_size_nm}; expected three positive numbers: Z, Y, X in nm.")
        object.__setattr__(self, "voxel_size_nm", size)

    def image(self, box: Box) -> np.ndarray:
        """Image: (Z, Y, X) uint8; larger is brighter."""
        image = np.zeros(box.shape_zyx, np.uint8)
        rim, core = self._stamps(box)
        for part, tile in self._tiles(box):
            where = part.relative_to(box).slices
            image[where] = expose(self.seed, grey(tile, rim[where], core[where], self.seed), tile.grid, part)
        return image

    def synapses(self, box: Box) -> np.ndarray:
        """Polarity labels: (Z, Y, X) uint64; 2n - 1 is the presynaptic, 2n the postsynaptic side of n, else 0."""
        return self._truth(box, lambda tile: tile.polarity, organelles=False)

    def clefts(self, box: Box) -> np.ndarray:
        """Labels of synaptic clefts: (Z, Y, X) uint64; n in the cleft of synapse n, else 0."""
        return self._truth(box, lambda tile: tile.cleft, organelles=False)

    def mitochondria(self, box: Box) -> np.ndarray:
        """Labels of mitochondria: (Z, Y, X) uint64; n in mitochondrion n, else 0."""
        return self._truth(box, lambda tile: tile.mitochondrion)

    def neurites(self, box: Box) -> np.ndarray:
        """Labels of neurites: (Z, Y, X) uint64; never 0, as voxels of a membrane belong to the nearer neurite."""
        return self._truth(box, lambda tile: tile.partition.neurite, sites=False, organelles=False)

    def objects(self, box: Box) -> np.ndarray:
        """All contacts and organelles whose centre is in the box. Shifts of sections are not taken into account.

        Returns:
            (N,) structured array of dtype ``OBJECT``: ``id``, uint64, the n of the labels, unique among contacts and
            among organelles; ``kind``, text, from ``sites.KINDS`` or ``organelles.KINDS``; ``centre_zyx``, float64,
            absolute voxels.
        """
        low, high = self._bounds(box, 0)
        contacts = sites_.sites_in(self.seed, low, high)
        bodies = organelles_.organelles_in(self.seed, low, high)
        table = np.zeros(len(contacts) + len(bodies), OBJECT)
        table["id"] = np.concatenate([contacts.id, bodies.id])
        table["kind"] = [sites_.KINDS[k] for k in contacts.kind] + [organelles_.KINDS[k] for k in bodies.kind]
        table["centre_zyx"] = np.concatenate([contacts.centre, bodies.centre]) / self.voxel_size_nm - 0.5
        return table

    def _truth(
        self, box: Box, read: Callable[[Tile], np.ndarray], sites: bool = True, organelles: bool = True
    ) -> np.ndarray:
        """Labels of a box; ``read`` takes them from a tile, and what they do not need is not drawn."""
        labels = np.zeros(box.shape_zyx, np.uint64)
        for part, tile in self._tiles(box, sites, organelles):
            labels[part.relative_to(box).slices] = read(tile)
        return labels

    def _bounds(self, box: Box, margin_nm: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Corners of a box in tissue nm, extended by a margin; as tuples, because they become keys of caches."""
        corners = np.array([box.offset_zyx, box.stop_zyx]) * np.array(self.voxel_size_nm)
        if np.abs(corners).max() > _END_NM:
            raise InputError(
                f"box {box} reaches beyond {_END_NM / 1e6:.0f} mm from the origin, where the tissue ends; move it."
            )
        low = tuple(float(o * v - margin_nm) for o, v in zip(box.offset_zyx, self.voxel_size_nm, strict=True))
        high = tuple(float(o * v + margin_nm) for o, v in zip(box.stop_zyx, self.voxel_size_nm, strict=True))
        return low, high

    def _grid(self, box: Box) -> Grid:
        """Positions of the voxels of a box, with the shifts of its sections."""
        z, y, x = (np.arange(o, o + s) for o, s in zip(box.offset_zyx, box.shape_zyx, strict=True))
        shift = shift_yx(self.seed, z, self.voxel_size_nm)
        dz, dy, dx = self.voxel_size_nm
        return Grid((z + 0.5) * dz, (y + shift[:, :1] + 0.5) * dy, (x + shift[:, 1:] + 0.5) * dx)

    def _stamps(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """The vesicles of a box, drawn; see ``stamps.stamp``."""
        vesicles = vesicles_near(self.seed, *self._bounds(box, MAX_SHIFT_NM + 2 * _SITE_REACH_NM))
        return stamp(vesicles, self._grid(box), self.voxel_size_nm)

    def _tiles(self, box: Box, sites: bool = True, organelles: bool = True) -> Iterator[tuple[Box, Tile]]:
        """Divide a box into tiles and draw them. Yields the part of the box that a tile covers, and the tile."""
        if box.num_voxels == 0:
            return
        # The label of a synapse ends before those of its neighbours, so the neighbours are needed as well.
        contacts = sites_.sites_in(self.seed, *self._bounds(box, MAX_SHIFT_NM + 3 * _SITE_REACH_NM + APART_NM))
        bodies = organelles_.organelles_in(self.seed, *self._bounds(box, MAX_SHIFT_NM + _ORGANELLE_REACH_NM))
        rods = rods_near(self.seed, *(np.array(v) for v in self._bounds(box, MAX_SHIFT_NM)))
        for part, origin_nm in self._parts(box):
            tile = self._tile(part, origin_nm, rods)
            for i in _touching(contacts.centre, contacts.reach, tile.grid) if sites else ():
                draw_site(tile, contacts, i)
            for i in _touching(bodies.centre, bodies.half_length + bodies.radius, tile.grid) if organelles else ():
                draw_organelle(tile, bodies, i)
            yield part, tile

    def _parts(self, box: Box) -> Iterator[tuple[Box, np.ndarray]]:
        """Parts of a box in a grid of tiles that is fixed in space, and the origin of each tile in tissue nm."""
        first = [o // t * t for o, t in zip(box.offset_zyx, _TILE_ZYX, strict=True)]
        for block in grid(Box.from_corners(first, box.stop_zyx), _TILE_ZYX):
            origin_nm = np.array(block.write_box.offset_zyx) * np.array(self.voxel_size_nm)
            part = block.write_box.intersection(box)
            if part.num_voxels:
                yield part, origin_nm

    def _tile(self, part: Box, origin_nm: np.ndarray, rods: Rods) -> Tile:
        """A tile with neurites and membranes only."""
        voxels = self._grid(part)
        neurites = partition(rods, warp_grid(self.seed, voxels, origin_nm), origin_nm)
        return Tile.blank(voxels, neurites, self.voxel_size_nm[0])


def _touching(centre: np.ndarray, reach: np.ndarray, grid_: Grid) -> np.ndarray:
    """Indices of the objects, with centres (N, 3) and reaches (N,) in nm, that may extend into a tile."""
    low = np.array([axis.min() for axis in (grid_.z, grid_.y, grid_.x)])
    high = np.array([axis.max() for axis in (grid_.z, grid_.y, grid_.x)])
    return np.flatnonzero(((centre >= low - reach[:, None]) & (centre <= high + reach[:, None])).all(axis=1))
