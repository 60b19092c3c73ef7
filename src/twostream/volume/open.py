"""From a URI to a volume: the one place that chooses a format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume._hdf5 import Hdf5Volume, has_dataset, is_hdf5, split_uri
from twostream.volume._synthetic import SyntheticVolume
from twostream.volume._zarr import ZarrVolume, create_zarr
from twostream.volume.volume import Volume


def open_volume(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
    """Open a volume for reading.

    Args:
        uri: ``file.h5:dataset``, ``zarr://path`` or ``path.zarr``, or ``synthetic://seed=...``.
        voxel_size_nm: (z, y, x) in nm, for files that do not state it; must agree with those that do.

    Raises:
        VolumeError: nothing there, another format, no voxel size, or two that disagree.
    """
    if uri.startswith("synthetic://"):
        return SyntheticVolume(uri)
    if is_hdf5(uri):
        return Hdf5Volume(*split_uri(uri), voxel_size_nm)
    if uri.startswith("zarr://") or uri.rstrip("/").endswith(".zarr") or _is_inside_zarr(uri):
        return ZarrVolume(Path(uri.removeprefix("zarr://")), voxel_size_nm)
    raise VolumeError(f"cannot tell the format of {uri!r}; expected FILE.h5:DATASET, a .zarr folder or synthetic://...")


def open_ignore_mask(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume | None:
    """The companion of a label volume that marks voxels which count neither as object nor as background.

    In HDF5 it stands beside the labels as ``<dataset>_ignore``, 1 = ignore; None where there is no such dataset.
    """
    if not is_hdf5(uri):
        return None
    path, dataset = split_uri(uri)
    if not has_dataset(path, f"{dataset}_ignore"):
        return None
    return Hdf5Volume(path, f"{dataset}_ignore", voxel_size_nm)


def create_volume(
    uri: str, *, shape_zyx: Sequence[int], dtype: Any, voxel_size_nm: Sequence[float], num_channels: int = 0
) -> Volume:
    """Create a volume for writing: a ``.zarr`` folder, OME-Zarr 0.4, zero until written.

    Args:
        uri: path that ends in ``.zarr``; must not exist.
        shape_zyx: voxels.
        dtype: of the voxels.
        voxel_size_nm: (z, y, x) in nm.
        num_channels: 0 for (Z, Y, X), else C for (C, Z, Y, X).

    Raises:
        VolumeError: the target exists, or has another format.
    """
    path = uri.removeprefix("zarr://")
    if not path.rstrip("/").endswith((".zarr", ".partial")):
        raise VolumeError(f"cannot create {uri!r}; expected a path that ends in .zarr.")
    return create_zarr(Path(path), shape_zyx, np.dtype(dtype), voxel_size_nm, num_channels)


def _is_inside_zarr(uri: str) -> bool:
    path = Path(uri)
    return path.is_dir() and any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json"))
