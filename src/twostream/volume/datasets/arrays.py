"""Reading and writing HDF5 files, zip archives and images a few sections at a time, with checks of what they contain.

Knows file formats; must not know any particular data set.
"""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError

Paths = Mapping[str, Path]
"""Paths of the downloads by file name."""
Convert = Callable[[Paths, str, h5py.File], Sequence[float] | None]
"""(downloads, name of the volume, HDF5 file to fill) -> voxel size (z, y, x) in nm, or None.

The returned voxel size is the one that the downloads state; None if they state none. Raises ``InputError`` if they do
not contain what was expected."""
SLAB = 8
"""Sections read or written at once, and chunk size along Z. With sections of 4096 x 4096, conversion needs 1.2 GB."""
CHUNK_PX = 128
"""Chunk size along Y and X, in pixels."""


def write_sections(
    file: h5py.File, name: str, sections: Iterable[np.ndarray], shape_zyx: Sequence[int], dtype: Any
) -> None:
    """Write sections as one compressed HDF5 dataset, ``SLAB`` sections at a time.

    Args:
        file: HDF5 file, open for writing.
        name: name of the new dataset.
        sections: (Y, X) arrays in the order of Z. If there are fewer than Z of them, the rest of the dataset is 0.
        shape_zyx: shape of the dataset.
        dtype: dtype of the dataset.

    Raises:
        InputError: a section has another shape than (Y, X).
    """
    chunks = tuple(min(s, c) for s, c in zip(shape_zyx, (SLAB, CHUNK_PX, CHUNK_PX), strict=True))
    dataset = file.create_dataset(name, shape=tuple(shape_zyx), dtype=dtype, chunks=chunks, compression=1)
    slab: list[np.ndarray] = []
    start = 0
    with progress.task(name, total=shape_zyx[0]) as advance:
        for section in sections:
            if section.shape != tuple(shape_zyx[1:]):
                z, expected = start + len(slab), tuple(shape_zyx[1:])
                raise InputError(f"section {z} of {name} has {section.shape} pixels (Y, X), expected {expected}.")
            slab.append(section)
            if len(slab) == SLAB:
                dataset[start : start + SLAB] = np.stack(slab)
                start, slab = start + SLAB, []
                advance(SLAB)
        if slab:
            dataset[start : start + len(slab)] = np.stack(slab)
            advance(len(slab))


def as_grey(array: np.ndarray, source: str) -> np.ndarray:
    """Return ``array`` if its dtype is uint8, the dtype of all images here.

    Raises:
        InputError: another dtype; the message names ``source``.
    """
    if array.dtype != np.uint8:
        raise InputError(f"{source} holds {array.dtype}; expected grey values, uint8. Is this file the image?")
    return array


def as_labels(array: np.ndarray, source: str) -> np.ndarray:
    """Convert integer labels to uint32.

    Raises:
        InputError: the values are not whole numbers from 0 to 2^32 - 1; the message names ``source``.
    """
    if array.dtype.kind not in "uib" or (array.size and (int(array.min()) < 0 or int(array.max()) >= 2**32)):
        raise InputError(
            f"{source} holds {array.dtype} values that cannot be labels; expected whole numbers from 0 to 2^32 - 1."
        )
    return array.astype(np.uint32)


def read_sections(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield the (Y, X) sections of a (Z, Y, X) HDF5 dataset, reading ``SLAB`` of them at a time."""
    for start in range(0, dataset.shape[0], SLAB):
        yield from dataset[start : start + SLAB]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises:
        InputError: the file is not HDF5.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"{path} is not an HDF5 file: {' '.join(str(error).split())}. Delete it and fetch it again; some servers "
            f"send an HTML page instead of the file."
        ) from None
    with file:
        yield file


def array_names(file: h5py.File) -> list[str]:
    """Names of all datasets with three axes, in any group of the file."""
    names: list[str] = []
    file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) and o.ndim == 3 else None)
    return names


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """Open a zip archive for reading.

    Yields:
        The archive, and the names of its files, without hidden files and the metadata that macOS adds. A caller that
        writes one of them to disk must choose the path itself.

    Raises:
        InputError: the archive is damaged, or a member has a name that would be written outside the archive's folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            for name in names:
                parts = name.replace("\\", "/").split("/")
                if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                    raise InputError(
                        f"{path} holds {name!r}, which would be written outside its folder; the archive is not used."
                    )
            yield archive, [n for n in names if "__MACOSX" not in n and not n.rpartition("/")[2].startswith(".")]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is not a complete zip archive: {error}. Delete it and fetch it again.") from None


def first_few(names: Sequence[str]) -> str:
    """The first eight names and the number of the others, for an error message."""
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "nothing"


def one_channel(array: np.ndarray, source: str) -> np.ndarray:
    """Convert an image file's array, (Y, X) or (Y, X, C), to (Y, X); its colour channels must be equal.

    Raises:
        InputError: the colour channels differ; the message names ``source``.
    """
    if array.ndim == 2:
        return array
    if not (array[..., :3] == array[..., :1]).all():
        raise InputError(
            f"{source} is a colour image, shape {array.shape}; expected one channel of grey values or labels."
        )
    return np.ascontiguousarray(array[..., 0])
