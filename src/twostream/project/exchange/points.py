"""Queries as points that other tools can show, and the words by which a point is recognised when it comes back.

A point lies on a voxel of the object. Its name is ``query 12 of PROJECT``; a person answers by a note, which begins
with a kind of answer: ``true``, or ``query 12: shape, two vesicles merged``.

Knows candidates, queries and text; must not know formats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box, Vector
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.project import Project
from twostream.project.segmentation import SEGMENTATION_NAME
from twostream.project.tables import latest_round
from twostream.volume import open_volume
from twostream.volume.volume import VoxelSize

COLUMNS = ("project", "query", "kind", "reason", "z", "y", "x")
_LABEL = re.compile(r"query (\d+) of ([A-Za-z0-9-]+)")
_PREFIX = re.compile(r"^\s*query \d+(?: of [A-Za-z0-9-]+)?(?:_\d+)?[\s:,;.–-]*", re.IGNORECASE)
_NOTE = re.compile(r"^([^\s:,;.]+)[\s:,;.–-]*(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where the voxels of a project's image lie in the coordinates of its data set.

    Attributes:
        voxel_size_nm: (z, y, x) in nm.
        offset_zyx: (z, y, x) of the image's first voxel, in voxels of the data set; 0 where the image states no place,
            or one that is no whole number of voxels.
        shape_zyx: extent (z, y, x) of the image in voxels.
    """

    voxel_size_nm: VoxelSize
    offset_zyx: Vector
    shape_zyx: Vector


@dataclass(frozen=True)
class Point:
    """An open query as a point.

    Attributes:
        query: id of the query.
        candidate: id of its candidate.
        name: ``query 12 of PROJECT``.
        at: (z, y, x) of a voxel of the object, in voxels of the image.
        sides: the same on the presynaptic and on the postsynaptic side; None where the mask lacks one of them.
        box: of the candidate, in voxels of the image.
    """

    query: int
    candidate: int
    name: str
    at: Vector
    sides: tuple[Vector, Vector] | None
    box: Box


def whole_offset(offset_nm: VoxelSize | None, voxel_size_nm: VoxelSize) -> Vector:
    """(z, y, x) in whole voxels of a place in nm, the nearest ones; zeros where there is none."""
    z, y, x = (int(v) for v in np.rint(np.asarray(offset_nm or (0, 0, 0)) / np.asarray(voxel_size_nm)))
    return z, y, x


def place_of(project: Project) -> Place:
    """The place of a project's image, from the newest segmentation if it is there: the image may be out of reach."""
    path = project.path(latest_round(project, "propose"), SEGMENTATION_NAME)
    volume = open_volume(str(path)) if path.exists() else project.image
    offset = whole_offset(volume.offset_nm, volume.voxel_size_nm)
    return Place(volume.voxel_size_nm, offset, volume.shape_zyx)


def inner_voxel(mask: np.ndarray, box: Box, voxel_size_nm: Sequence[float]) -> Vector:
    """The voxel of a mask that is nearest to its centre of mass; the centre itself may lie outside of a bent object.

    Args:
        mask: (Z, Y, X) over ``box``, non-zero inside; at least one voxel.
        box: in voxels of the image.
        voxel_size_nm: (z, y, x) in nm.

    Returns:
        (z, y, x) in voxels of the image.
    """
    inside = np.argwhere(mask)
    away = ((inside - inside.mean(0)) * voxel_size_nm) ** 2
    z, y, x = (inside[away.sum(1).argmin()] + box.offset_zyx).tolist()
    return z, y, x


def open_points(project: Project, place: Place) -> list[Point]:
    """The open queries as points, in the order in which they were asked."""
    identity, size = project.id, place.voxel_size_nm
    points = []
    for query in project.ledger.open_queries():
        mask, box = query.candidate.mask, query.candidate.box
        both = (mask == 1).any() and (mask == 2).any()
        sides = (inner_voxel(mask == 1, box, size), inner_voxel(mask == 2, box, size)) if both else None
        at = inner_voxel(mask, box, size)
        points.append(Point(query.id, query.candidate.id, f"query {query.id} of {identity}", at, sides, box))
    return points


def query_cells(name: str) -> dict[str, str] | None:
    """The columns ``project`` and ``query`` from a text that holds a point's name; None if it holds none."""
    found = _LABEL.search(name)
    return {"query": found[1], "project": found[2]} if found else None


def note_cells(note: str) -> dict[str, str]:
    """The columns ``kind`` and ``reason`` from a note; both are "" if nothing stands behind the number of the query."""
    found = _NOTE.match(_PREFIX.sub("", note).strip())
    return {"kind": found[1], "reason": found[2].strip()} if found else {"kind": "", "reason": ""}


def is_missed(note: str) -> bool:
    """Whether a note marks an object that was missed."""
    return note_cells(note)["kind"].lower() == "missed"


def sheet_of(path: Path, rows: Sequence[Row], unit: str, passed_over: int) -> AnswerSheet:
    """The table of what came back.

    Args:
        path: the file.
        rows: with the columns ``COLUMNS`` or some of them.
        unit: what the file calls a row, such as "annotation".
        passed_over: how many points are neither about a query nor about a missed object.

    Raises:
        InputError: there are no rows.
    """
    if not rows:
        raise InputError(
            f"{path} holds no {unit} that is named 'query NUMBER of PROJECT'. Was it exported by `twostream export "
            f"--what queries`, and were the names kept?"
        )
    beside = f"; {passed_over} others are about no query and were passed over" if passed_over else ""
    return AnswerSheet(path, COLUMNS, list(rows), f"{path.name}: {len(rows)} {unit}s{beside}", "", unit)
