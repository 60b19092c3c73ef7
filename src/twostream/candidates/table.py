"""Candidates as a Parquet table (``candidates.parquet`` of a round), and masks as bytes.

Knows candidates and Parquet; must not know projects, rounds or where the table lies. The columns are described in
``to_table`` and in docs/contracts.md, Files.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twostream.base.errors import InputError
from twostream.base.geometry import Box, corners_of
from twostream.candidates.candidate import Candidate

DEFAULT_VOLUME = "image"
"""Name of the only volume that a project has today, in tables and in the ledger."""
GROUP_ROWS = 4096
"""Rows that are stored, and read, together: a few megabytes of packed masks."""
BOX_COLUMNS = ("box_z0", "box_y0", "box_x0", "box_z1", "box_y1", "box_x1")


def to_table(
    candidates: Sequence[Candidate],
    *,
    task: str,
    volume: str = DEFAULT_VOLUME,
    extra: Mapping[str, Sequence[object]] | None = None,
) -> pa.Table:
    """The candidate table of a round, one row per candidate in the given order.

    Columns: id, volume, task, label, parent_ids, box_z0 .. box_x1 (half-open box) and center_z, center_y, center_x
    (centre of mass), both in voxels of the image, num_voxels, score, those of ``extra``, and mask (zlib-compressed
    uint8 over the box). ``volume`` and ``task`` are the same in all rows; they tell rows apart when the tables of
    several projects are merged.

    Args:
        candidates: with their ids.
        task: name of the task.
        volume: name of the volume that the candidates lie in.
        extra: further columns, {name: one value per candidate}.
    """
    corners = corners_of(c.box for c in candidates)
    centers = np.array([c.center_zyx for c in candidates], np.float64).reshape(-1, 3)
    columns: dict[str, pa.Array] = {
        "id": pa.array([c.id for c in candidates], pa.int64()),
        "volume": pa.array([volume] * len(candidates), pa.string()),
        "task": pa.array([task] * len(candidates), pa.string()),
        "label": pa.array([c.label for c in candidates], pa.int64()),
        "parent_ids": pa.array([list(c.parent_ids) for c in candidates], pa.list_(pa.int64())),
    }
    columns |= {name: pa.array(corners[:, i]) for i, name in enumerate(BOX_COLUMNS)}
    columns |= {f"center_{axis}": pa.array(centers[:, i]) for i, axis in enumerate("zyx")}
    columns["num_voxels"] = pa.array([c.num_voxels for c in candidates], pa.int64())
    columns["score"] = pa.array([c.score for c in candidates], pa.float64())
    columns |= {name: column(values) for name, values in (extra or {}).items()}
    columns["mask"] = pa.array([pack_mask(c.mask) for c in candidates], pa.binary())
    return pa.table(columns)


def parts_of(
    candidates: Sequence[Candidate],
    *,
    task: str,
    columns: Mapping[str, Sequence[object]] | None = None,
    each: Mapping[str, Callable[[Candidate], object]] | None = None,
) -> Iterator[pa.Table]:
    """The candidate table of a round (``to_table``), as many rows at a time as are stored together.

    Args:
        candidates: N candidates with their ids.
        task: name of the task.
        columns: {name: N values}, further columns.
        each: {name: what the column holds for a candidate}, further columns.

    Yields:
        At least one part.
    """
    whole = {name: column(values) for name, values in (columns or {}).items()}  # all parts need the same types
    for start in range(0, max(1, len(candidates)), GROUP_ROWS):
        part = candidates[start : start + GROUP_ROWS]
        extra = {name: [value(candidate) for candidate in part] for name, value in (each or {}).items()}
        slices = {name: values[start : start + GROUP_ROWS] for name, values in whole.items()}
        yield to_table(part, task=task, extra=extra | slices)


def column(values: Sequence[object] | pa.Array) -> pa.Array:
    """Values as a column; whole numbers above 2^63 - 1, which Arrow does not expect, are stored as uint64."""
    try:
        return pa.array(values)
    except OverflowError:
        return pa.array(values, pa.uint64())


def pack_mask(mask: np.ndarray) -> bytes:
    """Compress a (Z, Y, X) uint8 mask; ``unpack_mask`` restores it."""
    return zlib.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), 6)


def unpack_mask(packed: bytes, box: Box) -> np.ndarray:
    """Restore the (Z, Y, X) uint8 mask over ``box`` from the bytes of ``pack_mask``."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(box.shape_zyx)


def write_parts(parts: Iterable[pa.Table], path: Path) -> None:
    """Write tables below each other as one Parquet file, without holding them all; it appears only when it is complete.

    Args:
        parts: at least one, all with the same columns. Parts of ``GROUP_ROWS`` rows make groups of that size.
        path: of the file.
    """
    partial, parts = path.with_suffix(".partial"), iter(parts)
    first = next(parts)
    with pq.ParquetWriter(partial, first.schema, compression="zstd") as writer:
        for part in itertools.chain([first], parts):
            writer.write_table(part, row_group_size=GROUP_ROWS)
    os.replace(partial, path)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a candidate table.

    Args:
        path: a Parquet file.
        columns: names of the columns to read; None reads all.

    Raises:
        InputError: the file does not exist or is not a Parquet table.
    """
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    """The error of a table that cannot be read."""
    return InputError(
        f"{path} cannot be read as a candidate table: {error}. If it is damaged, put it back from a copy, "
        f"or delete it and let `twostream repair` make it again."
    )
