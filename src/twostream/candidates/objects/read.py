"""Tables of objects, such as the synapses of an existing connectome: reading and checking them.

A table has one row per object:

    z, y, x              centre in voxels of the image; or z_nm, y_nm, x_nm in nm
    box_z0 .. box_x1     optional: half-open bounding box in voxels; the ellipsoid inscribed in it is the mask
    score                optional: in [0, 1]
    id                   optional: a unique number or name; without it the row number is the id
    pre_z .. post_x      optional, polarity: one point on the presynaptic and one on the postsynaptic side; or
                         pre_z_nm .. post_x_nm

Positions may also stand in the columns that connectomes have (``columns``), in voxels of another resolution
(``positions``). Without a centre it is the middle of the two points. A value that does not fit is an error that names
file, row and column. ``painting`` turns the objects into labels. Knows files and the image's extent; must not know
masks, projects or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twostream.candidates.objects.columns import (
    BOX,
    IDS,
    ListOrder,
    Role,
    find_points,
    missing_center,
    setting,
)
from twostream.candidates.objects.files import Table
from twostream.candidates.objects.ids import read_ids
from twostream.candidates.objects.positions import check_distances, place
from twostream.task import Task
from twostream.volume import Volume

UNKNOWN_SCORE = 0.5
"""Score of an object if the source gives none."""


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
        understood: sentences that say how the table was read: file, columns, unit, extent; for people to check.
    """

    center: np.ndarray
    box: np.ndarray | None
    pre: np.ndarray | None
    post: np.ndarray | None
    score: np.ndarray
    ids: list[int] | list[str]
    understood: tuple[str, ...] = ()


def read_objects(
    path: Path,
    image: Volume,
    task: Task,
    *,
    columns: Mapping[str, str | None] | None = None,
    table_resolution_nm: tuple[float, float, float] | None = None,
    list_order: ListOrder = "xyz",
) -> Objects:
    """Read and check a table of objects; the module's docstring lists the columns.

    Args:
        path: a file that ``files.READERS`` knows.
        image: objects must lie in it.
        task: the points ``pre`` and ``post`` give directions only for the polarity task.
        columns: {our name: the table's column}, where the names do not tell; None as a value ignores a column.
        table_resolution_nm: (z, y, x) nm of the voxels in which positions are given; None if they are voxels of the
            image, or nm by their names. (1, 1, 1) reads nm.
        list_order: of list columns.

    Raises:
        InputError: the file cannot be read, a column is missing, or a value does not fit.
    """
    table, given = Table.read(path), columns or {}
    points = find_points(table, given, list_order, task.num_sides)
    has_sides = {"pre", "post"} <= set(points)
    if "center" not in points and not has_sides:
        raise missing_center(table)
    if task.num_sides == 2 and ("pre" in points) != ("post" in points):
        missing = "pre" if "post" in points else "post"
        raise table.lacks([f"{missing}_{axis}" for axis in "zyx"], "a direction needs a point on both sides")
    placed: dict[Role, np.ndarray] = {}
    lines = [table.understood]
    for role, point in points.items():
        placed[role], said = place(table, point, image, table_resolution_nm)
        lines.append(said)
    if has_sides:
        same = (placed["pre"] == placed["post"]).all(1)
        name = points["post"].names[-1]
        table.refuse(same, name, "a point that differs from the presynaptic one, because the two give the direction")
    stated = table_resolution_nm is not None or all(point.is_stated for point in points.values())
    lines += check_distances(table, placed, points, image, is_stated=stated)
    center = placed.get("center")
    if center is None:
        center = (placed["pre"] + placed["post"]) / 2
        lines.append("centre half-way between the presynaptic and the postsynaptic point")
    pre, post = (placed.get(role) if task.num_sides == 2 else None for role in ("pre", "post"))
    score, score_line = _scores(table, given)
    id_name = _column(table, given, "id", IDS)
    box = _boxes(table, given, center, image)
    used = [name for point in points.values() for name in point.names] + [id_name, _column(table, given, "score")]
    if box is not None:
        lines.append("the masks are the ellipsoids inscribed in the boxes")
        used += [given.get(name) or name for name in BOX]
    lines += [score_line, f"ids from {id_name}" if id_name else "no column of ids: the row number is the id"]
    if unused := [name for name in table.columns if name not in used]:
        lines.append(f"not used: {', '.join(unused)}")
    return Objects(center, box, pre, post, score, read_ids(table, id_name), tuple(lines))


def _column(table: Table, given: Mapping[str, str | None], name: str, others: tuple[str, ...] = ()) -> str | None:
    """The table's column for one of our names; None if it has none, or if the user says to ignore it."""
    if name in given:
        if given[name] is not None:
            table.require([str(given[name])], "source.columns names it")
        return given[name]
    return next((other for other in (name, *others) if other in table.columns), None)


def _scores(table: Table, given: Mapping[str, str | None]) -> tuple[np.ndarray, str]:
    """``Objects.score``, and a sentence about it."""
    name = _column(table, given, "score")
    if name is None:
        return np.full(table.num_rows, UNKNOWN_SCORE), f"no scores: every object has {UNKNOWN_SCORE}"
    score = table.numbers(name)
    hint = f" To do without scores, pass {setting('columns.score', 'null')}"
    table.refuse((score < 0) | (score > 1), name, "a score in [0, 1]", hint)
    return score, f"scores from {name}"


def _boxes(table: Table, given: Mapping[str, str | None], center: np.ndarray, image: Volume) -> np.ndarray | None:
    """``Objects.box``, checked against the image and the (N, 3) centres."""
    names = [given.get(name) or name for name in BOX]
    if not set(names) & set(table.columns):
        return None
    table.require(names, "a box needs all six: box_z0, box_y0, box_x0, box_z1, box_y1, box_x1")
    starts, stops = names[:3], names[3:]
    box = np.stack([table.numbers(name) for name in names], 1)
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
