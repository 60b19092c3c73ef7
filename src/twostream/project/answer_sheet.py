"""A table of answers as text cells, with what a spreadsheet does to tables: the way from a file to rows.

    CSV      and its relatives, as ``base/sheets.py`` reads them
    JSONL    one object per line, as `twostream export --format jsonl` writes it
    XLSX     the first sheet of a workbook; needs openpyxl (the extra `excel`)

Numbers that a spreadsheet has rewritten are read; those that may be read in two ways, or have lost digits, are refused.
Knows files, text and numbers; must not know what the columns mean.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from twostream.base.errors import InputError
from twostream.base.sheets import read_sheet

AS_CSV = 'save the table as "CSV UTF-8" (in Excel and LibreOffice: Save As) and pass that file'
PLAIN = ("columns separated by commas, decimal point, UTF-8", "one column, decimal point, UTF-8")
"""How ``base/sheets.py`` describes a file of which nothing need be said."""
MAX_WHOLE = 2**53 - 1
"""The largest whole number that a spreadsheet, which stores numbers as doubles, holds exactly."""

_WHOLE = re.compile(r"[+-]?\d+(?:[eE][+-]?\d+)?", re.ASCII)
_DECIMAL = {
    sign: re.compile(rf"[+-]?(?:\d*|\d{{1,3}}(?:{other}\d{{3}})+){re.escape(sign)}\d+(?:[eE][+-]?\d+)?", re.ASCII)
    for sign, other in ((",", r"\."), (".", ","))
}
_GROUPED = {sign: re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(sign)}\d{{3}})+", re.ASCII) for sign in ",."}
_GAP_IN_NUMBER = re.compile("(?<=\\d)[\u00a0\u202f '\u2019](?=\\d{3})")
"""What stands between thousands in some countries: spaces, also narrow and unbreakable ones, and apostrophes."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: the line of the file in which it begins; in a workbook the number of the row.
        cells: {column: text without surrounding spaces}; "" for an empty cell.
    """

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class AnswerSheet:
    """A table as text.

    Attributes:
        path: of the file; errors name it.
        columns: their names in lower case, without surrounding spaces, in the order of the file.
        rows: the rows; those without any value are left out.
        understood: how the file was read, where it is not plain CSV in UTF-8; else "".
        decimal: the decimal sign, "," or "."; "" if nothing in the file decides it. It decides only about numbers that
            may be read in two ways, as 1,234: a spreadsheet leaves numbers of another country as they are.
        unit: what the file calls a row; errors name it with its number.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]
    understood: str
    decimal: str
    unit: str = "row"

    def error(self, row: Row, column: str, wanted: str) -> InputError:
        """The error for a cell: it names file, row and column, and says what came and what was ``wanted``."""
        text, end = row.cells.get(column, ""), "" if wanted.endswith("?") else "."
        came = repr(text) if text else "nothing"
        return InputError(f"{self.path}, {self.unit} {row.number}, column {column}: {came} came; {wanted}{end}")

    def number(self, row: Row, column: str) -> float:
        """The number in a cell.

        Raises:
            InputError: the cell holds none, or one that can be read in two ways, as 1,234.
        """
        return float(self._decimal(row, column))

    def whole(self, row: Row, column: str) -> int:
        """The whole number in a cell, also where a spreadsheet has rewritten it as 12.0 or 1,234.

        Raises:
            InputError: the cell holds none, or has lost digits, as 1.2E+05 has.
        """
        value = self._decimal(row, column, whole=True)
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and exponent > 0:
            raise self.error(
                row, column, "its last digits are lost; show the column as whole numbers, without E, and save it again"
            )
        if value != value.to_integral_value():
            raise self.error(row, column, "expected a whole number")
        if abs(value) > MAX_WHOLE:
            raise self.error(
                row, column, f"expected a number up to {MAX_WHOLE}; larger ones lose digits in a spreadsheet"
            )
        return int(value)

    def _decimal(self, row: Row, column: str, *, whole: bool = False) -> Decimal:
        """The number in a cell; with ``whole`` only a whole number counts, if the cell may be read as one."""
        found = _readings(row.cells.get(column, ""))
        if not found:
            raise self.error(row, column, "expected a number")
        if whole:
            found = {sign: value for sign, value in found.items() if value == value.to_integral_value()} or found
        if len(set(found.values())) > 1 and self.decimal not in found:
            first, second = sorted(found.values())
            raise self.error(
                row, column, f"it may be {first} or {second}; write it without a separator between thousands"
            )
        return found.get(self.decimal, next(iter(found.values())))


