"""TIFF files as volumes: multi-page, tiled, BigTIFF, ImageJ hyperstacks, OME-TIFF.

    x.tif       the file; if it holds several series (OME: images), x.tif:1 is the second one

What is read of a box are the strips or tiles that it touches; of uncompressed files, its bytes. What a file says of
itself: ``_tiff_metadata.py``. New files are BigTIFF, uncompressed, OME-TIFF (64-bit integers, which OME does not have:
tifffile's JSON), so that boxes can be written in any order.

Knows TIFF; must not know what the voxels show.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume._tiff_metadata import NAMESPACE, axes_of, stated
from twostream.volume.byte_files import FlatArray, allocate, check_is_file, is_remote
from twostream.volume.tiff_pages import PageReader, absent, check_page, heard, open_tiff_file, page_notes, segment_shape
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size, check_voxel_size

OME_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


class TiffVolume(Volume):
    """A series of a TIFF file.

    Args:
        uri: ``x.tif``, ``x.tif:1``, or ``tiff://path`` for another ending.
        voxel_size_nm: (z, y, x) in nm, needed if the file does not state it; must agree with the file if it does.
        writable: whether ``write`` is allowed; only of files that ``create_tiff`` made.

    Raises:
        VolumeError: there is no such file, it is damaged, its pages differ, hold colours or cannot be decoded, or the
            two voxel sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False) -> None:
        parsed = Uri.parse(uri)
        self.uri, self._path, self._writable = str(parsed), parsed.path, writable
        check_is_file(parsed.path, "FILE.tif")
        with heard(self.uri):
            tif = open_tiff_file(parsed.path, self.uri)
            number, series, notes = _series(tif, parsed.dataset, self.uri)
            pages = _pages(tif, series, self.uri)
            self._axes, more = axes_of(series, self.uri)
            said = stated(tif, series, number, self._axes, self.uri)
        page = pages[0].keyframe
        check_page(page, self.uri)
        self._pages, self._reader, self._flat = pages, PageReader(tif, self.uri), None
        self._stored = np.dtype(page.dtype).newbyteorder(tif.byteorder)
        self.dtype = self._stored.newbyteorder("=")
        offset = series.dataoffset if page.bitspersample >= 8 and page.predictor == 1 else None
        if offset is not None:
            self._flat = FlatArray(parsed.path, int(offset), self._stored, self._axes.shape, writable)
        elif writable:
            raise VolumeError(f"{self.uri} cannot be written: it is not stored in one piece.")
        self.num_channels, self.shape_zyx = self._axes.num_channels, self._axes.shape_zyx
        self.chunk_shape_zyx = None if self._flat is not None else self._chunk(page)
        self.voxel_size_nm = agreed_voxel_size(said.size, voxel_size_nm, self.uri, "metadata", said.why)
        self.offset_nm = said.offset
        notes = [*notes, *page_notes(page)]
        self.metadata = Metadata(
            self._axes.names,
            f"{series.kind} metadata" if self._axes.named else "",
            said.size_from,
            said.offset_from,
            (*notes, *more, *self._axes.notes, *said.notes),
        )

    def _chunk(self, page: Any) -> tuple[int, int, int]:
        """(z, y, x) voxels of a strip or tile."""
        tall, wide = segment_shape(page)
        z, y, x = self._axes.zyx([*[1] * (len(self._axes.shape) - 2), tall, wide])
        return int(z), int(y), int(x)

    def _read(self, box: Box) -> np.ndarray:
        index = self._axes.cut(box)
        if self._flat is not None:
            return self._axes.turn(self._flat.read(index))
        shape = self._axes.shape
        slices = [part if isinstance(part, slice) else slice(part, part + 1) for part in index]
        out = np.empty([part.stop - part.start for part in map(_closed, slices, shape)], self.dtype)
        rows, columns = (_closed(part, n) for part, n in zip(slices[-2:], shape[-2:], strict=True))
        starts = [_closed(part, n).start for part, n in zip(slices[:-2], shape[:-2], strict=True)]
        for place in np.ndindex(*out.shape[:-2]):
            lead = [a + p for a, p in zip(starts, place, strict=True)]
            number = int(np.ravel_multi_index(lead, shape[:-2])) if lead else 0
            self._reader.read(self._pages[number], out[place], rows, columns)
        return self._axes.turn(out[tuple(0 if isinstance(part, int) else slice(None) for part in index)])

    def _write(self, box: Box, array: np.ndarray) -> None:
        if not self._writable or self._flat is None:
            super()._write(box, array)
        else:
            self._flat.write(self._axes.cut(box), self._axes.turn_back(array))

    def num_absent_chunks(self) -> tuple[int, int] | None:
        """See ``Volume``; strips and tiles that the file leaves out."""
        return None if self._flat is not None else absent(self._pages)

    def __reduce__(self) -> Any:
        return _reopen, (self.uri, self.voxel_size_nm, self._writable)


def _reopen(uri: str, voxel_size_nm: Sequence[float], writable: bool) -> TiffVolume:
    return TiffVolume(uri, voxel_size_nm, writable=writable)


