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

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.volume.volume import Volume, check_voxel_size


class Hdf5Volume(Volume):
    """A dataset of an HDF5 file, opened for reading.

    Args:
        path: the HDF5 file.
        dataset: name of the dataset in it.
        voxel_size_nm: (z, y, x) in nm, needed if the file does not state it; must agree with the file if it does.

    Raises:
        VolumeError: there is no such file or dataset, its shape is neither (Z, Y, X) nor (C, Z, Y, X), or the two voxel
            sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, path: Path, dataset: str, voxel_size_nm: Sequence[float] | None) -> None:
        self.uri = f"{path}:{dataset}"
        self._open(path, dataset)
        shape = self._dataset.shape
        self.num_channels = shape[0] if len(shape) == 4 else 0
        z, y, x = shape[-3:]
        self.shape_zyx = (z, y, x)
        self.dtype = self._dataset.dtype
        if self._dataset.chunks:
            cz, cy, cx = self._dataset.chunks[-3:]
            self.chunk_shape_zyx = (cz, cy, cx)
        self.voxel_size_nm = self._voxel_size(voxel_size_nm)

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

    def _voxel_size(self, given: Sequence[float] | None) -> tuple[float, float, float]:
        stored = None
        for attributes in (self._dataset.attrs, self._file.attrs):
            for name in ("voxel_size_nm", "resolution"):
                if stored is None and name in attributes:
                    stored = check_voxel_size(np.asarray(attributes[name]).tolist(), self.uri)
        if given is None and stored is None:
            raise NoVoxelSizeError(
                f"{self.uri} states no voxel size (attribute voxel_size_nm or resolution); "
                f"pass --voxel-size Z,Y,X in nanometres."
            )
        if given is None:
            assert stored is not None
            return stored
        checked = check_voxel_size(given, "--voxel-size")
        if stored is not None and not np.allclose(stored, checked, rtol=1e-3):
            swapped = " Z and X look swapped." if np.allclose(stored[::-1], checked, rtol=1e-3) else ""
            raise VolumeError(
                f"{self.uri} says its voxels are {stored} nm, --voxel-size says {checked} (Z, Y, X).{swapped} "
                f"Omit the option, or correct the attribute in the file."
            )
        return checked

    def _read(self, box: Box) -> np.ndarray:
        try:
            return self._dataset[(..., *box.slices)] if self.num_channels else self._dataset[box.slices]
        except OSError as error:
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {error}.") from None

    def __reduce__(self) -> Any:
        # An open file cannot be pickled: another process opens the file again.
        return Hdf5Volume, (Path(self._file.filename), self._dataset.name.lstrip("/"), self.voxel_size_nm)


def has_dataset(path: Path, dataset: str) -> bool:
    """Whether ``path`` is a file that holds an HDF5 dataset of this name."""
    if not path.is_file():
        return False
    with h5py.File(path, "r") as file:
        return isinstance(file.get(dataset), h5py.Dataset)