def _readings(text: str) -> dict[str, Decimal]:
    """{decimal sign: value} of each way to read a text as a number; whole numbers have both signs."""
    text = _GAP_IN_NUMBER.sub("", text.replace("\u2212", "-"))
    if _WHOLE.fullmatch(text):
        return dict.fromkeys(",.", Decimal(text))
    found = {}
    for sign, other in ((",", "."), (".", ",")):
        if _DECIMAL[sign].fullmatch(text) or _GROUPED[other].fullmatch(text):
            found[sign] = Decimal(text.replace(other, "").replace(sign, "."))
    return found


def read_answer_sheet(path: Path) -> AnswerSheet:
    """Read a table.

    Raises:
        InputError: the file cannot be read, is none of the formats of this module, has two columns of one name, or a
            row with more values than there are columns.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    if start.startswith(b"PK\x03\x04"):
        return _xlsx(path)
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{path} is a workbook of an old Excel (.xls), which cannot be read; {AS_CSV}.")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return _jsonl(path)
    sheet = read_sheet(path)
    columns = list(sheet.columns)
    cells = [[sheet.columns[name][i] for name in columns] for i in range(sheet.num_rows)]
    understood = "" if sheet.understood.removesuffix(" with a byte-order mark").endswith(PLAIN) else sheet.understood
    return _sheet(path, columns, list(zip(sheet.lines, cells, strict=True)), understood)


def _sheet(path: Path, header: Sequence[str], records: Sequence[tuple[int, list[str]]], understood: str) -> AnswerSheet:
    """A table of a header and of numbered rows; empty rows are left out."""
    names = [name.strip().lower() for name in header]
    repeated = sorted(name for name in set(names) if name and names.count(name) > 1)
    if repeated:
        raise InputError(f"{path} has the column {repeated[0]!r} twice; remove or rename one.")
    rows = [
        Row(number, {name: text.strip() for name, text in zip(names, cells, strict=True) if name})
        for number, cells in records
        if any(map(str.strip, cells))
    ]
    return AnswerSheet(path, tuple(name for name in names if name), rows, understood, _decimal_sign(rows))


def _decimal_sign(rows: Sequence[Row]) -> str:
    """The decimal sign of the numbers that can be read in one way only; "" if there are none, or they differ."""
    signs = set()
    for row in rows:
        for text in row.cells.values():
            found = _readings(text)
            signs |= set(found) if len(found) == 1 else set()
    return signs.pop() if len(signs) == 1 else ""


def _jsonl(path: Path) -> AnswerSheet:
    records: list[tuple[int, dict[str, str]]] = []
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8, as JSON lines are: byte {error.start} breaks it.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_float=str, parse_int=str)  # as text, so that no digit is lost
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: this is no JSON: {error.msg}.") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, {{column: value}}.")
        records.append((number, {name: _text(value) for name, value in values.items()}))
    header = list(dict.fromkeys(name for _, cells in records for name in cells))
    understood = f"{path.name}: {len(records)} rows; one JSON object per line"
    return _sheet(path, header, [(n, [cells.get(name, "") for name in header]) for n, cells in records], understood)


def _xlsx(path: Path) -> AnswerSheet:
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise InputError(
            f"{path} is a workbook (.xlsx), and openpyxl, which reads workbooks, is not installed; {AS_CSV}."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of styles and extensions that it ignores
            book = openpyxl.load_workbook(io.BytesIO(path.read_bytes()), data_only=True)
    except Exception as error:  # it raises many kinds for a file that is no workbook
        raise InputError(f"{path} cannot be read as a workbook (.xlsx): {error}; {AS_CSV}.") from None
    sheet = book.worksheets[0]
    records = [(n, list(map(_text, row))) for n, row in enumerate(sheet.iter_rows(values_only=True), start=1)]
    records = [record for record in records if any(record[1])]
    which = f", the first of {len(book.worksheets)}" if len(book.worksheets) > 1 else ""
    understood = f"{path.name}: {max(len(records) - 1, 0)} rows; the sheet {sheet.title!r} of a workbook{which}"
    return _sheet(path, records[0][1] if records else [], records[1:], understood)


def _text(value: Any) -> str:
    """A value of JSON or of a workbook as the text that stands in a CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_WHOLE:
        return str(int(value))
    return (value if isinstance(value, str) else json.dumps(value, default=str)).strip()
