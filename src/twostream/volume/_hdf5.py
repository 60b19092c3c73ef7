"""HDF5 datasets as volumes, addressed as ``file.h5:dataset``.

Without a dataset ``main`` is meant; where there is none and the file holds one volume only, that one. Behind a server a
file is read by byte ranges.

Where the attributes of the dataset, or else of its group or the file, say it:

    voxel size   voxel_size_nm; resolution or voxel_size, in units or nm; element_size_um: one number per axis as stored
    place        offset or voxel_offset (z, y, x of the first voxel), the first in the unit of the voxel size
    axes         axis_names, axes or axistags, or labels on the dataset's dimensions

Knows HDF5; must not know what the voxels show.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.attributes import Attributes
from twostream.volume.axes import Axes
from twostream.volume.byte_files import check_is_file, is_remote, open_bytes
from twostream.volume.chunked import chunks_of
from twostream.volume.uri import Uri, listed
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size, check_voxel_size

DEFAULT_DATASET = "main"
"""The name under which this field's files with a single dataset store it."""
CACHE_BYTES = 64 * 2**20
"""Of decoded chunks, for each open dataset."""
CACHE_SLOTS = 10_007
"""A prime number of about a hundred slots for each chunk that fits, as the HDF5 library recommends."""
FILTERS = {32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32013: "ZFP", 32015: "Zstandard",
           32017: "SZ", 32019: "FCIDECOMP", 32023: "SZ3", 32026: "Blosc2", 307: "BZIP2"}  # fmt: skip
"""Numbers of filters whose plug-ins the package hdf5plugin has, mostly."""
STANDARD_FILTERS = {1: "deflate (gzip)", 2: "shuffle", 3: "Fletcher32", 4: "SZIP", 5: "N-Bit", 6: "scale-offset"}


