"""Tables of objects, such as the synapses of an existing connectome, read and painted as masks.

CSV or Parquet, a row per object:

    z, y, x              centre, voxels of the image; or z_nm, y_nm, x_nm
    box_z0 .. box_x1     by choice: half-open box in voxels; its inscribed ellipsoid is the mask
    score                by choice: in [0, 1]
    id                   by choice: a number or a name, each once; else the row's number counts
    pre_z .. post_x      by choice, polarity: a point on either side; or pre_z_nm .. post_x_nm

Knows files, points and ellipsoids; must not know projects or models. What does not fit is refused by name of file, row
and column.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.task import Task
from twostream.volume import Volume

UNKNOWN_SCORE = 0.5
"""Of objects about whose likelihood nothing is said."""
NUM_NAMED = 5
"""Rows named when many are refused for one reason."""
UNREADABLE = (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException)


@dataclass(frozen=True)
class Objects:
    """A table of objects, checked. Points are in voxels of the image; voxel i has its centre at i.

    Attributes:
        center: (N, 3) float, z y x.
        box: (N, 6) int, z0 y0 x0 z1 y1 x1, half-open; None without boxes.
        pre, post: (N, 3) float, a point on either side; None where the direction is unknown.
        score: (N,) float in [0, 1].
        ids: (N,) names; the rows' numbers, from 1, where the table gives none.
    """

    center: np.ndarray
    box: np.ndarray | None
    pre: np.ndarray | None
    post: np.ndarray | None
    score: np.ndarray
    ids: list[int] | list[str]

    def ellipsoids(self, radius_nm: float, voxel_size_nm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Centres and half axes, (N, 3) each, in voxels: inscribed in the boxes, else balls of ``radius_nm``."""
        if self.box is None:
            return self.center, np.broadcast_to(radius_nm / np.asarray(voxel_size_nm), self.center.shape)
        start, stop = self.box[:, :3], self.box[:, 3:]
        return (start + stop - 1) / 2, (stop - start) / 2


class Table:
    """Columns of a file as they came, and sentences about what is wrong in them. Rows count from 1, the header not."""

    def __init__(self, path: Path, columns: dict[str, list[Any]]) -> None:
        self.path, self.columns = path, columns
        self.num_rows = len(next(iter(columns.values()), []))

    @classmethod
    def read(cls, path: Path) -> Table:
        """From .csv or .parquet.

        Raises:
            InputError: no such file, another format, rows of unlike length, or no rows.
        """
        readers = {".csv": _csv_columns, ".parquet": _parquet_columns}
        if path.suffix.lower() not in readers:
            raise InputError(f"{path}: expected a table of objects that ends in {' or '.join(readers)}.")
        try:
            table = cls(path, readers[path.suffix.lower()](path))
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}.") from None
        if table.num_rows == 0:
            raise InputError(f"{path} holds no rows; there is nothing to ask about.")
        return table

    def require(self, names: Sequence[str], why: str) -> None:
        """Raise InputError where a column is missing."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise InputError(
                f"{self.path} has no column {', '.join(missing)}; {why}. It has: {', '.join(self.columns) or 'none'}."
            )

    def numbers(self, name: str) -> np.ndarray:
        """(N,) float of a column; every row must hold a finite number."""
        result = np.empty(self.num_rows)
        for row, value in enumerate(self.columns[name]):
            try:
                result[row] = float(value)
            except (TypeError, ValueError):
                result[row] = np.nan
        self.refuse(~np.isfinite(result), name, "a number")
        return result

    def refuse(self, wrong: np.ndarray, name: str, wanted: str) -> None:
        """Raise InputError about the first row that is ``wrong``, (N,) bool."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            value = self.columns[name][rows[0]]
            shown = "nothing" if value in (None, "") else f"{value!r}" if isinstance(value, str) else str(value)
            more = f" ({len(rows)} rows have this fault)" if len(rows) > 1 else ""
            raise InputError(f"{self.path}: row {rows[0] + 1}, column {name}: got {shown}; expected {wanted}{more}.")

    def point(self, prefix: str, image: Volume) -> np.ndarray | None:
        """(N, 3) voxels from ``{prefix}z, y, x`` or ``{prefix}z_nm, y_nm, x_nm``; None where there are neither."""
        voxels, nm = ([f"{prefix}{axis}{unit}" for axis in "zyx"] for unit in ("", "_nm"))
        has = [bool(set(names) & set(self.columns)) for names in (voxels, nm)]
        if not any(has):
            return None
        if all(has):
            raise InputError(
                f"{self.path} has {prefix}z, y, x in voxels and in nm; which of them counts? Keep one of the two."
            )
        names, scale = (nm, image.voxel_size_nm) if has[1] else (voxels, (1.0, 1.0, 1.0))
        self.require(names, "a point has all of z, y and x")
        result = np.empty((self.num_rows, 3))
        for axis, (name, unit, extent) in enumerate(zip(names, scale, image.shape_zyx, strict=True)):
            values = self.numbers(name)
            result[:, axis] = values / unit
            wanted = f"a position in the image, 0 to below {extent * unit:g} {'nm' if has[1] else 'voxels'}"
            self.refuse((result[:, axis] < 0) | (result[:, axis] >= extent), name, wanted)
        return result


