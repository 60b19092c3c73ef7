"""Neuroglancer: points as a viewer state with local annotations, and the parts of states that all our links share.

Neuroglancer counts positions in voxels, x first; voxel 10 reaches from 10 to 11, so that 10.5 is its centre. A person
answers in the description of an annotation, or by a tag.

Knows the state's JSON; must not know HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from twostream.base.errors import InputError
from twostream.base.geometry import Vector
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.exchange.points import Place, Point, is_missed, note_cells, query_cells, sheet_of
from twostream.volume.uri import Uri
from twostream.volume.volume import Volume, VoxelSize

AXES = "xyz"
NM = 1e-9


def dimensions(voxel_size_nm: VoxelSize) -> dict[str, Any]:
    """The coordinate space of a state: x, y and z in metres."""
    return {name: [size * NM, "m"] for name, size in zip(AXES, reversed(voxel_size_nm), strict=True)}


def position(voxel_zyx: Vector, offset_zyx: Vector) -> list[float]:
    """(x, y, z) of the centre of a voxel of the image."""
    return [v + o + 0.5 for v, o in zip(reversed(voxel_zyx), reversed(offset_zyx), strict=True)]


def link(client: str, state: Mapping[str, Any]) -> str:
    """The address that opens a state in the client at ``client``."""
    return f"{client}#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"


def direct_source(image: Volume, uri: str, window: Sequence[float] | None) -> str | None:
    """The source by which Neuroglancer reads a remote image itself; None if it must be served.

    Args:
        image: the image of a project.
        uri: from which it was opened.
        window: of grey values; an image that is seen through one must be served.
    """
    parsed = Uri.parse(uri)
    # Browsers let a page that came by https read nothing by http from other machines.
    if not parsed.is_remote or parsed.path.startswith("http://") or window is not None:
        return None
    if parsed.driver == "precomputed":
        at = whole_place(image) and (parsed.part == "" or image.offset_nm is not None)
        return f"precomputed://{parsed.path.rstrip('/')}" if at else None
    is_plain = parsed.dataset == "" and parsed.part == "" and not any(image.offset_nm or ())
    if parsed.driver == "zarr" and is_plain and image.metadata.voxel_size_from.startswith("OME"):
        return f"zarr://{parsed.path.rstrip('/')}"
    return None


def whole_place(volume: Volume) -> bool:
    """Whether the place of a volume is a whole number of voxels, as precomputed volumes state it."""
    place = volume.offset_nm or (0.0, 0.0, 0.0)
    found = [p / s for p, s in zip(place, volume.voxel_size_nm, strict=True)]
    return all(abs(v - round(v)) <= 1e-3 for v in found)


# -- out and back -----------------------------------------------------------------------------------------------------


def write_state(points: Sequence[Point], place: Place, image_source: str | None) -> str:
    """A viewer state with one annotation for each point, as JSON.

    Args:
        points: the open queries.
        place: of the image.
        image_source: of a layer with the image; None leaves it out.
    """
    space = dimensions(place.voxel_size_nm)
    annotations = [
        {
            "type": "point",
            "id": point.name,
            "point": position(point.at, place.offset_zyx),
            "description": f"query {point.query}: ",
        }
        for point in points
    ]
    layer = {
        "type": "annotation",
        "name": "queries",
        "source": {"url": "local://annotations", "transform": {"outputDimensions": space}},
        "tab": "annotations",
        "annotations": annotations,
    }
    layers = [{"type": "image", "name": "image", "source": image_source}] if image_source else []
    state = {
        "dimensions": space,
        "layers": [*layers, layer],
        "selectedLayer": {"layer": "queries", "visible": True},
        "layout": "4panel",
    }
    if points:
        state["position"] = position(points[0].at, place.offset_zyx)
    return json.dumps(state, indent=1)


def is_state(text: str) -> bool:
    """Whether a file holds a viewer state, or the link of one."""
    if "#!" in text[:2000] and text.lstrip().startswith("http"):
        return True
    if not text.lstrip().startswith("{") or '"layers"' not in text:
        return False
    try:
        return "layers" in json.loads(text)
    except json.JSONDecodeError:
        pass
    try:  # JSON lines, in which the word stands somewhere
        json.loads(text.lstrip().partition("\n")[0])
    except json.JSONDecodeError:
        return True
    return False


def read_state(path: Path, text: str, place: Place) -> AnswerSheet:
    """The answers in the annotations of a viewer state, or of a link.

    Raises:
        InputError: it is no whole state, or has no annotations about queries.
    """
    text = unquote(text.strip().partition("#!")[2]) if text.lstrip().startswith("http") else text
    try:
        return _read(path, json.loads(text), place)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no whole viewer state of Neuroglancer: {error}. Copy all that the button {{}} shows."
        ) from None


def _read(path: Path, state: Mapping[str, Any], place: Place) -> AnswerSheet:
    found = [(layer, one) for layer in state["layers"] for one in layer.get("annotations", [])]
    rows, passed_over = [], 0
    for number, (layer, one) in enumerate(found, start=1):
        note = _note(layer, one)
        about = query_cells(str(one.get("id", "")))
        if about is not None:
            rows.append(Row(number, about | note_cells(note)))
        elif is_missed(note) and "point" in one:
            rows.append(Row(number, note_cells(note) | _voxel(path, number, one["point"], state, layer, place)))
        else:
            passed_over += 1
    return sheet_of(path, rows, "annotation", passed_over)


def _note(layer: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    """What a person says in an annotation: its tags, or its description."""
    properties = zip(layer.get("annotationProperties", []), annotation.get("props", []), strict=False)
    tags = [str(one["tag"]) for one, value in properties if one.get("tag") and value]
    older = {one.get("id"): one.get("label", "") for one in layer.get("annotationTags", [])}
    tags += [str(older.get(one, "")) for one in annotation.get("tagIds", [])]
    said = note_cells(str(annotation.get("description") or ""))
    text = " ".join(part for part in (said["kind"], said["reason"]) if part)
    if tags and text and said["kind"].lower() != tags[0].lower():
        return f"{tags[0]} {text}"
    return " ".join([*tags, *([said["reason"]] if tags else [text])]).strip()


def _voxel(
    path: Path, number: int, point: Any, state: Mapping[str, Any], layer: Mapping[str, Any], place: Place
) -> dict[str, str]:
    """The columns z, y and x of a point in the coordinates of its layer, in voxels of the image."""
    try:
        source = layer.get("source")
        transform = source.get("transform", {}) if isinstance(source, dict) else {}
        space = transform.get("outputDimensions") or state["dimensions"]
        at = dict(zip(space, point, strict=True))
        cells = {}
        for name, size, offset in zip("zyx", place.voxel_size_nm, place.offset_zyx, strict=True):
            scale, unit = space[name]
            if unit != "m":
                raise ValueError(f"the axis {name} has the unit {unit!r}")
            cells[name] = str(int(at[name] * scale / (size * NM) // 1) - offset)
        return cells
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path}, annotation {number}: its place in x, y and z cannot be read ({error}).") from None
