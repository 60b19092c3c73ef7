"""Atomic file writing: a file is written under the name ``NAME.partial`` and renamed to ``NAME`` when it is complete.

A process that is killed while writing therefore never leaves a truncated file under the final name.

Knows the file system and a few formats (text, NumPy, JSON lines); must not know what the contents mean.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from twostream.base.errors import InputError


def is_taken(path: Path) -> bool:
    """Whether there is a file or folder at ``path``, also if ``path`` leads there through folders that do not exist.

    The system finds nothing at ``new/../there`` while there is no ``new``; once ``new`` is made, it finds ``there``.
    """
    return os.path.lexists(path) or os.path.lexists(os.path.realpath(path))


def free_name(path: Path, ending: str) -> Path:
    """The first of ``NAME.ending``, ``NAME.ending.2``, ``NAME.ending.3``, ... that is not taken."""
    names = (f"{path.name}.{ending}{number}" for number in ("", *(f".{i}" for i in range(2, 10_000))))
    return next(other for name in names if not is_taken(other := path.with_name(name)))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically."""
    with text_file(path) as handle:
        handle.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, atomically."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Open a text file for writing, atomically.

    Yields:
        A writable UTF-8 handle. When the block ends, the file gets its final name; when the block raises, the file is
        removed and the exception goes on.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", newline="", encoding="utf-8") as handle:
            yield handle
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``array``, of any shape and any dtype without Python objects, as ``.npy``, atomically."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
    os.replace(partial, path)


@contextmanager
def array_file(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """Create a ``.npy`` file that is too large to be held in memory and is filled piece by piece.

    Args:
        path: final name of the file.
        shape: shape of the array.
        dtype: dtype of the array.

    Yields:
        A writable memory-mapped array of ``shape`` and ``dtype``. When the block ends without an exception, the file
        gets its final name.
    """
    partial = path.with_name(path.name + ".partial")
    if 0 in shape:  # an empty file cannot be memory-mapped
        write_array(path, np.zeros(shape, dtype))
        yield np.zeros(shape, dtype)
        return
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
    yield array
    array.flush()
    del array
    os.replace(partial, path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as compressed ``.npz``, atomically."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)


def read_array(path: Path, *, in_place: bool = False) -> np.ndarray:
    """Read one array from a ``.npy`` file.

    Args:
        path: of the file.
        in_place: map the file into memory instead of reading it; the array can then not be written.

    Raises:
        InputError: the file is missing or damaged, would have to be unpickled, or holds several arrays (``.npz``).
    """
    try:
        array = np.load(path, mmap_mode="r" if in_place else None, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays, expected one")
        return array
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy without pickles: {error}.") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, by name.

    Raises:
        InputError: there is no such file, or it is not an .npz file of arrays without pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}. Put it back from a copy.") from None


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``rows`` as JSON lines, one object per line, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Create a folder atomically, replacing any folder of that name.

    Args:
        path: final name of the folder.
        fill: called with the temporary path ``NAME.partial``, which does not exist yet; it creates the folder and its
            contents. If it raises, the temporary folder is removed and ``path`` is left as it was.
    """
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fill(partial)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
