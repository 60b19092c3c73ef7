"""WEBKNOSSOS: points as an NML file, one tree of one node for each query. A person answers in the node's comment.

Positions are whole voxels, x first. A tree with several unconnected nodes would be split and renamed on import. Knows
NML, as WEBKNOSSOS writes and reads it; must not know projects.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from twostream.base.errors import InputError
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.exchange.points import Place, Point, is_missed, note_cells, query_cells, sheet_of

GROUP = "1"
COLOUR = {"color.r": "1", "color.g": "0.82", "color.b": "0.25", "color.a": "1"}
MAX_BYTES = 1 << 28
"""Of an NML file in an archive: a million trees."""
USUAL = {"inVp": "0", "inMag": "0", "bitDepth": "8", "interpolation": "false", "time": "1"}
"""What every node has beside its place: WEBKNOSSOS's own files have it."""


def write_nml(points: Sequence[Point], place: Place, dataset: str) -> str:
    """An NML file.

    Args:
        points: the open queries.
        place: of the image.
        dataset: name of the image.
    """
    root = ElementTree.Element("things")
    parameters = ElementTree.SubElement(root, "parameters")
    ElementTree.SubElement(parameters, "experiment", name=dataset)
    z, y, x = (f"{size:g}" for size in place.voxel_size_nm)
    ElementTree.SubElement(parameters, "scale", x=x, y=y, z=z, unit="nanometer")
    ElementTree.SubElement(parameters, "offset", x="0", y="0", z="0")
    for number, point in enumerate(points, start=1):
        tree = {"id": str(number), "name": point.name, "groupId": GROUP}
        thing = ElementTree.SubElement(root, "thing", tree | COLOUR)
        nodes = ElementTree.SubElement(thing, "nodes")
        z, y, x = (str(v + o) for v, o in zip(point.at, place.offset_zyx, strict=True))
        radius = f"{max(place.voxel_size_nm) * 2:g}"
        node = {"id": str(number), "radius": radius, "x": x, "y": y, "z": z}
        ElementTree.SubElement(nodes, "node", node | USUAL)
        ElementTree.SubElement(thing, "edges")
    ElementTree.SubElement(root, "branchpoints")
    comments = ElementTree.SubElement(root, "comments")
    for number, point in enumerate(points, start=1):
        ElementTree.SubElement(comments, "comment", node=str(number), content=f"query {point.query}: ")
    groups = ElementTree.SubElement(root, "groups")
    ElementTree.SubElement(groups, "group", id=GROUP, name="open queries")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def read_nml(path: Path, text: str, place: Place) -> AnswerSheet:
    """The answers in the comments of an NML file.

    Raises:
        InputError: it is no whole NML file, has no trees about queries, or two comments that differ in one tree.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares a document type, which NML files do not; save the annotation again.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is no whole NML file: {error}. Download it from WEBKNOSSOS again.") from None
    if root.tag != "things":
        raise InputError(f"{path} is XML of the kind <{root.tag}>; expected an NML file, <things>.")
    notes = {one.get("node", ""): one.get("content", "").strip() for one in root.iterfind("comments/comment")}
    rows, passed_over = [], 0
    for number, thing in enumerate(root.iterfind("thing"), start=1):
        nodes = thing.findall("nodes/node")
        about = query_cells(thing.get("name", ""))
        if about is not None:
            rows.append(Row(number, about | _said(path, number, [notes.get(node.get("id", ""), "") for node in nodes])))
            continue
        missed = [node for node in nodes if is_missed(notes.get(node.get("id", ""), ""))]
        rows += [
            Row(number, note_cells(notes[node.get("id", "")]) | _voxel(path, number, node, place)) for node in missed
        ]
        passed_over += not missed
    return sheet_of(path, rows, "tree", passed_over)


def nml_in(path: Path) -> str | None:
    """The text of the NML file in an archive, as WEBKNOSSOS writes one for some annotations; None if there is none.

    Raises:
        InputError: it holds several NML files, or one that is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [one for one in archive.infolist() if one.filename.lower().endswith(".nml")]
            if not found:
                return None
            if len(found) > 1:
                names = ", ".join(one.filename for one in found)
                raise InputError(f"{path} holds several NML files ({names}); unpack it and pass each one.")
            if found[0].file_size > MAX_BYTES:
                raise InputError(
                    f"{path} holds {found[0].filename} of {found[0].file_size} bytes; at most {MAX_BYTES}."
                )
            return archive.read(found[0]).decode("utf-8-sig")
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is no whole archive: {error}. Download it again.") from None


def _said(path: Path, number: int, notes: Sequence[str]) -> dict[str, str]:
    """Kind and reason from the comments of a tree's nodes."""
    said = [cells for cells in map(note_cells, notes) if cells["kind"]]
    if len({cells["kind"].lower() for cells in said}) > 1:
        kinds = " and ".join(cells["kind"] for cells in said)
        raise InputError(f"{path}, tree {number}: its comments say {kinds}; keep one.")
    return said[0] if said else note_cells("")


def _voxel(path: Path, number: int, node: ElementTree.Element, place: Place) -> dict[str, str]:
    try:
        at = [int(float(node.get(name, "")) // 1) for name in "zyx"]
    except (OverflowError, ValueError):
        raise InputError(f"{path}, tree {number}: a node has no place in x, y and z.") from None
    return {name: str(v - o) for name, v, o in zip("zyx", at, place.offset_zyx, strict=True)}
