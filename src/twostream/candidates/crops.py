"""Random crops of the raw image, without end: what the unsupervised stream learns from (Lin 2020: "all raw images").

Crop k is a function of the seed and of k. The places where a crop may lie are put in one row, block by block in a
shuffled order, where a block is what is read of the volume at once. The row is cut into pieces of equal length, and one
crop lies at a random place of each piece. So every place is equally probable, a block gets as many crops as it has
places for, and every block has its turn before any has a second one. That is a *pass*; the next one shuffles anew.

Crops are cut in groups, so that a chunk is decoded once for all crops of a group that need it, and the crops of a group
are shuffled. Memory holds two groups, the one in use and the next one, which a thread reads ahead; each has at most
``MAX_GROUP_BYTES``, and ``MAX_WINDOW_BYTES`` more while it is cut.

Knows volumes and patches; must not know candidates, torch or projects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.patches import PatchConfig
from twostream.candidates.sampling import Sampler
from twostream.volume import Volume, read_shape, read_windows

CROPS_PER_BLOCK = 16
"""Crops of a block in one pass. With more, less is read for every crop; with fewer, the crops of a batch are less
alike. At 16, a crop of 128 pixels costs two thirds of a chunk in decoded bytes (docs/streams.md)."""
MAX_CROPS_PER_GROUP = 2048
"""Crops that are cut at once: those of 128 blocks, so that a batch of 256 has about two of each."""
MAX_GROUP_BYTES = 1 << 27
"""Crops of a group, in bytes; wide patches of many planes make smaller groups."""
MAX_WINDOW_BYTES = 1 << 26
"""Windows of voxels that are in memory while crops are cut from them."""
MAX_BLOCKS = 1 << 20
"""Blocks that are shuffled; larger volumes have larger blocks."""


class RandomCrops:
    """Crops at random places of a volume. A crop never leaves the volume in plane, as published.

    Along Z every section is the central one of a crop equally often; planes above the first section and below the last
    are mirrored. A volume that is narrower than a crop is mirrored, too.

    Args:
        volume: the (Z, Y, X) uint8 image; another thread reads it.
        config: width and planes of a crop.
        pixel_size_nm: size of a pixel in nm, used if ``config.pixel_size_nm`` is None.
        seed: of the places and angles.
        turned: whether crops are cut at random angles. If not, they are cut along the axes of the volume at whole
            voxels; where a pixel is a voxel, a crop is then a plain slice of the volume, as published.
    """

    def __init__(self, volume: Volume, config: PatchConfig, pixel_size_nm: float, seed: int, *, turned: bool) -> None:
        self._arguments = volume, config, pixel_size_nm, seed, turned
        self._volume, self._config, self._seed, self._turned = volume, config, seed, turned
        self._sampler = Sampler.of(volume, config, pixel_size_nm)
        self.extent_zyx = self._sampler.extent_zyx(turned=turned)
        """Voxels (z, y, x) of the window that a crop is cut from."""
        depth, *plane = volume.shape_zyx
        in_plane = list(zip(plane, self.extent_zyx[1:], strict=True))
        self._places_zyx = np.array([depth, *(max(1, size - extent + 1) for size, extent in in_plane)])
        self._first_zyx = np.array([-(self.extent_zyx[0] // 2), *(min(0, (s - e) // 2) for s, e in in_plane)])
        self._block_zyx = _block_shape(read_shape(volume), self._places_zyx)
        self._grid_zyx = -(-self._places_zyx // self._block_zyx)
        self.crops_per_pass = CROPS_PER_BLOCK * math.prod(self._grid_zyx.tolist())
        patch_bytes = config.num_planes * config.width_px**2
        self.crops_per_group = max(1, min(MAX_CROPS_PER_GROUP, MAX_GROUP_BYTES // patch_bytes))
        self._group: tuple[int, np.ndarray] | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[np.ndarray]] | None = None

    def __reduce__(self) -> Any:
        # Crops in memory and the thread stay here: another process cuts its own.
        *positional, turned = self._arguments
        return _again, (tuple(positional), turned)

    def __call__(self, number: int) -> np.ndarray:
        """Crop ``number`` of the sequence, (P, W, W) uint8."""
        group, row = divmod(number, self.crops_per_group)
        if self._group is None or self._group[0] != group:
            self._group = group, self._taken(group)
        return self._group[1][row]

    def _taken(self, group: int) -> np.ndarray:
        """The crops of a group, read ahead or cut now; the next group is begun."""
        ahead, self._ahead, self._group = self._ahead, None, None  # the old group is freed before a third is begun
        crops = ahead[1].result() if ahead and ahead[0] == group else self.cut(group)
        self._reader = self._reader or ThreadPoolExecutor(1, "read crops ahead")
        self._ahead = group + 1, self._reader.submit(self.cut, group + 1)
        return crops

    def cut(self, group: int) -> np.ndarray:
        """The crops of a group, (``crops_per_group``, P, W, W) uint8."""
        corners_zyx, angles, order = self.places(group)
        config, z_extent = self._config, self.extent_zyx
        center = [(extent - 1) / 2 for extent in z_extent]
        result = np.empty((len(order), config.num_planes, config.width_px, config.width_px), np.uint8)
        for row, window in self._windows(corners_zyx):
            smooth = self._sampler.smoothed(window)
            result[order[row]] = self._sampler.sample(smooth, center, float(angles[row]), cv2.INTER_LINEAR)
        return result

    def places(self, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the crops of a group lie.

        Args:
            group: number of the group.

        Returns:
            (G, 3) int64, first voxel (z, y, x) of each window of ``extent_zyx`` voxels, block by block; (G,) angles in
            degrees; (G,) int64, the row that the crop of each window has in the group.
        """
        rng = np.random.default_rng([self._seed, 1, group])
        number = group * self.crops_per_group + np.arange(self.crops_per_group)
        jitter, order = rng.random(len(number)), rng.permutation(len(number))
        angles = rng.uniform(-180, 180, len(number)) if self._turned else np.zeros(len(number))
        passes, piece = np.divmod(number, self.crops_per_pass)
        parts = [self._places_of_pass(int(p), (piece + jitter)[passes == p]) for p in np.unique(passes)]
        return np.concatenate(parts) + self._first_zyx, angles, order

    def _places_of_pass(self, number: int, at: np.ndarray) -> np.ndarray:
        """Places (z, y, x), counted from the first one along each axis, of the pieces ``at`` of a pass, (n, 3)."""
        grid = [int(n) for n in self._grid_zyx]
        order = np.random.default_rng([self._seed, 0, number]).permutation(math.prod(grid))
        axes = zip(self._places_zyx, self._block_zyx, grid, strict=True)
        lengths = [np.minimum(block, places - block * np.arange(n)) for places, block, n in axes]
        index = np.unravel_index(order, grid)
        length = np.stack([of_axis[i] for of_axis, i in zip(lengths, index, strict=True)], 1)
        ends = np.cumsum(length.prod(1))
        # One random number per piece decides the block and the place in it.
        place = np.minimum((at / self.crops_per_pass * ends[-1]).astype(np.int64), ends[-1] - 1)
        block = np.searchsorted(ends, place, side="right")
        inside = place - ends[block] + length[block].prod(1)
        inside, x = np.divmod(inside, length[block, 2])
        z, y = np.divmod(inside, length[block, 1])
        return np.stack(index, 1)[block] * self._block_zyx + np.stack([z, y, x], 1)

    def _windows(self, corners_zyx: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(row, window of voxels) of every crop; as many are read at once as ``MAX_WINDOW_BYTES`` allow."""
        at_once = max(1, MAX_WINDOW_BYTES // math.prod(self.extent_zyx))
        for first in range(0, len(corners_zyx), at_once):
            boxes = [Box(tuple(corner), self.extent_zyx) for corner in corners_zyx[first : first + at_once].tolist()]
            for row, window in read_windows(self._volume, boxes):
                yield first + row, window


def _again(arguments: tuple[Any, ...], turned: bool) -> RandomCrops:
    return RandomCrops(*arguments, turned=turned)


def _block_shape(read_zyx: tuple[int, int, int], places_zyx: np.ndarray) -> np.ndarray:
    """Places (z, y, x) of a block: what is read at once, or a multiple of it in volumes with very many blocks."""
    block = np.array(read_zyx)
    while (count := -(-places_zyx // block)).prod() > MAX_BLOCKS:
        block[int(count.argmax())] *= 2
    return block
