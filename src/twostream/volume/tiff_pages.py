"""Pages of TIFF files, read by the strips or tiles that a box touches; opening TIFF files with sentences for errors.

Knows TIFF pages; must not know how pages make up a volume.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tifffile

from twostream.base.errors import VolumeError
from twostream.volume.byte_files import is_remote, open_bytes, read_at
from twostream.volume.decoded import CACHE

LOSSY = ("JPEG", "WEBP", "JPEG_LOSSY", "OJPEG", "JPEGXL", "JPEGXR", "APERIO_JP2000_RGB", "JPEG_2000_LOSSY")
"""Compressions of TIFF after which voxels may differ from what was stored."""


class _Heard(logging.Handler):
    """What tifffile logs in this thread: damage that it passes over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            (self.errors if record.levelno >= logging.ERROR else self.warnings).append(record.getMessage())


@contextmanager
def heard(uri: str) -> Iterator[list[str]]:
    """Errors of tifffile in the block as sentences, those too that it only logs; yields its warnings.

    tifffile passes over damage: of a file that was cut short it reads the pages that are left.

    Raises:
        VolumeError: tifffile raised or logged an error.
    """
    handler, logger = _Heard(), logging.getLogger("tifffile")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield handler.warnings
    except VolumeError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        raise VolumeError(f"{uri} cannot be read as TIFF: {str(error).rstrip('.') or type(error).__name__}.") from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if handler.errors:
        raise VolumeError(
            f"{uri} is damaged or truncated: {handler.errors[0].rstrip('.')}. Copy or write the file again."
        )


def open_tiff_file(path: str, uri: str) -> tifffile.TiffFile:
    """Open a TIFF file; not all of it has been looked at yet, so use it inside ``heard``."""
    return tifffile.TiffFile(open_bytes(path), name=path.rpartition("/")[2]) if is_remote(path) else _local(path, uri)


def _local(path: str, uri: str) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except OSError as error:
        raise VolumeError(f"{uri} cannot be opened: {error.strerror or error}.") from None


def check_page(page: Any, uri: str) -> None:
    """Raise VolumeError unless a page holds grey values or labels that can be decoded here."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise VolumeError(
            f"{uri} holds palette colours: its values are numbers of colours. Expected grey values; convert it to 8 or "
            f"16 bits of grey (in ImageJ: Image > Type > 8-bit)."
        )
    if page.samplesperpixel > 1:
        what = "colours (RGB)" if page.photometric == tifffile.PHOTOMETRIC.RGB else "values in each pixel"
        raise VolumeError(
            f"{uri} holds {page.samplesperpixel} {what}; expected one grey value or label in each pixel. Save it as "
            f"grey values (in ImageJ: Image > Type > 8-bit)."
        )
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise VolumeError(f"{uri} holds {page.dtype or 'an unknown type'}; expected whole numbers or floats.")
    if page.imagedepth > 1:
        raise VolumeError(f"{uri} holds volumes in single pages, which are not read here; save a page for each section.")
    check_compression(page, uri)


def check_compression(page: Any, uri: str) -> None:
    """Raise VolumeError, with the package that is missing, if a page cannot be decompressed."""
    try:
        _ = tifffile.TIFF.DECOMPRESSORS[page.compression] if page.compression != 1 else None
        _ = tifffile.TIFF.UNPREDICTORS[page.predictor] if page.predictor != 1 else None
    except KeyError as error:
        name = getattr(page.compression, "name", str(page.compression))
        advice = (
            "Install the package imagecodecs: pip install imagecodecs"
            if "imagecodecs" in str(error)
            else "Save it uncompressed, or with deflate (zlib)"
        )
        raise VolumeError(f"{uri} is compressed with {name}, which cannot be decoded here. {advice}.") from None


def page_notes(page: Any) -> list[str]:
    """What is unusual about the values of a page, as sentences."""
    notes = []
    name = getattr(page.compression, "name", "")
    if name in LOSSY or name.startswith("JPEG"):
        notes.append(f"saved with {name} compression, which may change values")
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        notes.append("the file says that 0 is white; values are read as they are stored")
    return notes


class PageReader:
    """Reads regions of the pages of one open file; decoded strips and tiles are kept in the cache of the process.

    Args:
        tif: the file.
        uri: for errors.
        token: under which strips and tiles are kept; None: a new one.
    """

    def __init__(self, tif: tifffile.TiffFile, uri: str, token: object = None) -> None:
        self._tif, self._uri = tif, uri
        self._lock = threading.Lock()
        self._token = token or object()

    def read(self, page: Any, out: np.ndarray, rows: slice, columns: slice) -> None:
        """Read rows and columns of ``page`` into ``out``, (rows, columns)."""
        keyframe = page.keyframe
        tall, wide = segment_shape(keyframe)
        across = -(-keyframe.imagewidth // wide)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        for i in range(rows.start // tall, -(-rows.stop // tall)):
            for j in range(columns.start // wide, -(-columns.stop // wide)):
                top, left = i * tall, j * wide
                y0, y1 = max(rows.start, top), min(rows.stop, top + tall)
                x0, x1 = max(columns.start, left), min(columns.stop, left + wide)
                target = out[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
                part = self._segment(page, i * across + j)
                target[...] = keyframe.nodata if part is None else part[y0 - top : y1 - top, x0 - left : x1 - left]

    def _segment(self, page: Any, number: int) -> np.ndarray | None:
        """(Y, X) of one strip or tile; None if the file leaves it out."""
        if number >= len(page.databytecounts):
            raise VolumeError(f"{self._uri}: page {page.index} lacks strip or tile {number}; the file is damaged.")
        if page.databytecounts[number] == 0:
            return None
        return CACHE.get((self._token, page.index, number), lambda: self._decoded(page, number))

    def _decoded(self, page: Any, number: int) -> np.ndarray:
        start, size = page.dataoffsets[number], page.databytecounts[number]
        content = read_at(self._tif.filehandle, self._lock, start, size, self._uri)
        try:
            decoded = page.keyframe.decode(content, number, jpegtables=page.jpegtables)[0]
        except Exception as error:  # damaged data raise errors of every codec
            raise VolumeError(
                f"{self._uri}: strip or tile {number} of page {page.index} cannot be decoded: {error}. The file is "
                f"damaged; copy or write it again."
            ) from None
        found = np.asarray(decoded)[0, :, :, 0]
        tall, wide = segment_shape(page.keyframe)
        if not page.keyframe.is_tiled:
            tall = min(tall, page.keyframe.imagelength - number * tall)  # the last strip of a page
        if found.shape[0] < tall or found.shape[1] < wide:
            raise VolumeError(f"{self._uri}: strip or tile {number} of page {page.index} is too short; it is damaged.")
        return found


def segment_shape(keyframe: Any) -> tuple[int, int]:
    """(y, x) pixels of a tile, or of a strip."""
    if keyframe.is_tiled:
        return int(keyframe.tilelength), int(keyframe.tilewidth)
    height = int(keyframe.imagelength)
    return min(int(keyframe.rowsperstrip or height), height), int(keyframe.imagewidth)


def absent(pages: list[Any]) -> tuple[int, int]:
    """(number of strips and tiles that the file leaves out, of all)."""
    counts = [count for page in pages for count in page.databytecounts]
    return sum(count == 0 for count in counts), len(counts)