class Hdf5Volume(Volume):
    """A dataset of an HDF5 file.

    Args:
        uri: ``file.h5:dataset``, or ``hdf5://file:dataset`` for a file with another ending.
        voxel_size_nm: (z, y, x) in nm, needed if the file does not state it; must agree with the file if it does.
        writable: whether ``write`` is allowed.

    Raises:
        VolumeError: there is no such file or dataset, it is damaged, locked, or compressed with a filter that is not
            installed, its axes cannot be understood (``axes.Axes``), or the two voxel sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False) -> None:
        parsed = Uri.parse(uri)
        self._writable = writable
        self._file = _open_file(parsed.path, writable)
        self._dataset, notes = _dataset_of(self._file, parsed)
        self.uri = str(replace(parsed, dataset=self._dataset.name.strip("/")))
        _check(self._dataset, self.uri)
        stored = Attributes([self._dataset.attrs, *_holders(self._dataset)], self.uri)
        names = stored.axis_names() or _dimension_labels(self._dataset)
        self._axes = Axes.understand(self._dataset.shape, names, self.uri)
        self.num_channels, self.shape_zyx = self._axes.num_channels, self._axes.shape_zyx
        self.dtype = self._dataset.dtype.newbyteorder("=")
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
            (*notes, *_of_matlab(self._dataset, names is not None), *self._axes.notes),
        )

    def _read(self, box: Box) -> np.ndarray:
        try:
            found = self._dataset[self._axes.cut(box)]
        except Exception as error:  # the HDF5 library and clients of servers raise errors of every kind
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {_reason(error, self._dataset)}") from None
        return self._axes.turn(found.astype(self.dtype, copy=False))

    def _write(self, box: Box, array: np.ndarray) -> None:
        if not self._writable:
            super()._write(box, array)
        if not array.size:
            return
        try:
            self._dataset[self._axes.cut(box)] = self._axes.turn_back(array)
            self._file.flush()  # so that others read it, and a killed process leaves a whole file
        except (OSError, RuntimeError, ValueError) as error:
            raise VolumeError(f"{self.uri}: box {box} cannot be written: {error}.") from None

    def num_absent_chunks(self) -> tuple[int, int] | None:
        """See ``Volume``; None for a dataset in one piece, or behind a server."""
        if not self._dataset.chunks or is_remote(Uri.parse(self.uri).path):
            return None
        total = math.prod(-(-n // c) for n, c in zip(self._dataset.shape, self._dataset.chunks, strict=True))
        return total - int(self._dataset.id.get_num_chunks()), total

    def __reduce__(self) -> Any:
        # An open file cannot be pickled: another process opens the file again.
        return _reopen, (self.uri, self.voxel_size_nm, self._writable)


def _reopen(uri: str, voxel_size_nm: Sequence[float], writable: bool) -> Hdf5Volume:
    return Hdf5Volume(uri, voxel_size_nm, writable=writable)


# -- opening ----------------------------------------------------------------------------------------------------------


def _open_file(path: str, writable: bool) -> h5py.File:
    """The file; for reading without a lock where another program has locked it or the file system cannot lock.

    Raises:
        VolumeError: it is not there, may not be read, or is no whole HDF5 file.
    """
    check_is_file(path, "FILE.h5:DATASET")
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # makes its filters known to h5py
    cache = {"rdcc_nbytes": CACHE_BYTES, "rdcc_nslots": CACHE_SLOTS}
    try:
        if is_remote(path):
            return h5py.File(open_bytes(path), "r", **cache)
        if writable:
            return h5py.File(path, "r+", **cache)
        try:
            return h5py.File(path, "r", **cache)
        except OSError as error:
            if "lock" not in str(error):
                raise
            return h5py.File(path, "r", locking=False, **cache)  # another program holds it, or the disk has no locks
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(f"{path} cannot be opened as HDF5: {_open_reason(error)}") from None


def _open_reason(error: Exception) -> str:
    text = str(error)
    if "truncated" in text:
        return "it is truncated, or was not closed by the program that wrote it. Copy or write it again."
    if "file signature not found" in text:
        return "it is no HDF5 file, or its beginning is damaged. Check the path."
    if "already open for write" in text or "consistency flags" in text or "unable to lock" in text:
        return "another program writes it, or was stopped while it did. Close it there; h5clear -s FILE unlocks it."
    return f"{text.rstrip('.') or type(error).__name__}."


def _dataset_of(file: h5py.File, parsed: Uri) -> tuple[h5py.Dataset, list[str]]:
    """(the dataset that is meant, notes).

    Raises:
        VolumeError: there is no such dataset, a group is named, or several datasets are there and none is named.
    """
    wanted = parsed.dataset
    try:
        item = file.get(wanted)
    except Exception as error:
        raise VolumeError(f"{parsed} cannot be opened: {_open_reason(error)}") from None
    if isinstance(item, h5py.Dataset):
        return item, []
    link = file.get(wanted, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        where = getattr(link, "filename", "") or "the same file"
        raise VolumeError(f"{parsed} is a link to {link.path} in {where}, which is not there. Put the file beside it.")
    group = item if isinstance(item, h5py.Group) else file
    names = _volumes(group)
    inside = group is not file
    if wanted == DEFAULT_DATASET or inside:
        if len(names) == 1:
            found = file[names[0]]
            return found, [
                f"dataset {names[0]} is taken: {'the group' if inside else 'the file'} holds no other volume"
            ]
        if inside:
            raise VolumeError(f"{parsed} is a group{listed(parsed.path, names, '')}")
    if not names:
        raise VolumeError(f"{parsed.path} holds no dataset {wanted!r}; it holds: none.")
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else f" Name one as {parsed.path}:{names[0]}."
    raise VolumeError(f"{parsed.path} holds no dataset {wanted!r}; it holds: {', '.join(names[:20])}.{hint}")


def _volumes(group: h5py.Group) -> list[str]:
    """Names, from the root of the file, of datasets of three axes and more in a group and its groups.

    Where there are none, of all datasets.
    """
    found: list[tuple[str, int]] = []

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((str(item.name).strip("/"), item.ndim))

    group.visititems(note)
    return [name for name, ndim in found if ndim >= 3] or [name for name, _ in found]


def _holders(dataset: h5py.Dataset) -> list[Any]:
    """Attributes of the groups that hold a dataset, the nearest first, and last of the file."""
    levels, group = [], dataset.parent
    while group.name not in (None, "/"):
        levels.append(group.attrs)
        group = group.parent
    return [*levels, dataset.file.attrs]


def _check(dataset: h5py.Dataset, uri: str) -> None:
    """Raise VolumeError unless a dataset holds numbers that can be read here."""
    kind = dataset.dtype.kind
    if dataset.shape is None or (kind not in "uifb" and h5py.check_enum_dtype(dataset.dtype) is None):
        raise VolumeError(f"{uri} holds {dataset.dtype}; expected whole numbers or floats.")
    _check_filters(dataset, uri)
    if dataset.is_virtual:
        folder = Path(dataset.file.filename).parent
        sources = {source.file_name for source in dataset.virtual_sources()}
        gone = sorted(name for name in sources if name != "." and not (folder / name).exists())
        if gone:
            raise VolumeError(
                f"{uri} is put together from {len(sources)} files, of which {len(gone)} are missing: {gone[0]}"
                f"{' and more' if len(gone) > 1 else ''}. They would read as {dataset.fillvalue}. Put them beside it."
            )


def _check_filters(dataset: h5py.Dataset, uri: str) -> None:
    """Raise VolumeError, with the package that is missing, if a chunk cannot be decompressed."""
    missing = _missing_filter(dataset)
    if missing is not None:
        number, name = missing
        known = STANDARD_FILTERS.get(number) or FILTERS.get(number) or name or f"filter {number}"
        if number in FILTERS:
            advice = "Install the package hdf5plugin: pip install hdf5plugin"
        else:
            advice = "Find the plug-in of this filter, or write the file with gzip"
        raise VolumeError(f"{uri} is compressed with {known} (HDF5 filter {number}), which is not installed. {advice}.")


def _missing_filter(dataset: h5py.Dataset) -> tuple[int, str] | None:
    """(number, name) of the first filter of a dataset that cannot decode here; None if all can."""
    settings = dataset.id.get_create_plist()
    for position in range(settings.get_nfilters()):
        number, _, _, name = settings.get_filter(position)
        if not h5py.h5z.filter_avail(number):
            return int(number), name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return None


def _reason(error: Exception, dataset: h5py.Dataset) -> str:
    """Why a box cannot be read, as a sentence."""
    text = str(error)
    if "truncated" in text or "addr overflow" in text or "eof" in text.lower():
        return "the file is truncated. Copy or write it again."
    if "filter" in text or "inflate" in text or "decompress" in text:
        return f"a chunk cannot be decompressed ({text}). The file is damaged; copy or write it again."
    return f"{text.rstrip('.') or type(error).__name__}."


def _of_matlab(dataset: h5py.Dataset, named: bool) -> list[str]:
    """A note where MATLAB wrote the dataset and nothing names its axes: MATLAB stores them in reverse."""
    if named or "MATLAB_class" not in dataset.attrs:
        return []
    return [
        "MATLAB wrote it, which stores axes in reverse: an array (A, B, C) of MATLAB is read as Z = C, Y = B, X = A"
    ]


def _dimension_labels(dataset: h5py.Dataset) -> list[str] | None:
    """Labels of the dataset's dimensions; None unless all have one."""
    labels = [dimension.label for dimension in dataset.dims]
    return labels if labels and all(labels) else None


