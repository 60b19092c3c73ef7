"""Files that are there whole or not at all: written under a partial name, then renamed.

Knows disks; must not know what is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from twostream.base.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with text_file(path) as handle:
        handle.write(text)


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A text file to be filled: under its name once all of it is there, and nothing is left of it if that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", newline="", encoding="utf-8") as handle:
            yield handle
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``.npy`` whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
    os.replace(partial, path)


@contextmanager
def array_file(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
    """A ``.npy`` to be filled piece by piece, on disk and not in memory; under its name once all of it is there."""
    partial = path.with_name(path.name + ".partial")
    if 0 in shape:  # nothing can be mapped of an empty file
        write_array(path, np.zeros(shape, dtype))
        yield np.zeros(shape, dtype)
        return
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
    yield array
    array.flush()
    del array
    os.replace(partial, path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``.npz`` whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)


def read_array(path: Path) -> np.ndarray:
    """Read ``.npy``.

    Raises:
        InputError: missing, damaged, pickled, or several arrays (``.npz``).
    """
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return array
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy without pickles: {error}.") from None


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Make a folder whole or not at all: ``fill`` makes it under a partial name."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fill(partial)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
