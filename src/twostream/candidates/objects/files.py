"""Files that hold a table of objects, and checks that name file, row and column.

CSV and its relatives are read by ``base.sheets``, Parquet and Feather by Arrow. Knows files and values; must not know
what a column means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from twostream.base.errors import InputError
from twostream.base.sheets import number_in, read_sheet

Columns = dict[str, list[Any]]
BRACKETS = "[](){} \n\t"
"""Around a list as text: [1, 2, 3], (1, 2, 3), {1,2,3}, or [1 2 3] as pandas writes arrays of NumPy."""


SHEETS = (".xlsx", ".xls", ".ods")
"""Endings of workbooks, which are not read: spreadsheets round ids."""


def is_table(path: str) -> bool:
    """Whether the ending of a path is that of a table, gzipped or not; of one, too, that ``Table.read`` refuses."""
    return path.lower().removesuffix(".gz").endswith((*READERS, *SHEETS, ".json"))


class Table:
    """The columns of a file, unconverted. Rows are counted from 1; the header is not counted.

    Args:
        path: of the file.
        columns: {name: values}, all of one length.
        understood: a sentence that says how the file was read.
        decimal: sign before decimals in text, "." or ",".
    """

    def __init__(self, path: Path, columns: Columns, understood: str, decimal: str = ".") -> None:
        self.path, self.columns, self.understood, self.decimal = path, columns, understood, decimal
        self.num_rows = len(next(iter(columns.values()), []))

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a file; its ending says what it is (``READERS``).

        Raises:
            InputError: the file does not exist, has another format, rows of unequal length, or no rows.
        """
        name = path.name.lower().removesuffix(".gz")
        reader = next((reader for ending, reader in READERS.items() if name.endswith(ending)), None)
        if reader is None:
            hint = " Save the sheet as CSV UTF-8." if name.endswith(SHEETS) else ""
            raise InputError(f"{path}: expected a table of objects in a file that ends in {', '.join(READERS)}.{hint}")
        try:
            table = reader(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
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

    def number(self, value: Any) -> float:
        """The number that a value holds; NaN if it holds none."""
        if isinstance(value, str):
            number = number_in(value.strip(), self.decimal)
            return np.nan if number is None else number
        return float(value) if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) else np.nan

    def numbers(self, name: str) -> np.ndarray:
        """(N,) float values of a column.

        Raises:
            InputError: a row does not hold a finite number.
        """
        result = np.fromiter(map(self.number, self.columns[name]), float, self.num_rows)
        comma = self.decimal == ","
        self.refuse(~np.isfinite(result), name, "a number" + " with a decimal comma, as elsewhere in the file" * comma)
        return result

    def triple(self, value: Any) -> Sequence[float] | None:
        """Three numbers from a value: a list, its text, or a mapping of x, y and z; None if it holds something else."""
        if isinstance(value, Mapping):
            by_axis = {str(key).lower(): item for key, item in value.items()}
            value = [by_axis.get(axis) for axis in "xyz"] if len(by_axis) == 3 else None
        if isinstance(value, str):
            text = value.strip().removeprefix("array").strip(BRACKETS)
            parts = text.split("," if "," in text else ";" if ";" in text else None)
            value = [number_in(part.strip(" \n\t'\"")) for part in parts]
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            return None
        numbers = [math.nan if item is None else self.number(item) for item in value]
        return numbers if all(map(math.isfinite, numbers)) else None

    def triples(self, name: str) -> np.ndarray:
        """(N, 3) float values of a list column, in the order in which they stand there.

        Raises:
            InputError: a row does not hold three finite numbers.
        """
        found = [self.triple(value) for value in self.columns[name]]
        self.refuse(np.array([value is None for value in found]), name, "three numbers, such as [1, 2, 3]")
        return np.array(found, float)

    def refuse(self, wrong: np.ndarray, name: str, wanted: str, hint: str = "") -> None:
        """Raise InputError about the first row with a wrong value, if there is one.

        Args:
            wrong: (N,) bool.
            name: of the column.
            wanted: what was expected there, for the message.
            hint: what to do, for the end of the message.
        """
        rows = np.flatnonzero(wrong)
        if len(rows):
            value = self.columns[name][rows[0]]
            shown = "nothing" if value in (None, "") else f"{value!r}" if isinstance(value, str) else str(value)
            more = f" ({len(rows)} rows have this fault)" if len(rows) > 1 else ""
            raise InputError(
                f"{self.path}: row {rows[0] + 1}, column {name}: got {shown}; expected {wanted}{more}.{hint}"
            )


def _from_text(path: Path) -> Table:
    sheet = read_sheet(path)
    return Table(path, dict(sheet.columns), sheet.understood, sheet.decimal)


def _from_arrow(path: Path, read: Callable[[Path], pa.Table], kind: str) -> Table:
    table = read(path)
    repeated = [name for name in table.column_names if table.column_names.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has the column {repeated[0]!r} twice; expected it once. Remove or rename one.")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return Table(path, columns, f"{path.name}: {table.num_rows} row{'s' * (table.num_rows != 1)}; {kind}")


def _read_arrow(path: Path) -> pa.Table:
    """Feather, or Arrow's stream format, which shares its endings."""
    try:
        return pyarrow.feather.read_table(path)
    except pa.ArrowInvalid:
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_stream(file).read_all()


def _from_lines(path: Path) -> Table:
    """One JSON object per line; a key that a row lacks has no value there."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} holds no JSON object; expected one object per line.")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(path, columns, f"{path.name}: {len(rows)} row{'s' * (len(rows) != 1)}; one JSON object per line")


_parquet = partial(_from_arrow, read=pq.read_table, kind="Parquet")
_feather = partial(_from_arrow, read=_read_arrow, kind="Feather or Arrow")
READERS: dict[str, Callable[[Path], Table]] = {
    **dict.fromkeys([".csv", ".tsv", ".txt"], _from_text),
    **dict.fromkeys([".parquet", ".pq"], _parquet),
    **dict.fromkeys([".feather", ".arrow"], _feather),
    ".jsonl": _from_lines,
}
"""{ending: reader}. Text tables may also end in .gz."""
