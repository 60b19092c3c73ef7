"""Points as CSV: for CAVE, and for whatever reads x, y, z. They come back as any answer table, by the column ``kind``.

Knows columns; must not know projects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twostream.base.geometry import Vector
from twostream.project.exchange.points import Place, Point

EMPTY = dict.fromkeys(("kind", "reason", "seconds"), "")


def xyz_rows(points: Sequence[Point], offset_zyx: Vector, project: str) -> list[dict[str, Any]]:
    """Rows with the columns ``x``, ``y`` and ``z``, in whole voxels."""
    return [_about(point, project) | _xyz("", point.at, offset_zyx) for point in points]


def cave_rows(points: Sequence[Point], place: Place, project: str) -> list[dict[str, Any]]:
    """Rows with the bound points of CAVE's schemas, in voxels of the resolution that stands beside them.

    ``pt_position`` is the point of the schema `bound_tag`; the others, where a candidate has two sides, those of
    `synapse`. The three columns of each are called as CAVEclient calls them with ``split_positions=True``.
    """
    resolution = {f"resolution_{name}_nm": size for name, size in zip("zyx", place.voxel_size_nm, strict=True)}
    rows = []
    for point in points:
        row = _about(point, project) | {"tag": point.name} | _xyz("pt_position_", point.at, place.offset_zyx)
        if point.sides:
            pre, post = point.sides
            row |= _xyz("pre_pt_position_", pre, place.offset_zyx)
            row |= _xyz("ctr_pt_position_", point.at, place.offset_zyx)
            row |= _xyz("post_pt_position_", post, place.offset_zyx)
        rows.append(row | dict(sorted(resolution.items())))
    return rows


def _about(point: Point, project: str) -> dict[str, Any]:
    return {"project": project, "query": point.query, "candidate": point.candidate} | EMPTY


def _xyz(prefix: str, at: Vector, offset: Vector) -> dict[str, int]:
    places = {name: v + o for name, v, o in zip("zyx", at, offset, strict=True)}
    return {f"{prefix}{name}": places[name] for name in "xyz"}
