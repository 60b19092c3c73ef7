"""VAST: points as a text file of segment colours, in which every query is a segment with an anchor point.

The layout is the one that VAST's MATLAB tools read (``scanvastcolorfile.m``): lines of 24 whole numbers and a name in
quotation marks; lines that begin with % are comments. A person answers by renaming a segment: ``query 12 of P: true``.

Knows this text; must not know projects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twostream.base.errors import InputError
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.exchange.points import Point, note_cells, query_cells, sheet_of

HEADER = """\
% VAST segment colours: the open queries, one segment for each
% Answer by renaming a segment, e.g. "query 12 of PROJECT: true"
% id flags  r g b pattern  r g b pattern  anchor x y z  parent child previous next  collapsed  box x y z x y z  name
"""
COLOUR = "255 209 63 0   255 209 63 0"
_LINE = re.compile(r'^\s*((?:-?\d+\s+){24})"(.*)"\s*$')


def write_colours(points: Sequence[Point]) -> str:
    """The text file; places are in voxels of the image, x first, counted from 0."""
    lines = [f'0   0   0 0 0 0   0 0 0 0   -1 -1 -1   0 0 0 {int(bool(points))}   0   -1 -1 -1 -1 -1 -1   "Background"']
    for number, point in enumerate(points, start=1):
        z, y, x = point.at
        after = number + 1 if number < len(points) else 0
        box = [*reversed(point.box.offset_zyx), *(v - 1 for v in reversed(point.box.stop_zyx))]
        corners = " ".join(map(str, box))
        links = f"0 0 {number - 1} {after}   {number}"
        lines.append(f'{number}   1   {COLOUR}   {x} {y} {z}   {links}   {corners}   "{point.name}: "')
    return HEADER + "\n".join(lines) + "\n"


def is_colours(text: str) -> bool:
    """Whether the first line of a file that is no comment is one of VAST's."""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("%")), "")
    return bool(_LINE.match(first)) or text.startswith("% VAST")


def read_colours(path: Path, text: str) -> AnswerSheet:
    """The answers in the names of segments.

    Raises:
        InputError: a line has another form, or no segment is about a query.
    """
    rows, passed_over = [], 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("%"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise InputError(f"{path}, line {number}: expected 24 whole numbers and a name in quotation marks.")
        name = found[2]
        about = query_cells(name)
        if about is not None:
            rows.append(Row(number, about | note_cells(name)))
        else:
            passed_over += name != "Background"
    return sheet_of(path, rows, "line", passed_over)
