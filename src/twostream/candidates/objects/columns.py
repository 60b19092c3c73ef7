"""Which columns of a table hold the objects' positions: from names as connectomes write them to points.

A name is read word by word: pre, post or centre; position or point; x, y or z; nm. So ``pre_pt_position_x``, ``x_pre``
and ``presyn_x`` are one thing. A name with any other word, such as ``pre_pt_root_id``, is no position. A list column
holds x, y, z in this order, as CAVE, neuPrint and Neuroglancer write it, unless its name or ``list_order`` says
z, y, x.

Knows names, and whether a value looks like three numbers; must not know the image.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twostream.base.errors import InputError
from twostream.candidates.objects.files import Table

ListOrder = Literal["xyz", "zyx"]
Role = Literal["center", "pre", "post"]
ROLES: tuple[Role, ...] = ("center", "pre", "post")
PREFIX = {"center": "", "pre": "pre_", "post": "post_"}
NAME_OF: dict[Role, str] = {"center": "centre", "pre": "presynaptic point", "post": "postsynaptic point"}
"""Words for messages."""
BOX = tuple(f"box_{axis}{end}" for end in "01" for axis in "zyx")
COLUMNS = (
    *(f"{PREFIX[role]}{axis}{unit}" for role in ROLES for unit in ("", "_nm") for axis in "zyx"),
    *(f"{role}{unit}" for role in ROLES for unit in ("", "_nm")),
    *BOX,
    "score",
    "id",
)
"""Names that the setting ``source.columns`` may give to columns of the table."""
IDS = ("id", "synapse_id", "syn_id", "connector_id", "object_id")
"""Names of the column of ids; the first that is there counts."""
_ROLE_OF: dict[str, Role] = {
    **dict.fromkeys(("pre", "presyn", "presynaptic"), "pre"),
    **dict.fromkeys(("post", "postsyn", "postsynaptic"), "post"),
    **dict.fromkeys(("ctr", "center", "centre", "centroid", "cleft"), "center"),
}
_PLACE = {"pt", "point", "pos", "position", "loc", "location", "coord", "coords", "coordinate", "coordinates"}
_NO_MATTER = {"syn", "synapse", "connector"}
_NM = {"nm": 1.0, "um": 1000.0, "µm": 1000.0, "μm": 1000.0}
_VOXELS = {"vx", "voxel", "voxels", "px"}


@dataclass(frozen=True)
class Point:
    """Where one point of every object stands in the table.

    Attributes:
        role: which point.
        names: the columns of z, y and x, or the one list column.
        order: order of the numbers in the list column; "zyx" for three columns.
        unit_nm: nm per unit; None if the numbers are voxels.
        is_stated: whether the user named the columns, so that the unit is not questioned.
    """

    role: Role
    names: tuple[str, ...]
    order: ListOrder = "zyx"
    unit_nm: float | None = None
    is_stated: bool = False

    def __str__(self) -> str:
        return self.names[0] if len(self.names) == 1 else ", ".join(self.names)

    def numbers(self, table: Table) -> np.ndarray:
        """(N, 3) float z, y, x as they stand in the table.

        Raises:
            InputError: a row does not hold finite numbers.
        """
        if len(self.names) == 1:
            values = table.triples(self.names[0])
            return values if self.order == "zyx" else values[:, ::-1]
        return np.stack([table.numbers(name) for name in self.names], 1)


def find_points(
    table: Table, given: Mapping[str, str | None], list_order: ListOrder, num_sides: int
) -> dict[Role, Point]:
    """The points of a table, by role.

    Args:
        table: the table.
        given: {one of ``COLUMNS``: the table's column}; None as a value ignores the columns of the role.
        list_order: of list columns whose name does not say it.
        num_sides: of the task; with one side, points on the sides are read only if there is no centre.

    Raises:
        InputError: a column is missing, or several columns could be the same point.
    """
    found, partial = _by_name(table, list_order)
    result: dict[Role, Point] = {}
    for role in ROLES:
        if num_sides == 1 and "center" in result:
            break
        points = list(_stated(table, role, given, list_order))
        if not points and not _ignores(role, given):
            points = [point for point in found if point.role == role]
            incomplete = next((point for point in partial if point.role == role), None)
            if incomplete and not points:
                raise _incomplete(table, incomplete)
            if incomplete and incomplete.unit_nm != points[0].unit_nm:
                raise _several(table, [*points, incomplete])
        if len(points) > 1:
            raise _several(table, points)
        if points:
            result[role] = points[0]
    return result


def setting(name: str, value: str) -> str:
    """An option that can be pasted into a shell: --set source.NAME=VALUE."""
    return f"--set {shlex.quote(f'source.{name}={value}')}"


def columns_setting(names: Mapping[str, str]) -> str:
    """The option that gives our names to columns of the table."""
    plain = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
    shown = (f"{key}: {name if plain.fullmatch(name) else json.dumps(name)}" for key, name in names.items())
    return setting("columns", f"{{{', '.join(shown)}}}")


def as_setting(point: Point, unit: str = "") -> dict[str, str]:
    """The names that ``columns_setting`` needs for a point; ``unit`` is "" or "_nm"."""
    if len(point.names) == 1:
        return {f"{point.role}{unit}": point.names[0]}
    return {f"{PREFIX[point.role]}{axis}{unit}": name for axis, name in zip("zyx", point.names, strict=True)}


def missing_center(table: Table) -> InputError:
    """The error for a table without positions; it ends with the option that names the most likely columns."""
    guess = next(_look_like_positions(table), None)
    line = columns_setting(guess or dict(zip("zyx", ("Z_COLUMN", "Y_COLUMN", "X_COLUMN"), strict=True)))
    error = table.lacks(["z", "y", "x"], "expected z, y, x (voxels of the image) or z_nm, y_nm, x_nm")
    note = "If these are the positions, pass" if guess else "To name the columns, pass"
    for name in table.columns:
        said, value = _words(name), _first(table, name)
        if said and said.says_position and value is not None:
            return InputError(
                f"{error} {name} holds {str(value)[:40]!r}, not three numbers such as [1, 2, 3]. {note} {line}"
            )
    return InputError(f"{error} {note} {line}")


@dataclass(frozen=True)
class _Name:
    """What the words of a column's name say."""

    role: Role
    axis: str | None
    unit_nm: float | None
    order: ListOrder | None
    stem: tuple[str, ...]
    """The words without axis; columns of one point share it."""
    says_position: bool


def _words(name: str) -> _Name | None:
    """What a column's name says; None if one of its words has nothing to do with positions."""
    words = [word for word in re.split(r"[^a-zµμ]+", name.lower()) if word]
    known = set(_ROLE_OF) | _PLACE | _NO_MATTER | set(_NM) | _VOXELS | {"x", "y", "z", "xyz", "zyx"}
    axes = [word for word in words if word in ("x", "y", "z")]
    roles = {_ROLE_OF[word] for word in words if word in _ROLE_OF}
    if not words or re.search(r"\d", name) or not set(words) <= known or len(axes) > 1 or len(roles) > 1:
        return None
    order: ListOrder | None = "zyx" if "zyx" in words else "xyz" if "xyz" in words else None
    if axes and order:
        return None
    unit = next((_NM[word] for word in words if word in _NM), None)
    stem = tuple(word for word in words if word not in axes)
    says = bool(axes or order or roles or _PLACE & set(words))
    return _Name(roles.pop() if roles else "center", axes[0] if axes else None, unit, order, stem, says)


def _by_name(table: Table, list_order: ListOrder) -> tuple[list[Point], list[Point]]:
    """All points that the names of the columns tell; then those of which an axis is missing, "" as its name."""
    whole: list[Point] = []
    partial: list[Point] = []
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in table.columns:
        said = _words(name)
        if said is None or not said.says_position:
            continue
        if said.axis is None:
            if _first_triple(table, name) is not None:
                whole.append(Point(said.role, (name,), said.order or list_order, said.unit_nm))
            continue
        columns = groups.setdefault(said.stem, {})
        if said.axis in columns:
            both = f"{columns[said.axis]} and {name}"
            raise InputError(f"{table.path} has the columns {both}, which say the same. Remove one.")
        columns[said.axis] = name
    for columns in groups.values():
        said = _words(next(iter(columns.values())))
        assert said is not None
        point = Point(said.role, tuple(columns.get(axis, "") for axis in "zyx"), "zyx", said.unit_nm)
        (whole if len(columns) == 3 else partial).append(point)
    return whole, partial


def _incomplete(table: Table, point: Point) -> InputError:
    """The error for a point of which an axis is missing."""
    there = next(name for name in point.names if name)
    said = _words(there)
    assert said is not None and said.axis is not None
    # The name that is there shows how the missing one would be written.
    at = max(match.start() for match in re.finditer(rf"(?<![a-zA-Z]){said.axis}(?![a-zA-Z])", there, re.IGNORECASE))
    missing = [f"{there[:at]}{a}{there[at + 1 :]}" for a, name in zip("zyx", point.names, strict=True) if not name]
    return table.lacks(missing, "a point needs all of z, y and x")


def _first(table: Table, name: str) -> object:
    """The first value of a column that is there."""
    return next((value for value in table.columns[name] if value not in (None, "")), None)


def _first_triple(table: Table, name: str) -> object:
    """The first value of a column, if it is three numbers."""
    value = _first(table, name)
    return None if isinstance(value, (int, float)) or table.triple(value) is None else value


_COUNTED_FROM_1 = re.compile(r"\bslice\b", re.IGNORECASE)
"""Columns of Fiji that number the sections of a stack."""


def _stated(table: Table, role: Role, given: Mapping[str, str | None], list_order: ListOrder) -> Iterator[Point]:
    """The points that ``given`` names for a role."""
    for unit, unit_nm in (("", None), ("_nm", 1.0)):
        keys = [f"{PREFIX[role]}{axis}{unit}" for axis in "zyx"]
        names = [given.get(key) for key in keys]
        if any(names):
            lacking = [key for key, name in zip(keys, names, strict=True) if not name]
            if lacking:
                raise InputError(f"source.columns lacks {', '.join(lacking)}; a point needs all of z, y and x.")
            columns = tuple(name for name in names if name)
            table.require(columns, "source.columns names it")
            if unit_nm is None and _COUNTED_FROM_1.search(columns[0]):
                raise InputError(
                    f"{table.path}: the column {columns[0]} would be {keys[0]}, but slices are counted from 1 (as Fiji "
                    f"does), and z here from 0. Write a column of {columns[0]} minus 1 and name that one."
                )
            yield Point(role, columns, "zyx", unit_nm, True)
        if name := given.get(f"{role}{unit}"):
            table.require([name], "source.columns names it")
            said = _words(name)
            yield Point(role, (name,), (said and said.order) or list_order, unit_nm, True)


def _ignores(role: Role, given: Mapping[str, str | None]) -> bool:
    """Whether ``given`` says that the table's columns of a role do not count."""
    keys = [role, *(f"{PREFIX[role]}{axis}" for axis in "zyx")]
    return any(key in given and given[key] is None for key in keys)


def _several(table: Table, points: list[Point]) -> InputError:
    """The error for several columns that could be the same point."""
    role = points[0].role
    lines = " or ".join(
        columns_setting(as_setting(point, "_nm" if point.unit_nm == 1 else "")) for point in points if all(point.names)
    )
    if {point.unit_nm for point in points} == {None, 1.0}:
        what = f"{PREFIX[role]}z, y, x both in voxels and in nm"
    else:
        what = f"several columns for the {NAME_OF[role]}: {'; '.join(map(str, points))}"
    return InputError(f"{table.path} has {what}; expected only one of them. Remove one, or pass {lines}")


def _look_like_positions(table: Table) -> Iterator[dict[str, str]]:
    """Columns that may be positions though their names are not known, most likely first.

    Yields:
        Names as ``columns_setting`` takes them.
    """
    names = list(table.columns)
    for name in names:
        for at, letter in enumerate(name):
            axes = {"x": "zyx", "X": "ZYX", "2": "012"}.get(letter)  # 0, 1, 2: axes of an array Z, Y, X
            if axes is None:
                continue
            triple = [f"{name[:at]}{axis}{name[at + 1 :]}" for axis in axes]
            if set(triple) <= set(names) and _are_numbers(table, triple):
                yield {f"{_prefix_in(name)}{axis}": column for axis, column in zip("zyx", triple, strict=True)}
    for name in names:
        if _first_triple(table, name) is not None:
            yield {"center": name}


def _prefix_in(name: str) -> str:
    lowered = name.lower()
    return "pre_" if lowered.startswith("pre") else "post_" if lowered.startswith("post") else ""


def _are_numbers(table: Table, names: Iterable[str]) -> bool:
    return all(np.isfinite(table.number(table.columns[name][0])) for name in names)
