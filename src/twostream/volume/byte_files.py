"""Single files that are read in parts: on this machine, behind http(s) by byte ranges, in S3 and Google Cloud Storage.

HDF5, TIFF and .npy are read through these. A server that sends whole files only is refused, because every box would
then cost the whole file.

Knows paths and bytes; must not know formats.
"""

from __future__ import annotations

import errno
import importlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import requests

from twostream.base.errors import VolumeError
from twostream.volume.location import FORBIDDEN
from twostream.volume.uri import REMOTE

BLOCK_BYTES = 256 * 1024
MAX_BLOCKS = 256
"""Bytes that are asked for at a time, and how many blocks of a file are kept: 64 MiB."""
SECONDS = 60.0
PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
"""What fsspec needs for a scheme."""


def is_remote(path: str) -> bool:
    """Whether ``path`` lies behind a server."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in REMOTE


def refuse_remote(path: str, what: str) -> None:
    """Raise VolumeError if ``path`` lies behind a server, for formats that are read on this machine only."""
    if is_remote(path):
        raise VolumeError(f"{path}: {what} cannot be read from a server in parts. Download it, then open it here.")


def check_is_file(path: str, form: str) -> None:
    """Raise VolumeError if a path of this machine is no file that can be read; ``form`` shows what a URI looks like."""
    if is_remote(path):
        return
    if not os.path.lexists(path):
        raise VolumeError(f"{path} does not exist; check the path (the URI has the form {form}).")
    if Path(path).is_dir():
        raise VolumeError(
            f"{path} is a folder, but its name is that of a file. For a folder of one image per section write "
            f"images://{path}."
        )
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise VolumeError(f"{path} cannot be opened: {why(error)}") from None


def open_bytes(path: str) -> Any:
    """A file that can be read from any place on.

    Args:
        path: of this machine, or a URL that begins with http://, https://, s3:// or gs://.

    Raises:
        VolumeError: it is not there, may not be read, its server does not send parts of files, or a package is missing.
    """
    if not is_remote(path):
        try:
            return open(path, "rb")
        except OSError as error:
            raise VolumeError(f"{path} cannot be opened: {why(error)}") from None
    scheme = path.partition("://")[0]
    if scheme in ("http", "https"):
        _check_server(path, scheme)
    try:
        importlib.import_module(PACKAGES[scheme])
        filesystem = importlib.import_module("fsspec").filesystem(scheme, **_options(scheme))
    except ImportError as error:
        raise VolumeError(
            f"{path}: a single file behind {scheme}:// is read with the package {error.name}, which is not installed. "
            f"Install it: pip install {PACKAGES[scheme]}."
        ) from None
    try:
        return filesystem.open(
            path, "rb", block_size=BLOCK_BYTES, cache_type="blockcache", cache_options={"maxblocks": MAX_BLOCKS}
        )
    except Exception as error:  # clients of servers raise errors of many packages
        raise VolumeError(f"{path} cannot be opened: {_remote_reason(error, scheme)}") from None


def _options(scheme: str) -> dict[str, Any]:
    if scheme != "s3":
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    known = bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE") or file.exists())
    return {"anon": not known, "endpoint_url": endpoint}


def _check_server(path: str, scheme: str) -> None:
    """Raise VolumeError unless the server sends a part of the file when it is asked for one."""
    try:
        with requests.get(path, headers={"Range": "bytes=0-0"}, stream=True, timeout=SECONDS) as answer:
            status = answer.status_code
    except requests.Timeout:
        raise VolumeError(f"{path} cannot be opened: the server did not answer in time. Check the network.") from None
    except (requests.RequestException, ValueError) as error:
        what = "there is no such host" if "resolve" in str(error).lower() else "nothing answers at that address"
        raise VolumeError(f"{path} cannot be opened: {what}. Check the address and the network.") from None
    if status == 206:
        return
    if status in (401, 403):
        raise VolumeError(f"{path} cannot be opened: access is forbidden. {FORBIDDEN[scheme]}")
    if status == 404:
        raise VolumeError(f"{path} is not found. Check the address.")
    if status == 200:
        raise VolumeError(
            f"{path}: the server does not serve parts of files (HTTP ranges), so that every box would cost the whole "
            f"file. Download it, then open it here."
        )
    raise VolumeError(f"{path} cannot be opened: the server answers with code {status}.")


def _remote_reason(error: Exception, scheme: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not found. Check the address."
    if isinstance(error, PermissionError):
        return f"access is forbidden. {FORBIDDEN[scheme]}"
    return f"{str(error).rstrip('.') or type(error).__name__}."


def why(error: OSError) -> str:
    """Why a file of this machine cannot be read, as a sentence."""
    if isinstance(error, PermissionError):
        return "you may not read it. Change its permissions, or ask its owner."
    if error.errno in (errno.EAGAIN, errno.EBUSY, errno.ETXTBSY):
        return "another program has locked it. Close it there."
    return f"{error.strerror or error}."


class FlatArray:
    """An uncompressed array in a file: mapped into memory on this machine, read by byte ranges elsewhere.

    Args:
        path: of the file.
        offset: of the first byte.
        dtype: as stored, with its byte order.
        shape: of the array, slowest axis first.
        writable: whether it may be written; only on this machine.

    Raises:
        VolumeError: the file is too short for the array.
    """

    def __init__(self, path: str, offset: int, dtype: np.dtype, shape: tuple[int, ...], writable: bool = False) -> None:
        self._path, self._offset, self._stored, self._shape = path, offset, dtype, shape
        self._native = dtype.newbyteorder("=")
        self._lock, self._file = threading.Lock(), open_bytes(path) if is_remote(path) else None
        wanted = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        found = self._file.seek(0, os.SEEK_END) if self._file else Path(path).stat().st_size
        if found < wanted:
            raise VolumeError(
                f"{path} is truncated: its header announces {wanted} bytes, it has {found}. Copy or write it again."
            )
        self._array: Any = None
        if self._file is None:
            # An empty array cannot be mapped.
            size = int(np.prod(shape, dtype=np.int64))
            mode: Any = "r+" if writable else "r"
            # As a plain array: cutting a numpy.memmap takes several times as long.
            self._array = np.asarray(np.memmap(path, dtype, mode, offset, shape)) if size else np.empty(shape, dtype)

    def read(self, index: tuple[slice | int, ...]) -> np.ndarray:
        """What ``index`` cuts out, a copy in the byte order of this machine; slices have the step 1."""
        found = self._array[index] if self._array is not None else self._by_ranges(index)
        return np.array(found, self._native, order="K")

    def write(self, index: tuple[slice | int, ...], array: np.ndarray) -> None:
        """Write ``array`` where ``index`` points."""
        self._array[index] = array

    def _by_ranges(self, index: tuple[slice | int, ...]) -> np.ndarray:
        """All but the last two axes are walked; of these, whole rows are read."""
        slices = [part if isinstance(part, slice) else slice(part, part + 1) for part in index]
        starts, stops = zip(*(part.indices(n)[:2] for part, n in zip(slices, self._shape, strict=True)), strict=True)
        shape = [max(0, b - a) for a, b in zip(starts, stops, strict=True)]
        result = np.empty(shape, self._stored)
        whole_rows = len(self._shape) - 2
        for place in np.ndindex(*shape[:whole_rows]):
            at = [a + p for a, p in zip(starts, place, strict=False)]
            part = self._rows(at, starts[whole_rows], shape[whole_rows])
            result[place] = part[:, starts[-1] : stops[-1]]
        keep = tuple(0 if isinstance(part, int) else slice(None) for part in index)
        return result[keep]

    def _rows(self, at: list[int], first: int, number: int) -> np.ndarray:
        """Rows of the plane ``at``."""
        width, height = self._shape[-1], self._shape[-2]
        plane = int(np.ravel_multi_index(at, self._shape[:-2])) if at else 0
        start = self._offset + (plane * height + first) * width * self._stored.itemsize
        content = read_at(self._file, self._lock, start, number * width * self._stored.itemsize, self._path)
        return np.frombuffer(content, self._stored).reshape(number, width)


def read_at(file: Any, lock: threading.Lock, start: int, size: int, path: str) -> bytes:
    """``size`` bytes of an open file from ``start`` on.

    Raises:
        VolumeError: it ends before, or cannot be read.
    """
    try:
        with lock:
            file.seek(start)
            content = file.read(size)
    except Exception as error:  # clients of servers raise errors of many packages
        scheme = path.partition("://")[0] if is_remote(path) else ""
        reason = _remote_reason(error, scheme) if scheme else f"{error}."
        raise VolumeError(f"{path} cannot be read from byte {start} on: {reason}") from None
    if len(content) != size:
        raise VolumeError(
            f"{path} is truncated: {size} bytes are expected from byte {start} on, there are {len(content)}. Copy or "
            f"write it again."
        )
    return bytes(content)


def allocate(path: Path) -> None:
    """Give a new file all its space now, so that a full disk is an error here and not a crash while it is written.

    Raises:
        VolumeError: the disk is full; the file is removed.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise VolumeError(f"{path} cannot be created: {error.strerror or error}.") from None
