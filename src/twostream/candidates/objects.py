"""Tables of objects, such as the synapses of an existing connectome: reading and checking them.

A table is CSV or Parquet with one row per object:

    z, y, x              centre in voxels of the image; or z_nm, y_nm, x_nm in nm from voxel 0
    box_z0 .. box_x1     optional: half-open bounding box in voxels; the ellipsoid inscribed in it is the mask
    score                optional: in [0, 1]
    id                   optional: a unique number or name; without it the row number is the id
    pre_z .. post_x      optional, polarity: one point on the presynaptic and one on the postsynaptic side; or
                         pre_z_nm .. post_x_nm

A value that does not fit is an error that names file, row and column. ``painting`` turns the objects into labels. Knows
files and the image's extent; must not know masks, projects or models.
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
from twostream.task import Task
from twostream.volume import Volume

UNKNOWN_SCORE = 0.5
"""Score of an object if the source gives none."""
UNREADABLE = (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException)
"""Errors that the CSV and Parquet readers raise for a file that they cannot read."""


@dataclass(frozen=True)
class Objects:
    """The objects of a table, after all checks. Positions are in voxels of the image; voxel i has its centre at i.

    Attributes:
        center: (N, 3) float z, y, x.
        box: (N, 6) int z0, y0, x0, z1, y1, x1, half-open; None if the table has no boxes.
        pre: (N, 3) float z, y, x, a point on the presynaptic side; None if the directions are unknown.
        post: (N, 3) float z, y, x, a point on the postsynaptic side; None together with ``pre``.
        score: (N,) float in [0, 1].
        ids: (N,) numbers or names; the row numbers from 1 if the table has no ids.
    """

    center: np.ndarray
    box: np.ndarray | None
    pre: np.ndarray | None
    post: np.ndarray | None
    score: np.ndarray
    ids: list[int] | list[str]


class Table:
    """The columns of a file, unconverted, with checks that name file, row and column in their errors.

    Rows are counted from 1; the header is not counted.

    Args:
        path: of the file.
        columns: {name: values}, all of one length.
    """

    def __init__(self, path: Path, columns: dict[str, list[Any]]) -> None:
        self.path, self.columns = path, columns
        self.num_rows = len(next(iter(columns.values()), []))

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a .csv or .parquet file.

        Raises:
            InputError: the file does not exist, has another format, rows of unequal length, or no rows.
        """
        readers = {".csv": _csv_columns, ".parquet": _parquet_columns}
        if path.suffix.lower() not in readers:
            raise InputError(f"{path}: expected a table of objects in a file that ends in {' or '.join(readers)}.")
        try:
            table = cls(path, readers[path.suffix.lower()](path))
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}.") from None
        if table.num_rows == 0:
            raise InputError(f"{path} holds no rows; there is nothing to ask about.")
        return table

    def require(self, names: Sequence[str], why: str) -> None:
        """Raise InputError, which ends with ``why``, if one of the columns is missing."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise self.lacks(missing, why)

    def lacks(self, names: Sequence[str], why: str) -> InputError:
        """The error for missing columns; ``why`` says why they are needed."""
        return InputError(
            f"{self.path} has no column {', '.join(names)}; {why}. It has: {', '.join(self.columns) or 'none'}."
        )

    def numbers(self, name: str) -> np.ndarray:
        """(N,) float values of a column.

        Raises:
            InputError: a row does not hold a finite number.
        """
        result = np.empty(self.num_rows)
        for row, value in enumerate(self.columns[name]):
            try:
                result[row] = float(value)
            except (TypeError, ValueError):
                result[row] = np.nan
        self.refuse(~np.isfinite(result), name, "a number")
        return result

    def refuse(self, wrong: np.ndarray, name: str, wanted: str) -> None:
        """Raise InputError about the first row with a wrong value, if there is one.

        Args:
            wrong: (N,) bool.
            name: of the column.
            wanted: what was expected there, for the message.
        """
        rows = np.flatnonzero(wrong)
        if len(rows):
            value = self.columns[name][rows[0]]
            shown = "nothing" if value in (None, "") else f"{value!r}" if isinstance(value, str) else str(value)
            more = f" ({len(rows)} rows have this fault)" if len(rows) > 1 else ""
            raise InputError(f"{self.path}: row {rows[0] + 1}, column {name}: got {shown}; expected {wanted}{more}.")

    def point(self, prefix: str, image: Volume) -> np.ndarray | None:
        """Points from three columns.

        Args:
            prefix: of the column names: ``{prefix}z``, ``y``, ``x`` in voxels, or ``{prefix}z_nm``, ``y_nm``, ``x_nm``.
            image: the points must lie in it.

        Returns:
            (N, 3) float z, y, x in voxels; None if there are no such columns.

        Raises:
            InputError: a column is missing, both units are given, or a point lies outside the image.
        """
        voxels, nm = ([f"{prefix}{axis}{unit}" for axis in "zyx"] for unit in ("", "_nm"))
        has = [bool(set(names) & set(self.columns)) for names in (voxels, nm)]
        if not any(has):
            return None
        if all(has):
            raise InputError(
                f"{self.path} has {prefix}z, y, x both in voxels and in nm; expected only one of the two. Remove one."
            )
        names, scale = (nm, image.voxel_size_nm) if has[1] else (voxels, (1.0, 1.0, 1.0))
        self.require(names, "a point needs all of z, y and x")
        result = np.empty((self.num_rows, 3))
        for axis, (name, unit, extent) in enumerate(zip(names, scale, image.shape_zyx, strict=True)):
            values = self.numbers(name)
            result[:, axis] = values / unit
            wanted = f"a position in the image, 0 to below {extent * unit:g} {'nm' if has[1] else 'voxels'}"
            self.refuse((result[:, axis] < 0) | (result[:, axis] >= extent), name, wanted)
        return result


def read_objects(path: Path, image: Volume, task: Task) -> Objects:
    """Read and check a table of objects; the module's docstring lists the columns.

    Args:
        path: a .csv or .parquet file.
        image: objects must lie in it.
        task: the points ``pre`` and ``post`` are read only for the polarity task.

    Raises:
        InputError: the file cannot be read, a column is missing, or a value does not fit.
    """
    table = Table.read(path)
    center = table.point("", image)
    if center is None:
        raise table.lacks(["z", "y", "x"], "expected z, y, x (voxels of the image) or z_nm, y_nm, x_nm")
    pre, post = (table.point(f"{side}_", image) if task.num_sides == 2 else None for side in ("pre", "post"))
    if (pre is None) != (post is None):
        missing = "pre" if pre is None else "post"
        raise table.lacks([f"{missing}_{axis}" for axis in "zyx"], "a direction needs a point on both sides")
    if pre is not None and post is not None:
        name = "post_x" if "post_x" in table.columns else "post_x_nm"
        same = (pre == post).all(1)
        table.refuse(same, name, "a point that differs from the presynaptic one, because the two give the direction")
    score = table.numbers("score") if "score" in table.columns else np.full(table.num_rows, UNKNOWN_SCORE)
    if "score" in table.columns:
        table.refuse((score < 0) | (score > 1), "score", "a score in [0, 1]")
    return Objects(center, _boxes(table, center, image), pre, post, score, _ids(table))


def _boxes(table: Table, center: np.ndarray, image: Volume) -> np.ndarray | None:
    """``Objects.box``, checked against the image and the (N, 3) centres."""
    starts, stops = ([f"box_{axis}{end}" for axis in "zyx"] for end in "01")
    if not set(starts + stops) & set(table.columns):
        return None
    table.require(starts + stops, "a box needs all six: box_z0, box_y0, box_x0, box_z1, box_y1, box_x1")
    box = np.stack([table.numbers(name) for name in starts + stops], 1)
    for axis in range(3):
        extent, name = image.shape_zyx[axis], "zyx"[axis]
        start, stop, middle = box[:, axis], box[:, axis + 3], center[:, axis]
        for values, column in ((start, starts[axis]), (stop, stops[axis])):
            table.refuse(values % 1 != 0, column, "a whole number of voxels")
            table.refuse((values < 0) | (values > extent), column, f"a box inside the image, 0 to {extent} voxels")
        table.refuse(stop <= start, stops[axis], f"more than {starts[axis]}")
        apart = (middle < start - 0.5) | (middle > stop)
        table.refuse(apart, starts[axis], f"a box that contains the object's centre, whose {name} lies outside it")
    return box.astype(np.int64)


_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""An integer as Python writes it. Ids such as 007 are names, because they would change if read as numbers."""


def _ids(table: Table) -> list[int] | list[str]:
    """``Objects.ids``: numbers if all ids are 64-bit integers, else names."""
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
            table.refuse(np.arange(table.num_rows) == row, "id", f"a unique id, but row {before} has the same one")
        first[name] = row
    numeric = all(_WHOLE.fullmatch(name) and abs(int(name)) < 2**63 for name in names)
    return [int(name) for name in names] if numeric else names


def _csv_columns(path: Path) -> dict[str, list[Any]]:
    """{name: values as text, without surrounding spaces}."""
    with open(path, newline="", encoding="utf-8-sig") as handle:
        rows = [row for row in csv.reader(handle) if row]
    header = [name.strip() for name in rows[0]] if rows else []
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise InputError(f"{path} has the column {min(repeated)!r} twice; expected it once. Remove or rename one.")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(f"{path}: row {number} has {len(row)} values; expected {len(header)}, one per column.")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    """{name: values as Python objects}."""
    table = pq.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names}
