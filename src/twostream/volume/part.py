"""A part of a volume, seen as a volume of its own.

Knows volumes and boxes; must not know formats, URIs or projects.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.volume import Volume

MAX_CHUNKS = 1000
"""Of which it is counted how many are stored; of more, so many are drawn."""


class PartVolume(Volume):
    """The voxels of a volume in one box. The box's first voxel is (0, 0, 0), and the place says where it lies.

    The part of a volume that states no place states none either: two wholes of which one states none lie on each other,
    and so must their parts.

    Args:
        volume: (Z, Y, X) or (C, Z, Y, X).
        part: its box, in voxels of ``volume``.

    Raises:
        VolumeError: the box reaches outside the volume.
    """

    def __init__(self, volume: Volume, part: Box) -> None:
        if not volume.box.contains(part):
            raise VolumeError(
                f"{volume.uri} holds {volume.box} (Z, Y, X voxels), and the part [{part}] reaches outside. Name a box "
                f"inside."
            )
        self._volume, self.part = volume, part
        self.uri = f"{volume.uri}[{part}]"
        self.shape_zyx, self.num_channels, self.dtype = part.shape_zyx, volume.num_channels, volume.dtype
        self.voxel_size_nm, self.chunk_shape_zyx = volume.voxel_size_nm, volume.chunk_shape_zyx
        if volume.offset_nm is not None:
            places = zip(volume.offset_nm, part.offset_zyx, volume.voxel_size_nm, strict=True)
            z, y, x = (place + start * size for place, start, size in places)
            self.offset_nm = (z, y, x)
        note = f"it is the part {part} of {volume.box}; voxels count from the corner of the part"
        self.metadata = replace(volume.metadata, notes=(*volume.metadata.notes, note))

    def _read(self, box: Box) -> np.ndarray:
        return self._volume.read(box.shifted(self.part.offset_zyx))

    def is_stored(self, box: Box) -> bool:
        return self._volume.is_stored(box.shifted(self.part.offset_zyx))

    def num_absent_chunks(self) -> tuple[int, int] | None:
        if self.chunk_shape_zyx is None:
            return None
        first = [start // size for start, size in zip(self.part.offset_zyx, self.chunk_shape_zyx, strict=True)]
        stop = [-(-end // size) for end, size in zip(self.part.stop_zyx, self.chunk_shape_zyx, strict=True)]
        counts = [b - a for a, b in zip(first, stop, strict=True)]
        num = math.prod(counts)
        drawn = range(num) if num <= MAX_CHUNKS else np.random.default_rng(0).choice(num, MAX_CHUNKS, replace=False)
        places = zip(*np.unravel_index(np.asarray(drawn), counts), strict=True)
        absent = 0
        for place in places:
            corner = [int(a + i) * size for a, i, size in zip(first, place, self.chunk_shape_zyx, strict=True)]
            chunk = Box((corner[0], corner[1], corner[2]), self.chunk_shape_zyx).intersection(self.part)
            absent += not self._volume.is_stored(chunk)
        return absent, len(drawn)

    def __reduce__(self) -> Any:
        return PartVolume, (self._volume, self.part)
