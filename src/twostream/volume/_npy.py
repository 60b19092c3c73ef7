"""NumPy's .npy files as volumes: mapped into memory on this machine, read by byte ranges elsewhere.

They state neither axes nor voxel size: the order is (Z, Y, X) or (C, Z, Y, X), and the voxel size is told.

Knows .npy; must not know what the voxels show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.axes import Axes
from twostream.volume.byte_files import FlatArray, check_is_file, open_bytes
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size


class NpyVolume(Volume):
    """An array of a .npy file, opened for reading.

    Args:
        uri: ``x.npy``, or ``npy://path`` for another ending.
        voxel_size_nm: (z, y, x) in nm.

    Raises:
        VolumeError: there is no such file, it is damaged, an archive (.npz), or holds Python objects or no volume.
        NoVoxelSizeError: the voxel size is not passed.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        parsed = Uri.parse(uri)
        self.uri = str(parsed)
        check_is_file(parsed.path, "FILE.npy")
        shape, fortran, dtype, offset = _header(parsed.path, self.uri)
        if dtype.kind not in "uifb":
            what = "Python objects" if dtype.hasobject else f"{dtype}"
            raise VolumeError(f"{self.uri} holds {what}; expected whole numbers or floats. Convert it: array.astype(...).")
        self._axes, self._fortran = Axes.understand(shape, None, self.uri), fortran
        # An array in Fortran order is its transpose in C order.
        self._flat = FlatArray(parsed.path, offset, dtype, shape[::-1] if fortran else shape)
        self.dtype = dtype.newbyteorder("=")
        self.num_channels, self.shape_zyx = self._axes.num_channels, self._axes.shape_zyx
        self.voxel_size_nm = agreed_voxel_size(None, voxel_size_nm, self.uri, "file (.npy has no place for it)")
        self.metadata = Metadata(self._axes.names, notes=self._axes.notes)

    def _read(self, box: Box) -> np.ndarray:
        index = self._axes.cut(box)
        found = self._flat.read(index[::-1]).transpose() if self._fortran else self._flat.read(index)
        return self._axes.turn(found)

    def __reduce__(self) -> Any:
        return NpyVolume, (self.uri, self.voxel_size_nm)


def refuse_npz(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
    """Archives of arrays cannot be read in parts.

    Raises:
        VolumeError: always.
    """
    raise VolumeError(
        f"{uri} is an archive of arrays, of which no part can be read by itself. Save the one array with "
        f"numpy.save('NAME.npy', array)."
    )


def _header(path: str, uri: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether in Fortran order, dtype, byte of the first element)."""
    with open_bytes(path) as file:
        try:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            return tuple(int(n) for n in shape), fortran and len(shape) > 1, np.dtype(dtype), int(file.tell())
        except (ValueError, EOFError, OSError) as error:
            raise VolumeError(f"{uri} cannot be read as .npy: {str(error).rstrip('.')}.") from None
