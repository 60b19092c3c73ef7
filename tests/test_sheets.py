"""Text tables: code page, delimiter and decimal sign are found out; what can be read in two ways is refused."""

import gzip
import math

import pytest

from twostream.base.errors import InputError
from twostream.base.sheets import read_sheet

WANTED = {"id": ["7", "8"], "z": ["1.5", "2"], "name": ["café", ""]}
PLAIN = "id,z,name\n7,1.5,café\n8,2,\n"


def sheet(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sheet(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PLAIN, "2 rows; columns separated by commas, decimal point, UTF-8"),
        (PLAIN.replace(",", ";"), "semicolons, decimal point"),
        (PLAIN.replace(",", "\t"), "tabs"),
        (PLAIN.encode("utf-8-sig"), "UTF-8 with a byte-order mark"),
        (PLAIN.encode("utf-16"), "UTF-16 with a byte-order mark"),
        (PLAIN.replace(",", "\t").encode("utf-16"), "tabs, decimal point, UTF-16 with a byte-order mark"),
        (PLAIN.encode("utf-16-le"), "UTF-16"),
        (PLAIN.encode("utf-16-be"), "UTF-16"),
        (PLAIN.encode("utf-32"), "UTF-32 with a byte-order mark"),
        (PLAIN.encode("cp1252"), "Windows-1252"),
        (gzip.compress(PLAIN.encode(), mtime=0), "UTF-8"),
        (PLAIN.replace("\n", "\r\n"), "commas"),
        (PLAIN.replace("\n", "\r"), "commas"),
        (PLAIN.replace("\n", "\n\n"), "2 rows"),
        (PLAIN + ",,\n,,\n", "2 rows"),
        (PLAIN.removesuffix("\n"), "2 rows"),
        ("id,z,name\n7,1.5,café\n8,2\n", "2 rows"),  # as a spreadsheet that leaves out empty cells at the end
        ("id,z,name,,\n7,1.5,café,,\n8,2,,,\n", "2 rows"),
        ('"id","z","name"\n"7", "1.5", "café"\n"8","2",""\n', "commas"),
        (" id , z , name \n 7 , 1.5 , café \n 8 , 2 , \n", "commas"),
        ("sep=;\n" + PLAIN.replace(",", ";"), "semicolons"),
        ("# made in May, by hand; draft\n\n" + PLAIN, "1 comment line above the header"),
        ("# drawn by: A, B\n# id,z,name\n7,1.5,café\n8,2,\n", "the header is line 2, which begins with #"),
    ],
)
def test_the_same_table_is_read_however_it_was_written(tmp_path, content, said):
    read = sheet(tmp_path, content)
    assert read.columns == WANTED
    assert [read.number(cell) for cell in read.columns["z"]] == [1.5, 2.0]
    assert read.understood.startswith("t.csv: 2 rows; ") and said in read.understood


def test_cells_keep_delimiters_quotes_and_line_breaks_inside_quotes(tmp_path):
    read = sheet(tmp_path, 'id,position,note\n007,"[1, 2, 3]","he said ""no""\nand left"\n2,"[4, 5, 6]",\n')
    assert read.columns == {
        "id": ["007", "2"],
        "position": ["[1, 2, 3]", "[4, 5, 6]"],
        "note": ['he said "no"\nand left', ""],
    }
    assert read.lines == [2, 4]


def test_rows_know_their_lines(tmp_path):
    assert sheet(tmp_path, "# a\n\nid,z\n1,2\n\n3,4\n").lines == [4, 6]
    assert sheet(tmp_path, "# id,z\n\n1,2\n3,4\n").lines == [3, 4]
    assert sheet(tmp_path, "sep=,\nid,z\n1,2\n").lines == [3]


def test_a_column_without_a_name_is_called_by_its_place(tmp_path):
    assert sheet(tmp_path, ",id\n0,5\n1,6\n").columns == {"column 1": ["0", "1"], "id": ["5", "6"]}
    assert sheet(tmp_path, "the query\n1\n2\n").columns == {"the query": ["1", "2"]}
    assert sheet(tmp_path, "query\n1\n2\n").columns == {"query": ["1", "2"]}
    assert sheet(tmp_path, "query,kind\n").columns == {"query": [], "kind": []}
    assert sheet(tmp_path, "").columns == {}


