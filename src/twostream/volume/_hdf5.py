"""HDF5 datasets as volumes, addressed as ``file.h5:dataset``. The axes in the file are (Z, Y, X) or (C, Z, Y, X).

The voxel size, (z, y, x) in nm, is read from the attribute ``voxel_size_nm`` or ``resolution`` of the dataset, or else
of the file (``docs/contracts.md``, section Files).

Knows HDF5; must not know what the voxels show.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.uri import Uri
from twostream.volume.volume import Volume, agreed_voxel_size


class Hdf5Volume(Volume):
    """A dataset of an HDF5 file, opened for reading.

    Args:
        uri: ``file.h5:dataset``, or ``hdf5://file:dataset`` for a file with another ending.
        voxel_size_nm: (z, y, x) in nm, needed if the file does not state it; must agree with the file if it does.

    Raises:
        VolumeError: there is no such file or dataset, its shape is neither (Z, Y, X) nor (C, Z, Y, X), or the two voxel
            sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        parsed = Uri.parse(uri)
        self.uri = str(parsed)
        self._open(Path(parsed.path), parsed.dataset)
        shape = self._dataset.shape
        self.num_channels = shape[0] if len(shape) == 4 else 0
        z, y, x = shape[-3:]
        self.shape_zyx = (z, y, x)
        self.dtype = self._dataset.dtype
        if self._dataset.chunks:
            cz, cy, cx = self._dataset.chunks[-3:]
            self.chunk_shape_zyx = (cz, cy, cx)
        self.voxel_size_nm = agreed_voxel_size(
            self._stored_voxel_size(), voxel_size_nm, self.uri, "attributes voxel_size_nm or resolution"
        )

    def _open(self, path: Path, dataset: str) -> None:
        if not path.is_file():
            raise VolumeError(f"{path} does not exist; check the path (the URI has the form FILE.h5:DATASET).")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise VolumeError(f"{path} cannot be opened as HDF5: {error}.") from None
        item = self._file.get(dataset)
        if not isinstance(item, h5py.Dataset):
            names: list[str] = []
            self._file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None)
            near = difflib.get_close_matches(dataset, names, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise VolumeError(f"{path} holds no dataset {dataset!r}; it holds: {', '.join(names) or 'none'}.{hint}")
        if item.ndim not in (3, 4):
            raise VolumeError(f"{self.uri} has shape {item.shape}; expected (Z, Y, X) or (C, Z, Y, X).")
        self._dataset = item

    def _stored_voxel_size(self) -> list[float] | None:
        for attributes in (self._dataset.attrs, self._file.attrs):
            for name in ("voxel_size_nm", "resolution"):
                if name in attributes:
                    return list(np.atleast_1d(attributes[name]).tolist())
        return None

    def _read(self, box: Box) -> np.ndarray:
        try:
            return self._dataset[(..., *box.slices)] if self.num_channels else self._dataset[box.slices]
        except OSError as error:
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {error}.") from None

    def __reduce__(self) -> Any:
        # An open file cannot be pickled: another process opens the file again.
        return Hdf5Volume, (self.uri, self.voxel_size_nm)


def has_dataset(uri: str) -> bool:
    """Whether ``uri`` names a dataset of an HDF5 file that is there."""
    parsed = Uri.parse(uri)
    if not Path(parsed.path).is_file():
        return False
    with h5py.File(parsed.path, "r") as file:
        return isinstance(file.get(parsed.dataset), h5py.Dataset)
