"""HDF5 datasets as volumes, addressed as ``file.h5:dataset``.

Where the attributes of the dataset, or else of the file, say it:

    voxel size   voxel_size_nm; resolution or voxel_size, in units or nm; element_size_um: one number per axis as stored
    place        offset or voxel_offset (z, y, x of the first voxel), the first in the unit of the voxel size
    axes         axis_names, axes or axistags, or labels on the dataset's dimensions

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
from twostream.volume.attributes import Attributes
from twostream.volume.axes import Axes
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size


class Hdf5Volume(Volume):
    """A dataset of an HDF5 file, opened for reading.

    Args:
        uri: ``file.h5:dataset``, or ``hdf5://file:dataset`` for a file with another ending.
        voxel_size_nm: (z, y, x) in nm, needed if the file does not state it; must agree with the file if it does.

    Raises:
        VolumeError: there is no such file or dataset, its axes cannot be understood (``axes.Axes``), or the two voxel
            sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        parsed = Uri.parse(uri)
        self.uri = str(parsed)
        self._open(Path(parsed.path), parsed.dataset)
        stored = Attributes([self._dataset.attrs, self._dataset.parent.attrs, self._file.attrs], self.uri)
        names = stored.axis_names() or _dimension_labels(self._dataset)
        self._axes = Axes.understand(self._dataset.shape, names, self.uri)
        self.num_channels, self.shape_zyx = self._axes.num_channels, self._axes.shape_zyx
        self.dtype = self._dataset.dtype
        if self._dataset.chunks:
            cz, cy, cx = (int(n) for n in self._axes.zyx(self._dataset.chunks))
            self.chunk_shape_zyx = (cz, cy, cx)
        size = stored.voxel_size(self._axes)
        self.voxel_size_nm = agreed_voxel_size(
            size and size[0], voxel_size_nm, self.uri, "attributes voxel_size_nm or resolution"
        )
        offset = stored.offset(self._axes, self.voxel_size_nm)
        self.offset_nm = offset and offset[0]
        self.metadata = Metadata(
            self._axes.names,
            "attributes" if names else "",
            f"attribute {size[1]}" if size else "",
            f"attribute {offset[1]}" if offset else "",
            self._axes.notes,
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
        self._dataset = item

    def _read(self, box: Box) -> np.ndarray:
        try:
            return self._axes.turn(self._dataset[self._axes.cut(box)])
        except OSError as error:
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {error}.") from None

    def __reduce__(self) -> Any:
        # An open file cannot be pickled: another process opens the file again.
        return Hdf5Volume, (self.uri, self.voxel_size_nm)


def _dimension_labels(dataset: h5py.Dataset) -> list[str] | None:
    """Labels of the dataset's dimensions; None unless all have one."""
    labels = [dimension.label for dimension in dataset.dims]
    return labels if labels and all(labels) else None


def has_dataset(uri: str) -> bool:
    """Whether ``uri`` names a dataset of an HDF5 file that is there."""
    parsed = Uri.parse(uri)
    if not Path(parsed.path).is_file():
        return False
    with h5py.File(parsed.path, "r") as file:
        return isinstance(file.get(parsed.dataset), h5py.Dataset)
