"""CREMI: one HDF5 file per sample, with raw image and clefts.

Knows the layout of the files and the meaning of their labels; must not know where the files come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from twostream.base.errors import InputError
from twostream.volume.datasets.arrays import (
    Paths,
    array_names,
    as_grey,
    first_few,
    open_hdf5,
    read_sections,
    write_sections,
)

CLEFT_BACKGROUND = np.uint64(0xFFFFFFFFFFFFFFFF)
CLEFT_UNKNOWN = (np.uint64(0xFFFFFFFFFFFFFFFD), np.uint64(0xFFFFFFFFFFFFFFFE))
"""Values that CREMI reserves: its public scoring code ignores voxels with these two, and the highest is background."""


def cremi(files: Paths, volume: str, file: h5py.File) -> Sequence[float] | None:
    """Convert a CREMI sample, one HDF5 file with raw image and clefts.

    In padded samples the labels are smaller than the image; their attribute ``offset``, in nm, says where they lie.
    """
    (path,) = files.values()
    with open_hdf5(path) as sample:
        wanted = ("volumes/raw", "volumes/labels/clefts")
        raw, clefts = (sample.get(name) for name in wanted)
        if not isinstance(raw, h5py.Dataset) or not isinstance(clefts, h5py.Dataset):
            raise InputError(
                f"{path} holds {first_few(array_names(sample))}; expected {' and '.join(wanted)}. The test samples "
                f"(A+, B+, C+) have no public labels."
            )
        size = raw.attrs.get("resolution")
        shift: tuple[int, ...] = (0, 0, 0)
        if size is not None and "offset" in clefts.attrs:
            shift = tuple(round(float(o) / float(s)) for o, s in zip(clefts.attrs["offset"], size, strict=True))
        stop = [o + n for o, n in zip(shift, clefts.shape, strict=True)]
        if min(shift) < 0 or any(b > s for b, s in zip(stop, raw.shape, strict=True)):
            raise InputError(
                f"{path}: the labels ({clefts.shape} voxels at {shift}) reach outside the image of {raw.shape} voxels."
            )
        highest, has_background, has_unknown = _scan_clefts(clefts)
        grey = (as_grey(section, f"{path}:volumes/raw") for section in read_sections(raw))
        write_sections(file, "image", grey, raw.shape, np.uint8)
        labelled = _Region(raw.shape, shift, clefts.shape)
        # If the reserved value for background occurs, 0 is an ordinary id and needs another number.
        zero = np.uint64(highest + 1 if has_background else 0)

        def ids(section: np.ndarray) -> np.ndarray:
            known = np.where(section >= min(CLEFT_UNKNOWN), np.uint64(0), section)
            return np.where(section == 0, zero, known).astype(np.uint32)

        numbered = map(ids, read_sections(clefts))
        write_sections(file, "clefts", labelled.padded(numbered, 0, np.uint32), raw.shape, np.uint32)
        if has_unknown or clefts.shape != raw.shape:
            unknown = (np.isin(section, CLEFT_UNKNOWN).astype(np.uint8) for section in read_sections(clefts))
            write_sections(file, "clefts_ignore", labelled.padded(unknown, 1, np.uint8), raw.shape, np.uint8)
        return None if size is None else [float(v) for v in size]


def _scan_clefts(clefts: h5py.Dataset) -> tuple[int, bool, bool]:
    """Find the largest id, and whether the reserved values for background and for unknown occur.

    Raises:
        InputError: an id is too large for uint32.
    """
    highest, has_background, has_unknown = 0, False, False
    for section in read_sections(clefts):
        values = section[section < min(CLEFT_UNKNOWN)]
        highest = max(highest, int(values.max()) if values.size else 0)
        has_background |= bool((section == CLEFT_BACKGROUND).any())
        has_unknown |= bool(np.isin(section, CLEFT_UNKNOWN).any())
    if highest >= 2**32 - 1:
        raise InputError(
            f"{clefts.file.filename}: a cleft has the id {highest}; expected ids below 2^32 - 1, and 2^64 - 1 for "
            f"background."
        )
    return highest, has_background, has_unknown


@dataclass(frozen=True)
class _Region:
    """Where a smaller volume lies in a larger one.

    Attributes:
        outer: shape (z, y, x) of the larger volume.
        shift: first voxel (z, y, x) of the smaller volume in it.
        shape: shape (z, y, x) of the smaller volume.
    """

    outer: tuple[int, int, int]
    shift: tuple[int, ...]
    shape: tuple[int, int, int]

    def padded(self, sections: Iterable[np.ndarray], fill: int, dtype: Any) -> Iterator[np.ndarray]:
        """Yield the sections of the larger volume, given those of the smaller one; voxels outside it are ``fill``."""
        inner = iter(sections)
        z, y, x = self.shift
        for index in range(self.outer[0]):
            section = np.full(self.outer[1:], fill, dtype)
            if z <= index < z + self.shape[0]:
                section[y : y + self.shape[1], x : x + self.shape[2]] = next(inner)
            yield section
