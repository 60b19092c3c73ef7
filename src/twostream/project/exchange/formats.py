"""The table of exchange formats: which endings each has, how the open queries are written, how answers are recognised.

Knows the project and the formats of this package; must not know what answers mean.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from twostream.base.atomic import write_text
from twostream.base.errors import InputError, TwoStreamError
from twostream.project.answer_sheet import AnswerSheet
from twostream.project.exchange.neuroglancer import direct_source, is_state, read_state, write_state
from twostream.project.exchange.point_tables import cave_rows, xyz_rows
from twostream.project.exchange.points import open_points, place_of
from twostream.project.exchange.vast import is_colours, read_colours, write_colours
from twostream.project.exchange.webknossos import nml_in, read_nml, write_nml
from twostream.project.project import Project
from twostream.project.tables import write_rows
from twostream.volume.uri import Uri

EXCHANGE_FORMATS = {
    "neuroglancer": (".json",),
    "webknossos": (".nml", ".csv"),
    "cave": (".csv",),
    "vast": (".txt", ".csv"),
}
"""{format: endings of its files}; a name without an ending takes the first."""


def check_ending(path: Path, format_: str) -> str:
    """The ending that decides how ``path`` is written.

    Raises:
        InputError: the format has no such files.
    """
    endings = EXCHANGE_FORMATS[format_]
    ending = path.suffix.lower() or endings[0]
    if ending not in endings:
        raise InputError(
            f"-o {path} ends in {path.suffix}; queries for {format_} are written as {' or '.join(endings)}. Choose one "
            f"of these endings."
        )
    return ending


def export_exchange(project: Project, format_: str, path: Path) -> str:
    """Write the open queries for another tool; for the arguments see ``export``. Returns what was written, in words."""
    ending = check_ending(path, format_)
    place = place_of(project)
    points = open_points(project, place)
    if ending == ".csv":
        # VAST counts voxels of its image stack from 0, so the place of the image in its data set is left out there.
        offset = (0, 0, 0) if format_ == "vast" else place.offset_zyx
        rows = cave_rows(points, place, project.id) if format_ == "cave" else xyz_rows(points, offset, project.id)
        write_rows(rows, path, "csv", ("project", "query", "kind"))
    elif format_ == "neuroglancer":
        write_text(path, write_state(points, place, _image_source(project)))
    elif format_ == "webknossos":
        name = Path(Uri.parse(project.config.image.uri).path).stem
        write_text(path, write_nml(points, place, name or "image"))
    else:
        write_text(path, write_colours(points))
    windows = len(project.ledger.open_windows())
    left_out = f"; {windows} windows are not in it, answer them in the browser or in a table" if windows else ""
    return f"{len(points)} queries written to {path} ({format_}){left_out}"


def _image_source(project: Project) -> str | None:
    """Where Neuroglancer finds the image; None if it lies on this machine, or cannot be read now."""
    config = project.config.image
    if not Uri.parse(config.uri).is_remote:
        return None
    try:
        return direct_source(project.image, config.uri, config.window)
    except TwoStreamError:
        return None


def read_exchange(project: Project, path: Path) -> AnswerSheet | None:
    """The answers in a file of another tool, as a table; None if the file is none of these formats.

    Raises:
        InputError: the file is of one of the formats, and damaged or about no query.
    """
    try:
        start = path.open("rb").read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return None  # the reader of tables says why
    if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):  # a workbook is an archive as well
        text_inside = nml_in(path)
        return None if text_inside is None else read_nml(path, text_inside, place_of(project))
    if not start.startswith((b"<", b"{", b"http", b"%", b"0")):
        return None
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if text.lstrip().startswith("<"):
        return read_nml(path, text, place_of(project))
    if is_state(text):
        return read_state(path, text, place_of(project))
    if is_colours(text):
        return read_colours(path, text)
    return None
