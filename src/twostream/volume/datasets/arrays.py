"""Arrays in and out, a few sections at a time: HDF5, zip archives and pictures; what does not fit is a sentence.

Knows formats; must not know any particular data set.
"""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError

SLAB = 8
"""Sections that are written at once, one chunk thick on disk: with sections of 4096 x 4096, 1.2 GB of memory in all."""
CHUNK_PX = 128


def store(file: h5py.File, name: str, sections: Iterable[np.ndarray], shape_zyx: Sequence[int], dtype: Any) -> None:
    """Write (Y, X) ``sections`` as a (Z, Y, X) dataset, a slab at a time; raises InputError where one has another size.

    What the sections do not reach stays 0.
    """
    chunks = tuple(min(s, c) for s, c in zip(shape_zyx, (SLAB, CHUNK_PX, CHUNK_PX), strict=True))
    dataset = file.create_dataset(name, shape=tuple(shape_zyx), dtype=dtype, chunks=chunks, compression=1)
    slab: list[np.ndarray] = []
    start = 0
    with progress.task(name, total=shape_zyx[0]) as advance:
        for section in sections:
            if section.shape != tuple(shape_zyx[1:]):
                at, expected = start + len(slab), tuple(shape_zyx[1:])
                raise InputError(f"section {at} of {name} has {section.shape} pixels, expected {expected}.")
            slab.append(section)
            if len(slab) == SLAB:
                dataset[start : start + SLAB] = np.stack(slab)
                start, slab = start + SLAB, []
                advance(SLAB)
        if slab:
            dataset[start : start + len(slab)] = np.stack(slab)
            advance(len(slab))


def as_grey(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` if it holds grey values; raises InputError."""
    if array.dtype != np.uint8:
        raise InputError(f"{source} holds {array.dtype}; expected grey values, uint8. Is it the image?")
    return array


def as_labels(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` as uint32 labels; raises InputError."""
    if array.dtype.kind not in "uib" or (array.size and (int(array.min()) < 0 or int(array.max()) >= 2**32)):
        raise InputError(f"{source} holds {array.dtype} that are no labels; expected whole numbers from 0 to 2^32 - 1.")
    return array.astype(np.uint32)


def slabs(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Sections of an HDF5 dataset, read a slab at a time."""
    for start in range(0, dataset.shape[0], SLAB):
        yield from dataset[start : start + SLAB]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"{path} is no HDF5 file: {' '.join(str(error).split())}. Delete it and fetch it again; some servers send "
            f"a page of text in its place."
        ) from None
    with file:
        yield file


def arrays_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) and o.ndim == 3 else None)
    return names


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """An archive and its members, all of which stay inside; raises InputError. Members are read, never unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            for name in names:
                parts = name.replace("\\", "/").split("/")
                if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                    raise InputError(f"{path} holds {name!r}, which would land outside its folder; not opened.")
            yield archive, [n for n in names if "__MACOSX" not in n and not n.rpartition("/")[2].startswith(".")]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is no whole zip archive: {error}. Delete it and fetch it again.") from None


def some_of(names: Sequence[str]) -> str:
    """A few of ``names``, for an error message."""
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "nothing"


def one_channel(array: np.ndarray, source: str) -> np.ndarray:
    """A picture whose colours are alike, as (Y, X); raises InputError."""
    if array.ndim == 2:
        return array
    if not (array[..., :3] == array[..., :1]).all():
        raise InputError(f"{source} is coloured, shape {array.shape}; expected grey values or labels, one channel.")
    return np.ascontiguousarray(array[..., 0])
