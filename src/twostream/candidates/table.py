"""Candidates as a Parquet table, and their masks as bytes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate

BOX_COLUMNS = ("box_z0", "box_y0", "box_x0", "box_z1", "box_y1", "box_x1")


def to_table(candidates: Sequence[Candidate], **extra: Sequence[object]) -> pa.Table:
    """The Parquet table of a round; one row per candidate, ``extra`` columns behind.

    Columns: id, label, parent_ids, box_z0..box_x1 and center_z,y,x (voxels of the image), num_voxels, score,
    mask (zlib of the uint8 mask over the box).
    """
    corners = np.array([[*c.box.offset_zyx, *c.box.stop_zyx] for c in candidates], np.int64).reshape(-1, 6)
    centers = np.array([c.center_zyx for c in candidates], np.float64).reshape(-1, 3)
    columns: dict[str, pa.Array] = {
        "id": pa.array([c.id for c in candidates], pa.int64()),
        "label": pa.array([c.label for c in candidates], pa.int64()),
        "parent_ids": pa.array([list(c.parent_ids) for c in candidates], pa.list_(pa.int64())),
    }
    columns |= {name: pa.array(corners[:, i]) for i, name in enumerate(BOX_COLUMNS)}
    columns |= {f"center_{axis}": pa.array(centers[:, i]) for i, axis in enumerate("zyx")}
    columns["num_voxels"] = pa.array([c.num_voxels for c in candidates], pa.int64())
    columns["score"] = pa.array([c.score for c in candidates], pa.float64())
    columns |= {name: pa.array(values) for name, values in extra.items()}
    columns["mask"] = pa.array([pack_mask(c.mask) for c in candidates], pa.binary())
    return pa.table(columns)


def from_table(table: pa.Table) -> list[Candidate]:
    """Candidates of a table, in its order."""
    rows = table.select(["id", "label", "parent_ids", *BOX_COLUMNS, "score", "mask"]).to_pylist()
    result = []
    for row in rows:
        box = Box.from_corners([row[f"box_{a}0"] for a in "zyx"], [row[f"box_{a}1"] for a in "zyx"])
        mask = unpack_mask(row["mask"], box)
        result.append(Candidate(row["id"], row["label"], box, mask, row["score"], tuple(row["parent_ids"])))
    return result


def pack_mask(mask: np.ndarray) -> bytes:
    """(Z, Y, X) uint8 -> bytes."""
    return zlib.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), 6)


def unpack_mask(packed: bytes, box: Box) -> np.ndarray:
    """Bytes of ``pack_mask`` -> (Z, Y, X) uint8 over ``box``."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(box.shape_zyx)


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet whole or not at all."""
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read ``candidates.parquet``.

    Raises:
        InputError: no such file, or not a Parquet table.
    """
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as a candidate table: {error}.") from None
