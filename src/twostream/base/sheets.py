"""Text tables as spreadsheets and scripts write them: code page, delimiter and decimal sign are found out and said.

    sheet = read_sheet(Path("answers.csv"))
    sheet.columns["kind"]                 # the cells of a column, as text without surrounding spaces
    sheet.number(sheet.columns["z"][0])   # a float, or None if the cell holds no number
    sheet.understood                      # "a.csv: 50 rows; columns separated by semicolons, decimal comma, UTF-8"

A file that can be read in two ways is refused. Nothing is guessed from a part of the file: a delimiter must divide
every row into the columns of the header. Cells stay text, so that an id of 18 digits or a name such as 007 keeps all of
its characters. Knows text; must not know what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostream.base.errors import InputError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Delimiters that are tried, and their names for messages."""
_BYTE_ORDER_MARKS = {  # UTF-32 first, because its mark begins with the one of UTF-16
    b"\xff\xfe\x00\x00": ("utf-32", "UTF-32"),
    b"\x00\x00\xfe\xff": ("utf-32", "UTF-32"),
    b"\xef\xbb\xbf": ("utf-8-sig", "UTF-8"),
    b"\xff\xfe": ("utf-16", "UTF-16"),
    b"\xfe\xff": ("utf-16", "UTF-16"),
}
_WORKBOOKS = {b"PK\x03\x04": "an Excel or LibreOffice workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_PERHAPS_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
"""A number such as 1,234: a comma before three digits may also divide thousands."""
_UNUSUAL = re.compile(
    r"[^\x00-\x7fÀ-ÖØ-öø-ÿŒœŠšŽžŸ€£‘’“”„–—…§°±²³µ·×«»¿¡ªº©®™\xa0]|[^\x00-\x7f]{4}|[a-zß-ÿ][À-ÖØ-ÞŽŠŸ]"
)
"""What Western European text does not contain: rare signs, four letters with accents in a row, or a capital with an
accent inside a word. Bytes of other code pages often look like this when they are read as Windows-1252."""

Rows = list[tuple[int, list[str]]]
"""Rows of cells, each with the line of the file in which it begins, from 1."""


@dataclass(frozen=True)
class Sheet:
    """A text table.

    Attributes:
        path: of the file.
        columns: {name: cells}: text without surrounding spaces, one per row; "" where a cell is empty.
        lines: the line of the file, from 1, in which each row begins; for error messages.
        decimal: "," if the file writes decimals with a comma, else ".".
        understood: a sentence that says how the file was read.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    decimal: str
    understood: str

    @property
    def num_rows(self) -> int:
        """The number of rows below the header; rows without any text are not counted."""
        return len(self.lines)

    @property
    def number_words(self) -> str:
        """How a number must be written in this file, for error messages."""
        return "a number" if self.decimal == "." else "a number with a decimal comma, as elsewhere in the file"

    def number(self, text: str) -> float | None:
        """The number that a cell holds; see ``number_in``."""
        return number_in(text, self.decimal)


def number_in(text: str, decimal: str = ".") -> float | None:
    """The number that a text holds.

    Args:
        text: the text.
        decimal: "." or ",", the sign before decimals.

    Returns:
        The number; None if the text is empty, holds something else, or can be read in two ways: 1,234 where the decimal
        sign is a point, or 1.234 where it is a comma.
    """
    if decimal == ",":
        if "." in text:
            return None
        text = text.replace(",", ".", 1)
    return float(text) if _NUMBER.fullmatch(text) else None


def read_sheet(path: Path) -> Sheet:
    """Read a text table with a header; it may be compressed with gzip.

    Code pages: UTF-8, UTF-16 and UTF-32, with or without a byte-order mark where that can be told; otherwise
    Windows-1252. Delimiters: ``DELIMITERS``; a first line such as ``sep=;`` is obeyed. Lines that begin with # above
    the header are passed over, unless the last of them is the header. Cells that a spreadsheet leaves out at the end of
    a row are empty.

    Args:
        path: of the file.

    Raises:
        InputError: the file cannot be read as text, has no header or no clear delimiter, a column twice, a row with
            more cells than the header, or ends in the middle of a row.
    """
    try:
        text, code_page = _decoded(path)
        delimiter, rows, more = _divided(text, path)
    except (OSError, EOFError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}.") from None
    header = rows[0][1] if rows else []
    columns = _columns(header, rows[1:], path)
    comma = any(_is_decimal_comma(cell) for cells in columns.values() for cell in cells if "," in cell)
    separated = f"columns separated by {DELIMITERS.get(delimiter, repr(delimiter))}" if delimiter else "one column"
    words = [separated, "decimal comma" if comma else "decimal point", code_page, *more]
    number = len(rows[1:])
    return Sheet(
        path,
        columns,
        [line for line, _ in rows[1:]],
        "," if comma else ".",
        f"{path.name}: {number} row{'s' * (number != 1)}; {', '.join(words)}",
    )


# -- bytes to text ----------------------------------------------------------------------------------------------------


def _decoded(path: Path) -> tuple[str, str]:
    """The file as text, and the name of its code page."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    for mark, kind in _WORKBOOKS.items():
        if data.startswith(mark):
            raise InputError(f"{path} is {kind}; expected a text table. Save it as CSV UTF-8.")
    for mark, (codec, name) in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _strict(data, codec, name, path), f"{name} with a byte-order mark"
    if b"\0" in data:
        zeros = [data[start:4096:2].count(0) for start in (0, 1)]
        # Western text in UTF-16 has a zero in nearly every second byte, and nowhere else.
        if max(zeros) < len(data[:4096:2]) / 4 or min(zeros) > 0.05 * max(zeros):
            raise InputError(f"{path} holds bytes that are no text; expected a text table.")
        return _strict(data, "utf-16-le" if zeros[1] else "utf-16-be", "UTF-16", path), "UTF-16"
    try:
        return data.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError as error:
        return _western(data, error, path), "Windows-1252"


def _strict(data: bytes, codec: str, name: str, path: Path) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is {name}, but byte {error.start} breaks it. Save it as CSV UTF-8.") from None


def _western(data: bytes, error: UnicodeDecodeError, path: Path) -> str:
    """Text that is not UTF-8, read as Windows-1252.

    Raises:
        InputError: most of it is UTF-8, or read as Windows-1252 it does not look like Western European text.
    """
    advice = "Save it as CSV UTF-8."
    replaced = data.decode("utf-8", "replace")
    if len(re.findall(r"[^\x00-\x7f\ufffd]", replaced)) > replaced.count("\ufffd"):
        raise InputError(f"{path} is UTF-8, but byte {error.start} breaks it. {advice}")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = "\x81"
    if unusual := _UNUSUAL.search(text):
        line = text[: unusual.start()].count("\n") + 1
        raise InputError(f"{path}, line {line}: neither UTF-8 nor Windows-1252 (Western European). {advice}")
    return text


# -- text to cells ----------------------------------------------------------------------------------------------------


def _divided(text: str, path: Path) -> tuple[str, Rows, list[str]]:
    """The delimiter ("" for one column), the rows with the header first, and what else must be said."""
    delimiters, comments, body, first_line = _without_preamble(text)
    cut_off = not text.endswith(("\n", "\r"))
    found = _best(delimiters, body, first_line, path, cut_off)
    more = [f"{len(comments)} comment line{'s' * (len(comments) > 1)} above the header"] if comments else []
    if comments and found[1] and any(_NUMBER.fullmatch(cell) for cell in found[1][0][1]):
        # The header itself is a comment, as numpy.savetxt writes it.
        line, comment = comments[-1]
        with_header = comment.lstrip("# \t") + "\n" + body
        more = [f"the header is line {line}, which begins with #"]
        found = _best(delimiters, with_header, first_line - 1, path, cut_off)
    return *found, more


def _without_preamble(text: str) -> tuple[list[str], list[tuple[int, str]], str, int]:
    """Delimiters to try, comments above the header (line, text), the rest, and the line in which it begins."""
    delimiters, comments, at, number = list(DELIMITERS), [], 0, 1
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        bare = line.strip("\r\n")
        if number == 1 and re.fullmatch(r'"?sep=.+?"?', bare, re.IGNORECASE):
            delimiters = [bare.strip('"')[4]]
        elif bare.startswith("#"):
            comments.append((number, bare))
        elif bare.strip():
            return delimiters, comments, text[at:], number
        at += len(line)
    return delimiters, comments, "", number


def _best(delimiters: list[str], body: str, first_line: int, path: Path, cut_off: bool) -> tuple[str, Rows]:
    """The delimiter that divides all rows into the columns of the header, and the rows.

    Raises:
        InputError: none does, several do, or the last row is cut off.
        csv.Error: quotes do not match.
    """
    tried: dict[str, Rows] = {}
    errors = []
    for delimiter in delimiters:
        try:
            if len(next(_reader(body, delimiter), [])) > 1:
                tried[delimiter] = _rows(body, delimiter, first_line)
        except csv.Error as error:
            errors.append(error)
    if not tried and errors:
        raise errors[0]
    if not tried:
        tried[""] = _rows(body, ",", first_line)
        _refuse_spaces(tried[""], path)
    same = [d for d, rows in tried.items() if all(len(cells) == len(rows[0][1]) for _, cells in rows)]
    fits = same or [d for d, rows in tried.items() if _too_long(rows) is None]
    if len(fits) > 1:
        names = " or ".join(DELIMITERS[d] for d in fits)
        raise InputError(f"{path}: its columns may be separated by {names}. Write sep={fits[0]} in a line above them.")
    if not fits:
        delimiter = max(tried, key=lambda d: len(tried[d][0][1]))
        raise _long_row_error(tried[delimiter], delimiter, path)
    rows = tried[fits[0]]
    if cut_off and len(rows) > 1 and len(rows[-1][1]) < len(rows[0][1]):
        raise InputError(
            f"{path}, line {rows[-1][0]}: the file ends after {len(rows[-1][1])} of {len(rows[0][1])} values and "
            f"without an end of line. Was it cut off? Complete the line, or end it with a line break."
        )
    return fits[0], rows


def _refuse_spaces(rows: Rows, path: Path) -> None:
    """Raise InputError if one column seems to be several that are separated by spaces."""
    widths = {len(" ".join(cells).split()) for _, cells in rows}
    if len(rows) > 1 and len(widths) == 1 and max(widths) > 1:
        raise InputError(f"{path}: its columns seem to be separated by spaces. Separate them by commas or tabs.")


def _reader(body: str, delimiter: str) -> Any:
    """A reader that refuses quotes that do not match; by default they would swallow the rows that follow."""
    return csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _rows(body: str, delimiter: str, first_line: int) -> Rows:
    """Rows with any text; cells are stripped, and empty ones beyond the header are dropped."""
    rows: Rows = []
    reader = _reader(body, delimiter)
    width, line = 0, first_line
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        while len(cells) > width and not cells[-1]:
            cells.pop()
        if any(cells):
            width = width or len(cells)
            rows.append((line, cells))
        line = first_line + reader.line_num
    return rows


def _too_long(rows: Rows) -> int | None:
    """The index of the first row with more cells than the header."""
    return next((i for i, (_, cells) in enumerate(rows) if len(cells) > len(rows[0][1])), None)


def _long_row_error(rows: Rows, delimiter: str, path: Path) -> InputError:
    """The error for a row with more cells than the header."""
    index = _too_long(rows) or 0
    line, cells = rows[index]
    hint = ""
    if delimiter == "," and any(cell.startswith(("[", "(")) for cell in cells):
        hint = ' Put lists in quotes, "[1, 2, 3]", or separate the columns by semicolons.'
    elif delimiter in (",", "") and any(_is_decimal_comma(f"{a},{b}") for a, b in itertools.pairwise(cells)):
        hint = " If its decimals are written with a comma, separate the columns by semicolons or quote the numbers."
    return InputError(
        f"{path}, line {line} (row {index}) has {len(cells)} values; expected {len(rows[0][1])}, one per column.{hint}"
    )


def _is_decimal_comma(cell: str) -> bool:
    """Whether the comma of a number can only be a decimal sign."""
    return _WITH_COMMA.fullmatch(cell) is not None and not _PERHAPS_GROUPED.fullmatch(cell)


def _columns(header: list[str], rows: Rows, path: Path) -> dict[str, list[str]]:
    """{name: cells}; a column without a name, such as the index that pandas writes, is called by its place."""
    if header and all(_NUMBER.fullmatch(name) for name in header if name):
        raise InputError(f"{path}: the first line holds numbers; expected the names of the columns. Add a header.")
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InputError(f"{path} has the column {min(repeated)!r} twice; expected it once. Remove or rename one.")
    return {name: [cells[i] if i < len(cells) else "" for _, cells in rows] for i, name in enumerate(names)}
