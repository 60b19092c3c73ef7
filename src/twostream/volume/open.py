"""From a URI to a volume: the one place that chooses a format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume._hdf5 import Hdf5Volume, has_dataset
from twostream.volume._synthetic import SyntheticVolume
from twostream.volume._zarr import ZarrVolume, create_zarr
from twostream.volume.uri import Uri
from twostream.volume.volume import Volume


def open_volume(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
    """Open a volume for reading.

    Args:
        uri: ``file.h5:dataset``, ``zarr://path`` or ``path.zarr``, or ``synthetic://seed=...``.
        voxel_size_nm: (z, y, x) in nm, for files that do not state it; must agree with those that do.

    Raises:
        VolumeError: nothing there, another format, no voxel size, or two that disagree.
    """
    parsed = Uri.parse(uri)
    if parsed.driver == "synthetic":
        return SyntheticVolume(uri)
    if parsed.driver == "hdf5":
        return Hdf5Volume(Path(parsed.path), parsed.dataset, voxel_size_nm)
    if parsed.driver == "zarr" or (not parsed.has_scheme and _is_inside_zarr(parsed.path)):
        return ZarrVolume(Path(parsed.path), voxel_size_nm)
    raise VolumeError(f"cannot tell the format of {uri!r}; expected FILE.h5:DATASET, a .zarr folder or synthetic://...")


def open_ignore_mask(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume | None:
    """The companion of a label volume that marks voxels which count neither as object nor as background.

    In HDF5 it stands beside the labels as ``<dataset>_ignore``, 1 = ignore; None where there is no such dataset.
    """
    parsed = Uri.parse(uri)
    if parsed.driver != "hdf5" or not has_dataset(Path(parsed.path), f"{parsed.dataset}_ignore"):
        return None
    return Hdf5Volume(Path(parsed.path), f"{parsed.dataset}_ignore", voxel_size_nm)


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
    path = Uri.parse(uri).path
    if not path.rstrip("/").endswith((".zarr", ".partial")):
        raise VolumeError(f"cannot create {uri!r}; expected a path that ends in .zarr.")
    return create_zarr(Path(path), shape_zyx, np.dtype(dtype), voxel_size_nm, num_channels)


def _is_inside_zarr(folder: str) -> bool:
    path = Path(folder)
    return path.is_dir() and any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json"))
