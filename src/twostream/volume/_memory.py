"""A volume that is an array in memory, for tests and for small intermediate results.

Knows arrays; must not know files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.volume import Metadata, Volume, check_voxel_size


class MemoryVolume(Volume):
    """A volume backed by a NumPy array.

    Args:
        array: (Z, Y, X) or (C, Z, Y, X), any dtype; not copied, so ``write`` changes it.
        voxel_size_nm: (z, y, x) in nm.
        uri: name of the volume in error messages.
        offset_nm: (z, y, x) in nm of the corner of the first voxel; None if it has no place.

    Raises:
        VolumeError: the array has another number of axes, or the voxel size is not valid.
    """

    def __init__(
        self,
        array: np.ndarray,
        voxel_size_nm: Sequence[float],
        uri: str = "memory://",
        *,
        offset_nm: Sequence[float] | None = None,
    ) -> None:
        if array.ndim not in (3, 4):
            raise VolumeError(f"{uri}: got an array of shape {array.shape}; expected (Z, Y, X) or (C, Z, Y, X).")
        self.uri = uri
        self._array = array
        self.num_channels = array.shape[0] if array.ndim == 4 else 0
        z, y, x = array.shape[-3:]
        self.shape_zyx = (z, y, x)
        self.voxel_size_nm = check_voxel_size(voxel_size_nm, uri)
        if offset_nm is not None:
            oz, oy, ox = (float(v) for v in offset_nm)
            self.offset_nm = (oz, oy, ox)
        self.dtype = array.dtype
        self.metadata = Metadata(("c", "z", "y", "x")[-array.ndim :])

    def _read(self, box: Box) -> np.ndarray:
        return self._array[(..., *box.slices)].copy()

    def _write(self, box: Box, array: np.ndarray) -> None:
        self._array[(..., *box.slices)] = array
