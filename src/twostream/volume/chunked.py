"""Arrays stored in chunks and read with tensorstore: what Zarr, N5 and Neuroglancer precomputed have in common.

A format reads its own metadata and says which tensorstore driver opens the array, how its axes are named, and where it
lies. Axes are turned once, when the array is opened: boxes are then read in the order Z, Y, X without a further copy.

Knows tensorstore; must not know the metadata of any format.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorstore

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.axes import Axes
from twostream.volume.location import ERRORS, Location, reason
from twostream.volume.volume import Metadata, Volume, VoxelSize

DEFAULT_CHUNK_ZYX = (16, 128, 128)
"""A quarter of a megabyte of uint8: large enough to compress well, small enough that reading one candidate is cheap."""
MAX_LISTED = 1_000_000
"""Chunks whose names are listed to see whether all are there; a local disk lists a million in about four seconds."""
MAX_ASKED, MAX_ASKED_REMOTE = 65_536, 2_048
"""Chunks that are looked for one by one where not all are there: some seconds of a disk, or of a server."""


class ChunkedVolume(Volume):
    """An array in chunks.

    Args:
        uri: that opens it again.
        location: folder of the array.
        spec: of the tensorstore driver, without the kvstore.
        axes: of the array as tensorstore sees it.
        voxel_size_nm: (z, y, x).
        offset_nm: (z, y, x) of the corner of the first voxel, or None.
        metadata: how these were understood.
        again: opens the volume in another process.
        writable: whether ``write`` is allowed.
        file_of: name of the file of a chunk in ``location``, from its slices, for drivers that cannot say themselves
            which chunks are stored.

    Raises:
        VolumeError: the array cannot be opened, or does not hold numbers.
    """

    def __init__(
        self,
        uri: str,
        location: Location,
        spec: dict[str, Any],
        axes: Axes,
        *,
        voxel_size_nm: VoxelSize,
        offset_nm: VoxelSize | None,
        metadata: Metadata,
        again: Callable[[], Volume],
        writable: bool = False,
        file_of: Callable[[tuple[slice, ...]], str] | None = None,
    ) -> None:
        self.uri, self.metadata = uri, metadata
        self.voxel_size_nm, self.offset_nm = voxel_size_nm, offset_nm
        self._location, self._again, self._writable, self._file_of = location, again, writable, file_of
        stored = location.open(spec)
        if tuple(stored.shape) != axes.shape:
            raise VolumeError(f"{uri} holds {tuple(stored.shape)} voxels, but its metadata say {axes.shape}.")
        self.dtype = np.dtype(stored.dtype.numpy_dtype)
        if self.dtype.kind not in "uifb":
            raise VolumeError(f"{uri} holds {self.dtype}; expected whole numbers or floats.")
        self.num_channels, self.shape_zyx = axes.num_channels, axes.shape_zyx
        # Sharded formats keep several chunks in one file. The unit of decoding is still the chunk.
        chunk = [c or n for c, n in zip(stored.chunk_layout.read_chunk.shape, stored.shape, strict=True)]
        cz, cy, cx = (int(n) for n in axes.zyx(chunk))
        self.chunk_shape_zyx = (cz, cy, cx)
        self._chunk, self._stored = chunk, stored[tensorstore.d[:].translate_to[0]]
        self._store: Any = axes.turn(self._stored[axes.cut(self.box)])

    def _read(self, box: Box) -> np.ndarray:
        try:
            found: np.ndarray = self._store[(..., *box.slices)].read().result(timeout=self._location.seconds)
        except ERRORS as error:
            why = reason(error, self._location.scheme)
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {why}") from None
        return found

    def _write(self, box: Box, array: np.ndarray) -> None:
        if not self._writable:
            super()._write(box, array)
        try:
            self._store[(..., *box.slices)].write(array).result(timeout=self._location.seconds)
        except ERRORS as error:
            why = reason(error, self._location.scheme)
            raise VolumeError(f"{self.uri}: box {box} cannot be written: {why}") from None

    def num_absent_chunks(self) -> tuple[int, int] | None:
        """See ``Volume``; exact up to ``MAX_ASKED`` chunks, else of a fixed sample.

        None behind http(s), where nothing can be listed.
        """
        grid = [-(-n // c) for n, c in zip(self._stored.shape, self._chunk, strict=True)]
        total = math.prod(grid)
        try:
            if self._file_of is not None:
                return self._not_listed(grid, total) if total <= MAX_LISTED else None
            if total <= MAX_LISTED and self._stored.storage_statistics(query_fully_stored=True).result().fully_stored:
                return 0, total
            asked = min(total, MAX_ASKED if self._location.is_local else MAX_ASKED_REMOTE)
            chunks = [self._stored[box] for box in _spread_chunks(grid, self._chunk, self._stored.shape, asked)]
            found = [chunk.storage_statistics(query_not_stored=True) for chunk in chunks]
            absent = sum(bool(one.result().not_stored) for one in found)
        except ERRORS:
            return None
        return max(1, absent) if total <= MAX_LISTED else absent, len(chunks)

    def is_stored(self, box: Box) -> bool:
        """See ``Volume``."""
        asked = self._store[(..., *box.slices)].storage_statistics(query_fully_stored=True)
        return bool(asked.result().fully_stored)

    def _not_listed(self, grid: list[int], total: int) -> tuple[int, int]:
        """(absent, all) by the names of the files."""
        assert self._file_of is not None
        names = self._location.names()
        boxes = _spread_chunks(grid, self._chunk, self._stored.shape, total)
        return sum(self._file_of(box) not in names for box in boxes), total

    def __reduce__(self) -> Any:
        # An open array cannot be pickled: another process opens it again.
        return _call, (self._again,)


def _call(again: Callable[[], Volume]) -> Volume:
    return again()


def _spread_chunks(grid: list[int], chunk: list[int], shape: Any, number: int) -> Iterator[tuple[slice, ...]]:
    """At most ``number`` chunks of a grid, spread evenly over it."""
    total = math.prod(grid)
    for position in np.unique(np.linspace(0, total - 1, min(total, number)).round().astype(np.int64)):
        index = np.unravel_index(int(position), grid)
        yield tuple(slice(int(i) * c, min((int(i) + 1) * c, n)) for i, c, n in zip(index, chunk, shape, strict=True))


def reopening(function: Callable[..., Volume], uri: str, voxel_size_nm: VoxelSize, writable: bool) -> Any:
    """What opens a volume again in another process."""
    return functools.partial(function, uri, voxel_size_nm, writable=writable)


def chunks_of(shape_zyx: Any) -> list[int]:
    """(z, y, x) of the chunks of a new volume."""
    return [min(c, int(s)) for c, s in zip(DEFAULT_CHUNK_ZYX, shape_zyx, strict=True)]