def _closed(part: slice, length: int) -> slice:
    start, stop, _ = part.indices(length)
    return slice(start, max(start, stop))


def _series(tif: tifffile.TiffFile, name: str, uri: str) -> tuple[int, Any, list[str]]:
    """(number, series, notes): the one that is named, or the only one.

    Raises:
        VolumeError: there are several and none is named, or no such one.
    """
    found = [s for s in tif.series if s.keyframe is not None and not s.keyframe.is_reduced]
    if not found:
        raise VolumeError(f"{uri} holds no image. Check the file.")
    notes = [] if len(found) == len(tif.series) else ["smaller copies of the image in the same file are passed over"]
    if any(level for series in found for level in series.levels[1:]):
        notes = ["smaller copies of the image in the same file are passed over"]
    if name:
        if not name.isdigit() or int(name) >= len(found):
            raise VolumeError(f"{uri}: there is no series {name!r}; it holds {_listed(found, uri)}.")
        return int(name), found[int(name)], [*notes, f"it is series {name} of {len(found)}"]
    if len(found) == 1:
        return 0, found[0], notes
    if found[0].kind in ("generic", "uniform"):
        first = found[0].keyframe
        odd = next((p for p in tif.pages if p.keyframe.shape != first.shape or p.keyframe.dtype != first.dtype), None)
        if odd is not None:
            raise VolumeError(
                f"{uri}: page {odd.index} has {odd.keyframe.shape} pixels of {odd.keyframe.dtype}, page {first.index} "
                f"has {first.shape} of {first.dtype}. Expected pages of one shape and type. Remove the page, or choose "
                f"a series: {_listed(found, uri)}."
            )
    raise VolumeError(f"{uri} holds several series; choose one: {_listed(found, uri)}.")


def _listed(found: list[Any], uri: str) -> str:
    base = uri.rpartition(":")[0] if uri.rpartition(":")[2].isdigit() else uri
    return ", ".join(f"{base}:{i} ({s.name or s.kind}, {s.axes} {s.shape})" for i, s in enumerate(found[:10]))


def _pages(tif: tifffile.TiffFile, series: Any, uri: str) -> list[Any]:
    """The pages of a series in order; only the first of a file that stores all of them in one piece.

    Raises:
        VolumeError: some are missing, or lie in other files.
    """
    if series.dataoffset is not None:
        return [series.pages[0]]
    pages = list(series.pages)
    for number, page in enumerate(pages):
        if page is None:
            raise VolumeError(
                f"{uri}: section {number} is not in the file; its metadata name another file that is missing. Put all "
                f"files of the set into one folder."
            )
        if page.parent is not tif:
            other = page.parent.filehandle.name
            raise VolumeError(
                f"{uri}: section {number} lies in another file ({other}), which is not read here. Save all sections in "
                f"one file, or open the folder: images://FOLDER."
            )
    return pages


def create_tiff(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> TiffVolume:
    """Create a TIFF file, zero everywhere; for the arguments see ``create_volume``.

    Raises:
        VolumeError: something is there already, the dtype is none of TIFF, or the disk is full.
    """
    parsed = Uri.parse(uri.removesuffix(".partial"))
    path = Path(parsed.path + uri[len(uri.removesuffix(".partial")) :])
    z, y, x = check_voxel_size(voxel_size_nm, uri)
    dtype = np.dtype(dtype)
    if is_remote(parsed.path) or parsed.dataset:
        raise VolumeError(f"{uri} cannot be written; expected a path of this machine without a series behind it.")
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise VolumeError(f"{uri}: TIFF cannot hold {dtype}; expected whole numbers or floats of at most 64 bits.")
    if os.path.lexists(path):
        raise VolumeError(f"{path} exists already; remove it or choose another name.")
    axes, shape = ("CZYX", (num_channels, *shape_zyx)) if num_channels else ("ZYX", tuple(shape_zyx))
    is_ome = dtype.name in OME_DTYPES
    metadata: dict[str, Any] = {"axes": axes}
    if is_ome:
        metadata |= {f"PhysicalSize{a}": size for a, size in zip("ZYX", (z, y, x), strict=True)}
        metadata |= {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"}
        if offset_nm is not None:
            values = {f"offset_nm_{a}": f"{float(v)!r}" for a, v in zip("zyx", offset_nm, strict=True)}
            metadata["MapAnnotation"] = {"Namespace": NAMESPACE, "Value": values}
    else:
        metadata["voxel_size_nm"] = [z, y, x]
        if offset_nm is not None:
            metadata["offset"] = [float(v) for v in offset_nm]
    try:
        tifffile.imwrite(
            path, shape=tuple(int(n) for n in shape), dtype=dtype, bigtiff=True, ome=is_ome, metadata=metadata,
            photometric="minisblack", contiguous=True,
        )  # fmt: skip
    except OSError as error:
        raise VolumeError(f"{path} cannot be created: {error.strerror or error}.") from None
    allocate(path)
    return TiffVolume(str(parsed) if path.suffix != ".partial" else f"tiff://{path}", writable=True)