def read_objects(path: Path, image: Volume, task: Task) -> Objects:
    """A table of objects; the module's head says which columns.

    Raises:
        InputError: a file, column or row that does not fit, by name.
    """
    table = Table.read(path)
    center = table.point("", image)
    if center is None:
        table.require(["z", "y", "x"], "expected z, y, x (voxels of the image) or z_nm, y_nm, x_nm")
        raise AssertionError
    pre, post = (table.point(f"{side}_", image) if task.num_sides == 2 else None for side in ("pre", "post"))
    if (pre is None) != (post is None):
        missing = "pre" if pre is None else "post"
        table.require([f"{missing}_{axis}" for axis in "zyx"], "a direction needs a point on either side")
    if pre is not None and post is not None:
        name = "post_x" if "post_x" in table.columns else "post_x_nm"
        table.refuse((pre == post).all(1), name, "another point than the presynaptic one, or no direction is told")
    score = table.numbers("score") if "score" in table.columns else np.full(table.num_rows, UNKNOWN_SCORE)
    if "score" in table.columns:
        table.refuse((score < 0) | (score > 1), "score", "a score in [0, 1]")
    return Objects(center, _boxes(table, center, image), pre, post, score, _ids(table))


def _boxes(table: Table, center: np.ndarray, image: Volume) -> np.ndarray | None:
    starts, stops = ([f"box_{axis}{end}" for axis in "zyx"] for end in "01")
    if not set(starts + stops) & set(table.columns):
        return None
    table.require(starts + stops, "a box has all six: box_z0, box_y0, box_x0, box_z1, box_y1, box_x1")
    box = np.stack([table.numbers(name) for name in starts + stops], 1)
    for axis in range(3):
        extent, name = image.shape_zyx[axis], "zyx"[axis]
        start, stop, middle = box[:, axis], box[:, axis + 3], center[:, axis]
        for values, column in ((start, starts[axis]), (stop, stops[axis])):
            table.refuse(values % 1 != 0, column, "a whole number of voxels")
            table.refuse((values < 0) | (values > extent), column, f"a box inside the image, 0 to {extent} voxels")
        table.refuse(stop <= start, stops[axis], f"more than {starts[axis]}")
        apart = (middle < start - 0.5) | (middle > stop)
        table.refuse(apart, starts[axis], f"a box around the object's centre, whose {name} lies outside it")
    return box.astype(np.int64)