def has_dataset(uri: str) -> bool:
    """Whether ``uri`` names a dataset of an HDF5 file that is there."""
    parsed = Uri.parse(uri)
    if not is_remote(parsed.path) and not Path(parsed.path).is_file():
        return False
    with _open_file(parsed.path, False) as file:
        return isinstance(file.get(parsed.dataset), h5py.Dataset)


# -- writing ----------------------------------------------------------------------------------------------------------


def create_hdf5(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> Hdf5Volume:
    """Create an HDF5 file with one dataset in compressed chunks; for the arguments see ``create_volume``.

    The voxel size is written as ``voxel_size_nm`` and, for other tools, as ``resolution`` with ``units``.

    Raises:
        VolumeError: something is there already, or the file cannot be written.
    """
    parsed = Uri.parse(uri)
    size = check_voxel_size(voxel_size_nm, uri)
    if is_remote(parsed.path):
        raise VolumeError(f"{uri} cannot be written; expected a path of this machine.")
    if os.path.lexists(parsed.path):
        raise VolumeError(f"{parsed.path} exists already; remove it or choose another name.")
    z, y, x = (int(n) for n in shape_zyx)
    shape, chunk = [z, y, x], chunks_of(shape_zyx)
    names = ["z", "y", "x"]
    if num_channels:
        shape, chunk, names = [num_channels, *shape], [1, *chunk], ["c", *names]
    try:
        with h5py.File(parsed.path, "w-") as file:
            made = file.create_dataset(
                parsed.dataset or DEFAULT_DATASET, tuple(shape), np.dtype(dtype), chunks=tuple(chunk),
                compression="gzip", compression_opts=1,
            )  # fmt: skip
            made.attrs.update({"voxel_size_nm": size, "resolution": size, "units": "nm", "axis_names": names})
            if offset_nm is not None:
                made.attrs["offset"] = [float(v) for v in offset_nm]
            for dimension, name in zip(made.dims, names, strict=True):
                dimension.label = name
    except (OSError, ValueError, TypeError) as error:
        raise VolumeError(f"{parsed.path} cannot be created: {str(error).rstrip('.')}.") from None
    return Hdf5Volume(str(parsed), writable=True)
