"""From a URI to a volume, by the table of formats; our own formats are entered here.

driver       open for reading                            create for writing
hdf5         FILE.h5:DATASET, .hdf5, .hdf                .h5 and the others
tiff         .tif, .tiff, .btf                           .tif (OME-TIFF, BigTIFF) and the others
images       a folder with one TIFF, PNG or JPEG a section  no
npy          .npy                                        no
nifti        .nii, .nii.gz                               no
zarr         .zarr, or a folder with Zarr metadata       .zarr (OME-Zarr 0.4)
n5           .n5, or a folder with N5 metadata           no
precomputed  .precomputed, or a folder with an info file .precomputed
synthetic    synthetic://seed=...                        no
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import InputError, VolumeError
from twostream.base.geometry import Box
from twostream.volume._hdf5 import Hdf5Volume, create_hdf5, has_dataset
from twostream.volume._n5 import is_n5, open_n5
from twostream.volume._nifti import NiftiVolume
from twostream.volume._npy import NpyVolume, refuse_npz
from twostream.volume._precomputed import create_precomputed, is_precomputed, open_precomputed
from twostream.volume._stack import StackVolume, is_stack
from twostream.volume._synthetic import SyntheticVolume
from twostream.volume._tiff import TiffVolume, create_tiff
from twostream.volume._zarr import create_zarr, is_zarr, open_zarr
from twostream.volume.formats import FORMATS, Format, register_format
from twostream.volume.location import ForbiddenError
from twostream.volume.part import PartVolume
from twostream.volume.uri import LIKE_PART, Uri
from twostream.volume.volume import Volume

register_format(
    "hdf5",
    Hdf5Volume,
    suffixes=(".h5", ".hdf5", ".hdf"),
    create=create_hdf5,
    default_dataset="main",  # the name under which this field's single-dataset files store their array
)
register_format("zarr", open_zarr, suffixes=(".zarr",), create=create_zarr, recognises=is_zarr, default_dataset="")
register_format("n5", open_n5, suffixes=(".n5",), recognises=is_n5, default_dataset="")
register_format(
    "precomputed",
    open_precomputed,
    suffixes=(".precomputed",),
    create=create_precomputed,
    recognises=is_precomputed,
    default_dataset="",
)
register_format("tiff", TiffVolume, suffixes=(".tif", ".tiff", ".btf"), create=create_tiff, default_dataset="")
register_format("npy", NpyVolume, suffixes=(".npy",))
register_format("npz", refuse_npz, suffixes=(".npz",))
register_format("nifti", NiftiVolume, suffixes=(".nii", ".nii.gz"))
register_format("images", StackVolume, recognises=is_stack)
register_format("synthetic", SyntheticVolume, is_path=False)


PART_HINT = " A part of a volume is named by a box at the very end: URI[Z0:Z1,Y0:Y1,X0:X1]."


def open_volume(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
    """Open a volume for reading.

    Args:
        uri: ``file.h5:dataset``, ``path.zarr``, ``path.n5:dataset``, ``precomputed://path``, ``synthetic://seed=...``,
            or ``driver://path`` of a registered format; the path may be remote, and a part may be named (``uri.py``).
        voxel_size_nm: (z, y, x) in nm, for files that do not state it; must agree with those that do.

    Raises:
        VolumeError: nothing there, another format, no voxel size, two that disagree, or a part that is no box inside.
    """
    parsed = Uri.parse(uri)
    if parsed.part:
        return PartVolume(open_volume(str(replace(parsed, part="")), voxel_size_nm), _part(parsed))
    found = FORMATS.get(parsed.driver)
    if found is None and not parsed.has_scheme and not (parsed.is_remote and "." in parsed.path.rpartition("/")[2]):
        found = next((f for f in FORMATS.values() if f.recognises and f.recognises(parsed.path)), None)
    if found is None:
        hint = PART_HINT if LIKE_PART.search(uri) else ""
        raise VolumeError(f"cannot tell the format of {uri!r}; expected {_expected(FORMATS.values())}.{hint}")
    try:
        volume = found.open(str(parsed), voxel_size_nm)
    except VolumeError as error:
        if LIKE_PART.search(uri):
            error.args = (f"{error}{PART_HINT}",)
        raise
    if 0 in volume.shape_zyx:
        raise VolumeError(f"{volume.uri} holds no voxels: its shape is {volume.shape_zyx} (Z, Y, X). Write it again.")
    return volume


def _part(parsed: Uri) -> Box:
    """The box of a URI that names one."""
    if "[" in parsed.part:
        raise VolumeError(f"{parsed} names a part of a part; name one box, in voxels of the whole.")
    try:
        return Box.parse(parsed.part)
    except InputError as error:
        raise VolumeError(f"the part of {parsed}: {error}") from None


def open_ignore_mask(uri: str, voxel_size_nm: Sequence[float] | None = None) -> Volume | None:
    """The companion of a label volume that marks voxels which count neither as object nor as background, 1 = ignore.

    It stands beside the labels as ``<name>_ignore``: the dataset ``labels_ignore`` in the same HDF5 file, Zarr or N5
    folder, else the file or folder ``x_ignore.tif``, ``x_ignore.zarr``, ``sections_ignore/``.

    Returns:
        None where there is no such volume.

    Raises:
        VolumeError: there is one, and it cannot be opened.
    """
    parsed = Uri.parse(uri)
    if parsed.driver in FORMATS and not FORMATS[parsed.driver].is_path:
        return None
    beside = _ignored_inside(parsed) or _ignored_beside(parsed)
    if beside is None:
        return None
    if not parsed.is_remote:
        return open_volume(beside, voxel_size_nm)
    try:
        return open_volume(beside, voxel_size_nm)
    except ForbiddenError:
        return None  # some servers say so of files that are not there
    except VolumeError as error:
        if "is not found" in str(error) or "holds no" in str(error):
            return None
        raise


def _ignored_inside(parsed: Uri) -> str | None:
    """URI of the dataset ``<dataset>_ignore`` in the same file or folder, if there is one, or if it cannot be told."""
    beside = replace(parsed, dataset=f"{parsed.dataset}_ignore")
    if parsed.driver == "hdf5":
        return str(beside) if has_dataset(str(beside)) else None
    if parsed.driver not in ("zarr", "n5") or not parsed.dataset:
        return None
    return str(beside) if parsed.is_remote or Path(parsed.path, beside.dataset).is_dir() else None


def _ignored_beside(parsed: Uri) -> str | None:
    """URI of the file or folder ``<name>_ignore``, if there is one, or if it cannot be told."""
    path = parsed.path.rstrip("/")
    name = path.rpartition("/")[2]
    suffixes = FORMATS[parsed.driver].suffixes if parsed.driver in FORMATS else ()
    ending = max((s for s in suffixes if name.lower().endswith(s)), key=len, default="")
    stem, ending = path[: len(path) - len(ending)], path[len(path) - len(ending) :]
    if stem.lower().endswith(".ome"):
        stem, ending = stem[:-4], stem[-4:] + ending
    beside = replace(parsed, path=f"{stem}_ignore{ending}")
    return str(beside) if parsed.is_remote or Path(beside.path).exists() else None


def create_volume(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> Volume:
    """Create a volume for writing, zero until written.

    Args:
        uri: as for ``open_volume``, of a format that can be created; nothing may be there. ``.partial`` behind the
            ending is overlooked: a folder is written under that name first, and renamed once it is whole.
        shape_zyx: voxels.
        dtype: of the voxels.
        voxel_size_nm: (z, y, x) in nm.
        num_channels: 0 for (Z, Y, X), else C for (C, Z, Y, X).
        offset_nm: (z, y, x) in nm of the corner of the first voxel; None: the volume states no place.

    Raises:
        VolumeError: the target exists, or its format is not known or cannot be created.
    """
    parsed = Uri.parse(uri.removesuffix(".partial"))
    if parsed.part:
        raise VolumeError(f"cannot create {uri!r}; only reading can be limited to a part. Leave out [{parsed.part}].")
    found = FORMATS.get(parsed.driver)
    if found is None or found.create is None:
        creatable = [f for f in FORMATS.values() if f.create]
        what = f"{found.driver} is only read; " if found else ""
        raise VolumeError(f"cannot create {uri!r}; {what}expected {_expected(creatable)}.")
    return found.create(
        uri,
        shape_zyx=shape_zyx,
        dtype=np.dtype(dtype),
        voxel_size_nm=voxel_size_nm,
        num_channels=num_channels,
        offset_nm=offset_nm,
    )


def continue_volume(uri: str) -> Volume:
    """Open a Zarr array that ``create_volume`` made, to go on writing it.

    Raises:
        VolumeError: there is none.
    """
    return open_zarr(uri, writable=True)


def _expected(formats: Iterable[Format]) -> str:
    """The endings and drivers of ``formats``, for an error."""
    known = sorted(formats, key=lambda f: f.driver)
    suffixes = ", ".join(suffix for f in known for suffix in f.suffixes)
    return f"a path that ends in one of {suffixes}, or one of the drivers {', '.join(f.driver + '://' for f in known)}"