_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""A whole number as Python writes it; a name that only looks like one, such as 007, stays a name."""


def _ids(table: Table) -> list[int] | list[str]:
    if "id" not in table.columns:
        return list(range(1, table.num_rows + 1))
    values = table.columns["id"]
    names = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v).strip() for v in values]
    nameless = [v is None or v != v or not name for v, name in zip(values, names, strict=True)]
    table.refuse(np.array(nameless), "id", "a number or a name")
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in first:
            before = first[name] + 1
            table.refuse(np.arange(table.num_rows) == row, "id", f"each id once, but row {before} has it already")
        first[name] = row
    numeric = all(_WHOLE.fullmatch(name) and abs(int(name)) < 2**63 for name in names)
    return [int(name) for name in names] if numeric else names


def _csv_columns(path: Path) -> dict[str, list[Any]]:
    with open(path, newline="", encoding="utf-8-sig") as handle:
        rows = [row for row in csv.reader(handle) if row]
    header = [name.strip() for name in rows[0]] if rows else []
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise InputError(f"{path} has the column {min(repeated)!r} twice; which of them counts?")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(f"{path}: row {number} has {len(row)} values; expected {len(header)}, one per column.")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names}


# -- objects to voxels ------------------------------------------------------------------------------------------------


def paint(table: Objects, image: Volume, radius_nm: float) -> np.ndarray:
    """Who owns each voxel: (Z, Y, X) uint32, the row's number from 1, 0 where nobody does.

    An object fills its ellipsoid, and always the voxel nearest the ellipsoid's centre; of several that claim a voxel,
    the one with the nearest centre has it (ties: the earlier row).
    """
    shape, size = np.array(image.shape_zyx), np.array(image.voxel_size_nm)
    owner = np.zeros(image.shape_zyx, np.uint32)
    middles, half_axes = table.ellipsoids(radius_nm, size.tolist())
    nearest = np.minimum(np.round(middles).astype(np.int64), shape - 1)
    starts = np.maximum(np.minimum(np.ceil(middles - half_axes).astype(np.int64), nearest), 0)
    stops = np.minimum(np.maximum(np.floor(middles + half_axes).astype(np.int64), nearest) + 1, shape)
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        axes = np.ogrid[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        scaled = zip(axes, middles[row], half_axes[row], strict=True)
        inside = sum(((axis - m) / h) ** 2 for axis, m, h in scaled) <= 1
        inside[tuple(nearest[row] - start)] = True
        window = owner[Box.from_corners(start.tolist(), stop.tolist()).slices]
        contested = inside & (window > 0)
        if contested.any():
            at = np.argwhere(contested) + start
            mine, theirs = (
                (((at - center) * size) ** 2).sum(1)
                for center in (table.center[row], table.center[window[contested] - 1])
            )
            inside[contested] = mine < theirs
        window[inside] = row + 1
    return owner


def refuse_hidden(table: Objects, owner: np.ndarray, uri: str) -> None:
    """Raise InputError where an object has no voxel left: it would be dropped without a word."""
    left = np.bincount(owner.ravel(), minlength=len(table.ids) + 1)[1:]
    hidden = np.flatnonzero(left == 0)
    if len(hidden):
        named = ", ".join(f"{row + 1} (id {table.ids[row]})" for row in hidden[:NUM_NAMED])
        more = f" and {len(hidden) - NUM_NAMED} more" if len(hidden) > NUM_NAMED else ""
        raise InputError(
            f"{uri}: row {named}{more}: no voxel is left, because objects with nearer centres cover it all; of "
            f"overlapping objects a voxel goes to the nearest centre. Remove the doubles, give boxes, or set "
            f"source.radius_nm smaller."
        )


def with_sides(table: Objects, owner: np.ndarray, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """Rows' numbers -> 2n-1 and 2n: a voxel is presynaptic if it is nearer the presynaptic point.

    Where the direction is unknown, all of an object is shown as one side, the presynaptic one.
    """
    painted = 2 * owner - (owner > 0)
    if table.pre is not None and table.post is not None:
        at = np.argwhere(owner)
        rows = owner[tuple(at.T)] - 1
        to_pre, to_post = (
            (((at - point[rows]) * np.asarray(voxel_size_nm)) ** 2).sum(1) for point in (table.pre, table.post)
        )
        painted[tuple(at.T)] = 2 * (rows + 1) - (to_pre < to_post)
    return painted.astype(np.uint32)
