"""Answer tables as files: one table in the forms in which programs save it, and numbers that have lost digits."""

import json
import sys

import openpyxl
import pytest

from twostream.base.errors import InputError
from twostream.project.answer_sheet import read_answer_sheet

PLAIN = 'query,kind,seconds,reason\n1,true,3.5,"größer, als gedacht"\n2,,,\n'
SEMICOLONS = "query;kind;seconds;reason\n1;true;3,5;größer, als gedacht\n2;;;\n"
LINES = (
    {"query": 1, "kind": "true", "seconds": 3.5, "reason": "größer, als gedacht"},
    {"query": 2, "kind": None, "seconds": None, "reason": ""},
)


def workbook(path):
    book = openpyxl.Workbook()
    for row in (["query", "kind", "seconds", "reason"], [1, True, 3.5, "größer, als gedacht"], [2.0, None, None, None]):
        book.active.append(row)
    book.save(path)


@pytest.mark.parametrize(
    ("content", "understood"),
    [
        (PLAIN.encode(), ""),
        (PLAIN.replace("\n", "\r\n").encode("utf-8-sig"), ""),
        (PLAIN.replace("query,kind", " Query ,KIND").encode(), ""),
        (PLAIN.encode("cp1252"), "Windows-1252"),
        (SEMICOLONS.encode("cp1252"), "semicolons, decimal comma, Windows-1252"),
        (b"sep=;\r\n" + SEMICOLONS.encode(), "semicolons, decimal comma, UTF-8"),
        (SEMICOLONS.replace(";", "\t").replace("3,5", "3.5").encode("utf-16"), "tabs, decimal point, UTF-16"),
        ("".join(json.dumps(row) + "\n" for row in LINES).encode(), "one JSON object per line"),
        (None, "the sheet 'Sheet' of a workbook"),
    ],
)
def test_a_table_is_read_in_every_form_in_which_programs_save_it(tmp_path, content, understood):
    path = tmp_path / "table"
    workbook(path) if content is None else path.write_bytes(content)
    sheet = read_answer_sheet(path)
    assert sheet.columns == ("query", "kind", "seconds", "reason")
    assert understood in sheet.understood and bool(understood) == bool(sheet.understood)
    first, second = sheet.rows
    assert (sheet.whole(first, "query"), sheet.whole(second, "query")) == (1, 2)
    assert (first.cells["kind"].lower(), second.cells["kind"]) == ("true", "")
    assert sheet.number(first, "seconds") == 3.5 and first.cells["reason"] == "größer, als gedacht"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xd0\xcf\x11\xe0rest", "old Excel (.xls), which cannot be read; save the table as"),
        (b"PK\x03\x04rest", "cannot be read as a workbook"),
        (b"query,kind, Kind\n1,true,\n", "has the column 'kind' twice"),
        (b"query,kind,reason\n1,true,small, and faint\n", "has 4 values; expected 3"),
        (b'{"query": 1}\n[2]\n', "line 2: expected a JSON object"),
        (b'{"query": 1}\nquery 2\n', "line 2: this is no JSON"),
        (b'{"query": "\xfc"}\n', "is no UTF-8, as JSON lines are"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, sentence):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_answer_sheet(path)
    assert sentence in str(error.value)


def test_without_openpyxl_a_workbook_is_refused_with_what_to_do(tmp_path, monkeypatch):
    workbook(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        InputError, match=r"openpyxl, which reads workbooks, is not installed; save the table as .CSV UTF-8"
    ):
        read_answer_sheet(tmp_path / "t.xlsx")


def read(tmp_path, text, other=""):
    """The sheet with a single value in the column ``n``, beside one in the column ``m``."""
    (tmp_path / "n.csv").write_text(f'n;m\n"{text}";"{other}"\n', encoding="utf-8")
    return read_answer_sheet(tmp_path / "n.csv")


@pytest.mark.parametrize(
    ("text", "other", "value"),
    [
        ("12", "", 12),
        ("12.0", "", 12),
        ("12,0", "", 12),
        ("1,234", "", 1234),  # in a column of whole numbers it cannot be 1.234
        ("1.234", "", 1234),
        ("1,000", "0.5", 1000),
        ("1.000", "0,5", 1000),
        ("1,234,567", "", 1234567),
        ("1.234.567,0", "", 1234567),
        ("1\u202f234", "", 1234),
        ("1'234", "", 1234),
        ("1.2340E+4", "", 12340),
        ("9007199254740991", "", 2**53 - 1),
    ],
)
def test_whole_numbers_that_a_spreadsheet_has_rewritten(tmp_path, text, other, value):
    sheet = read(tmp_path, text, other)
    assert sheet.whole(sheet.rows[0], "n") == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1.0E+15", "its last digits are lost"),
        ("7.20576E+17", "its last digits are lost"),
        ("9007199254740993", "expected a number up to 9007199254740991"),
        ("1,000", "it may be 1.000 or 1000"),
        ("12.5", "expected a whole number"),
        ("1,2,3", "expected a number"),
        ("twelve", "row 2, column n: 'twelve' came; expected a number"),
        ("1_000", "expected a number"),
        ("nan", "expected a number"),
        ("", "nothing came"),
    ],
)
def test_numbers_that_may_be_another_number_are_refused(tmp_path, text, sentence):
    sheet = read(tmp_path, text, other="x")
    with pytest.raises(InputError) as error:
        sheet.whole(sheet.rows[0], "n")
    assert sentence in str(error.value)


def test_the_decimal_sign_is_that_of_the_numbers_that_can_be_read_in_one_way_only(tmp_path):
    for text, other, value in (("1,234", "0,5", 1.234), ("1,234", "0.5", 1234), ("1.234", "3,25", 1234)):
        sheet = read(tmp_path, text, other)
        assert sheet.number(sheet.rows[0], "n") == value
    for other in ("", "8"):
        sheet = read(tmp_path, "1,234", other)
        with pytest.raises(InputError, match=r"it may be 1\.234 or 1234; write it without a separator"):
            sheet.number(sheet.rows[0], "n")
    sheet = read(tmp_path, "3.5", "2,5")  # German Excel leaves 3.5 as the text that it was
    assert (sheet.number(sheet.rows[0], "n"), sheet.number(sheet.rows[0], "m")) == (3.5, 2.5)
