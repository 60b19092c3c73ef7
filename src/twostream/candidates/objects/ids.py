"""Ids of objects: numbers that are names, so every digit counts.

Ids of connectomes have 18 digits. A float holds 15 to 16 and a spreadsheet shows 15, so an id that went through either
may be another object's. Such ids are refused, and whole numbers are kept exactly up to 2^64 - 1. Knows values of a
table; must not know positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.candidates.objects.files import Table

EXACT = 2**53
"""Up to here a float of 64 bits holds every whole number."""
EVIDENCE_BITS = 20
"""Digits were lost if all ids end in zeros that exact ids would have by chance with a probability below 2^-20."""
SPREADSHEET_DIGITS = 15
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,19}")
"""An integer as Python writes it. Ids such as 007 are names, because they would change if read as numbers."""
_FLOAT = re.compile(r"(-?[1-9])?(\d*)\.?(\d*)(?:[eE]\+?(\d+))?", re.ASCII)
REMEDY = "Export the ids as whole numbers (int64) or as text, and do not save the table in a spreadsheet"


def read_ids(table: Table, name: str | None) -> list[int] | list[str]:
    """The ids of a table.

    Args:
        table: the table.
        name: of the column; None numbers the rows from 1.

    Returns:
        (N,) numbers if all ids are whole and fit 64 bits, signed or unsigned; else names, exactly as they stand there.

    Raises:
        InputError: an id is missing, there twice, or has lost digits.
    """
    if name is None:
        return list(range(1, table.num_rows + 1))
    values = [value.strip() if isinstance(value, str) else value for value in table.columns[name]]
    wrong = [value is None or value != value or value == "" for value in values]
    table.refuse(np.array(wrong), name, "a number or a name")
    table.refuse(
        np.array([_lost_digits(value, table.decimal) for value in values]),
        name,
        "an id with all of its digits; this one went through a float or a spreadsheet",
        f" {REMEDY}.",
    )
    names = [_as_name(value) for value in values]
    wholes = [_without_decimals(text, table.decimal) for text in names]
    numbers = [int(text) if _WHOLE.fullmatch(text) else None for text in wholes]
    whole = [number for number in numbers if number is not None]
    if len(whole) < len(names):
        _refuse_repeated(table, name, names)
        return names
    rounded = _are_rounded(whole)
    table.refuse(
        np.full(len(whole), bool(rounded)),
        name,
        f"ids with all of their digits, but {rounded}",
        f" {REMEDY}. If they really are so, write a letter before each, so that they are read as names.",
    )
    _refuse_repeated(table, name, whole)
    signed = all(-(2**63) <= number < 2**63 for number in whole)
    return whole if signed or all(0 <= number < 2**64 for number in whole) else names


def _as_name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _without_decimals(text: str, decimal: str) -> str:
    """12 for 12.0 or 1.2e+01; other texts as they are."""
    plain = text.replace(",", ".") if decimal == "," else text
    match = _FLOAT.fullmatch(plain)
    if match is None or not match[1] or plain.isdigit():
        return text
    exponent = int(match[4] or 0)
    head, tail = match[3][:exponent], match[3][exponent:]
    is_whole = exponent <= len(match[3]) and not tail.strip("0") and (not match[2] or not exponent)
    return f"{match[1]}{match[2]}{head}" if is_whole else text


def _lost_digits(value: Any, decimal: str) -> bool:
    """Whether a value is a float that is too large to be exact, or a text that such a float was written as."""
    if isinstance(value, float):
        return abs(value) > EXACT
    if not isinstance(value, str):
        return False
    match = _FLOAT.fullmatch(value.replace(",", ".") if decimal == "," else value)
    if match is None or not match[1] or not (match[3] or match[4] or "." in value):
        return False
    exponent = int(match[4] or 0)
    # 8.64691E+17 is a number that lost digits; 12e4 may be a name.
    too_few = len(match[3]) < exponent and any(sign in value for sign in "+.,")
    return too_few or len(f"{match[1]}{match[2]}".lstrip("-")) + exponent > SPREADSHEET_DIGITS + 1


def _are_rounded(ids: Sequence[int]) -> str:
    """Why whole numbers must have been rounded; "" if they need not have been."""
    large = [abs(number) for number in ids if abs(number) > EXACT]
    decimal = sum(math.log2(10) * max(len(str(n)) - SPREADSHEET_DIGITS, 0) for n in large)
    if (
        large
        and decimal >= EVIDENCE_BITS
        and all(n % 10 ** max(len(str(n)) - SPREADSHEET_DIGITS, 0) == 0 for n in large)
    ):
        return f"after {SPREADSHEET_DIGITS} digits all of them have zeros, as a spreadsheet leaves them"
    binary = sum(math.log2(math.ulp(n)) for n in large)
    if large and binary >= EVIDENCE_BITS and all(n % int(math.ulp(n)) == 0 for n in large):
        return "all of them are numbers that a float can hold, which by chance would hardly happen"
    return ""


def _refuse_repeated(table: Table, name: str, ids: Sequence[object]) -> None:
    first: dict[object, int] = {}
    for row, value in enumerate(ids):
        if value in first:
            before = first[value] + 1
            table.refuse(np.arange(table.num_rows) == row, name, f"a unique id, but row {before} has the same one")
        first[value] = row