@pytest.mark.parametrize(
    ("rows", "cell", "value"),
    [
        ("z;s\n1,5;0,25\n", "0,25", 0.25),
        ("z\ts\n1,5\t0,25\n", "1,5", 1.5),
        ('z,s\n"1,5","0,25"\n', "1,5", 1.5),
        ("z;s\n1,5;0,25\n", "-3,5e2", -350.0),
        ("z;s\n1,5;0,25\n", "3", 3.0),
        ("z;s\n1,234;0,25\n", "1,234", 1.234),  # 0,25 shows that the comma is a decimal sign
        ("z;s\n1,5;0,25\n", "1.234", None),  # in such a file a point divides thousands
        ("z;s\n1,5;0,25\n", "1.234,5", None),
        ("z;s\n1,234;5\n", "1,234", None),  # 1234 or 1.234
        ('z,s\n"1,234",5\n', "1,234", None),
        ("z,s\n1.5,2\n", "1,234.5", None),
        ("z,s\n1.5,2\n", "1_000", None),
        ("z,s\n1.5,2\n", "nan", None),
        ("z,s\n1.5,2\n", "inf", None),
        ("z,s\n1.5,2\n", "", None),
        ("z,s\n1.5,2\n", "٣", None),
        ("z,s\n1.5,2\n", "1.5e3", 1500.0),
    ],
)
def test_a_number_is_read_by_the_decimal_sign_of_the_file_or_not_at_all(tmp_path, rows, cell, value):
    number = sheet(tmp_path, rows).number(cell)
    assert number is None if value is None else number is not None and math.isclose(number, value)


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("z,y,x\n1,5,2,5,3,5\n", ["line 2 (row 1) has 6 values; expected 3", "decimals are written with a comma"]),
        ("id,p\n1,[1, 2, 3]\n", ["has 4 values; expected 2", "Put lists in quotes"]),
        ("z,y\n1,2\n1,2,3\n", ["line 3 (row 2) has 3 values; expected 2"]),
        ("query\n1;true\n2,5;true\n", ["line 3 (row 2) has 2 values; expected 1"]),
        ("a;b,c\n1;2,5\n", ["separated by commas or semicolons", "Write sep=, in a line above"]),
        ("z y x\n1 2 3\n4 5 6\n", ["seem to be separated by spaces"]),
        ("z,y,x\n1,2,3\n4,5", ["line 3: the file ends after 2 of 3 values", "Was it cut off?"]),
        ('z,y\n1,"2\n3,4\n', ["cannot be read as a table: unexpected end of data"]),
        ('z,y\n1,"2"3\n', ["cannot be read as a table: ',' expected after '\"'"]),
        ("1,2,3\n4,5,6\n", ["the first line holds numbers", "Add a header"]),
        ("z,y,z\n1,2,3\n", ["column 'z' twice"]),
        (b"PK\x03\x04....", ["is an Excel or LibreOffice workbook", "Save it as CSV UTF-8"]),
        (bytes(range(256)), ["bytes that are no text"]),
        ("id,z\ncafé,1\nété,2\n".encode() + b"\xe9,3\n", ["is UTF-8, but byte 21 breaks it"]),
        ("id,z\n突触,1\n".encode("gbk"), ["line 2: neither UTF-8 nor Windows-1252"]),
        ("id,z\nсинапс,1\n".encode("cp1251"), ["line 2: neither UTF-8 nor Windows-1252"]),
        ("id,z\ncafé,1\n".encode("mac-roman"), ["line 2: neither UTF-8 nor Windows-1252"]),
        ("id,z\nシナプス,1\n".encode("shift-jis"), ["neither UTF-8 nor Windows-1252"]),
        (PLAIN.encode("utf-16")[:-3], ["is UTF-16, but byte"]),
        (gzip.compress(PLAIN.encode() * 50, mtime=0)[:-20], ["cannot be read as a table"]),
    ],
)
def test_what_can_be_read_in_two_ways_or_is_broken_is_refused(tmp_path, content, sentences):
    with pytest.raises(InputError) as error:
        sheet(tmp_path, content)
    assert all(sentence in str(error.value) for sentence in sentences), error.value


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv cannot be read as a table: .*No such file"):
        read_sheet(tmp_path / "none.csv")
