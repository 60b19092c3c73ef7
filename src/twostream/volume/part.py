"""A part of a volume, seen as a volume of its own.

Knows volumes and boxes; must not know formats, URIs or projects.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.volume import Volume


class PartVolume(Volume):
    """The voxels of a volume in one box. The box's first voxel is (0, 0, 0), and the place says where it lies.

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
        places = zip(volume.offset_nm or (0.0, 0.0, 0.0), part.offset_zyx, volume.voxel_size_nm, strict=True)
        z, y, x = (place + start * size for place, start, size in places)
        self.offset_nm = (z, y, x)
        facts = volume.metadata
        note = f"the part {part} of {volume.box} is read, and nothing else"
        self.metadata = replace(
            facts, offset_from=facts.offset_from or "the part that is read", notes=(*facts.notes, note)
        )

    @property
    def as_stored(self) -> Volume:
        return self._volume.as_stored

    def _read(self, box: Box) -> np.ndarray:
        return self._volume.read(box.shifted(self.part.offset_zyx))

    def is_stored(self, box: Box) -> bool:
        return self._volume.is_stored(box.shifted(self.part.offset_zyx))

    def __reduce__(self) -> Any:
        return PartVolume, (self._volume, self.part)
