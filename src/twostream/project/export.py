"""The command `export`: parts of a project written as files, each under one name.

Knows tables, volumes and the ledger; must not import torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twostream.base.atomic import is_taken
from twostream.base.errors import InputError
from twostream.candidates.table import read_table
from twostream.project.curated import COCO, export_dataset
from twostream.project.exchange import EXCHANGE_FORMATS, export_exchange
from twostream.project.exchange.formats import check_ending
from twostream.project.project import Project
from twostream.project.query_folder import write_query_folder
from twostream.project.segmentation import segmentation_of
from twostream.project.tables import (
    ANSWER_COLUMNS,
    answer_rows,
    latest_round,
    query_row,
    window_row,
    with_project,
    with_source_ids,
    write_rows,
)
from twostream.volume import Volume, create_volume
from twostream.volume.formats import FORMATS, format_of_path
from twostream.volume.uri import Uri
from twostream.volume.volume import VoxelSize
from twostream.volume.windows import whole_chunks

TABLES = ("answers", "queries", "candidates")
VOLUMES = ("segmentation", "dataset")
TABLE_FORMATS = ("csv", "jsonl", "parquet")


def export(
    project: Project,
    what: str,
    output: str | Path,
    format_: str | None = None,
    min_probability: float | None = None,
    *,
    pictures: bool = False,
) -> str:
    """Write a part of a project to a file or folder.

    Args:
        project: the project.
        what: one of ``TABLES`` or ``VOLUMES``. "queries" are the open queries, with the empty columns ``kind``,
            ``reason`` and ``seconds`` to fill in.
        output: path to write, of which nothing may exist yet. For a segmentation also the URI of a volume; for a data
            set a folder.
        format_: a table's format, the driver of a volume's, or for queries the name of a tool (``EXCHANGE_FORMATS``);
            None takes the one that the ending of ``output`` names,
            or the first one (CSV, Zarr) where there is no ending.
        min_probability: of a data set, see ``export_dataset``.
        pictures: write a folder with the queries as CSV and a picture of each (``query_folder``).

    Returns:
        What was written, in words.

    Raises:
        InputError: there is no such export or format, the ending names another one, or the output exists.
        ProjectError: there is nothing to export yet.
    """
    if what not in (*TABLES, *VOLUMES):
        raise InputError(f"--what is {what!r}; expected one of {', '.join((*TABLES, *VOLUMES))}.")
    if min_probability is not None and what != "dataset":
        raise InputError(f"--min-probability is for --what dataset; {what} has all objects. Leave it out.")
    if pictures and (what != "queries" or format_ not in (None, "csv")):
        named = f"{what} as {format_}" if format_ else what
        raise InputError(f"--pictures is for --what queries as csv; it came with {named}. Leave it out.")
    if format_ in EXCHANGE_FORMATS and what != "queries":
        raise InputError(f"--format {format_} is for --what queries; it came with {what}.")
    if what == "segmentation":
        return _export_segmentation(project, str(output), format_)
    path = Path(output)
    if format_ in EXCHANGE_FORMATS:
        check_ending(path, format_)
        make_way_for(path)
        return export_exchange(project, format_, path)
    if what == "dataset":
        chosen = dataset_format(path, format_, beside=(COCO,))
        make_way_for(path)
        return export_dataset(project, path, chosen, min_probability)
    rows = with_project(project, _rows(project, what))
    if pictures:
        if path.suffix.lstrip(".") in TABLE_FORMATS:
            raise InputError(f"-o {path} is a name for a table, but --pictures writes a folder; leave the ending out.")
        make_way_for(path)
        write_query_folder(project, rows, project.ledger.open_queries(), project.ledger.open_windows(), path)
        return f"{len(rows)} queries written to {path / 'queries.csv'}, their pictures to {path / 'index.html'}"
    chosen = _table_format(path, format_, what)
    make_way_for(path)
    said = _without_masks(rows) if what == "answers" and chosen == "csv" else ""
    write_rows(rows, path, chosen, ANSWER_COLUMNS if what == "answers" else ("query", "kind"))
    return f"{len(rows)} {what} written to {output} ({chosen}){said}"


def make_way_for(path: Path) -> None:
    """Make the folder of a new output.

    Raises:
        InputError: something is at ``path`` already.
    """
    if is_taken(path):
        raise InputError(f"{path} exists already; remove it or choose another path.")
    path.parent.mkdir(parents=True, exist_ok=True)


# -- formats ----------------------------------------------------------------------------------------------------------


def dataset_format(folder: Path, format_: str | None, beside: Sequence[str] = ()) -> str:
    """Format of a data set: the driver of its volume's format, or one of ``beside``.

    Args:
        folder: the data set to write; without an ending, because it holds tables beside the volume.
        format_: what was asked for, or None.
        beside: formats that are no volumes.

    Raises:
        InputError: the folder has an ending, or the format cannot be written.
    """
    known = [*_creatable(), *beside]
    if folder.suffix and not folder.suffix[1:].isdigit():  # mito_v1.2 has no ending
        raise InputError(
            f"-o {folder} ends in {folder.suffix}, but a data set is a folder with tables and a volume in it; give a "
            f"name without an ending, and choose the format by --format {'|'.join(known)}."
        )
    chosen = format_ or "zarr"
    if chosen not in known:
        raise InputError(f"--format is {chosen!r}; a data set can be written as {', '.join(known)}.")
    return chosen


def _table_format(path: Path, format_: str | None, what: str) -> str:
    """Format of a table, from the ending of its path and what was asked for."""
    ending = path.suffix.lower().lstrip(".")
    if format_ is not None and format_ not in TABLE_FORMATS:
        others = EXCHANGE_FORMATS if what == "queries" else ()
        raise InputError(f"--format is {format_!r}; {what} can be written as {', '.join((*TABLE_FORMATS, *others))}.")
    if ending and ending not in TABLE_FORMATS:
        endings = ", ".join(f".{name}" for name in TABLE_FORMATS)
        raise InputError(
            f"-o {path} ends in .{ending}; {what} can be written as {endings}. Choose one of these endings."
        )
    return _agreed(format_, ending or None, str(path), TABLE_FORMATS[0])


def _volume_format(parsed: Uri, format_: str | None) -> str:
    """Driver of a segmentation's format, from its URI and what was asked for."""
    known = _creatable()
    endings = ", ".join(suffix for name in known for suffix in FORMATS[name].suffixes)
    if format_ is not None and format_ not in known:
        raise InputError(f"--format is {format_!r}; a segmentation can be written as {', '.join(known)}.")
    found = format_of_path(parsed.path)
    named = parsed.driver if parsed.has_scheme else found.driver if found else None
    ending = Path(parsed.path).suffix
    if (named is None and ending) or (named is not None and named not in known) or not parsed.is_path:
        scheme, separator, _ = str(parsed).partition("://")
        what = f"begins with {scheme}://" if separator else f"ends in {ending}"
        raise InputError(
            f"-o {parsed} {what}; a segmentation can be written to a path of this machine that ends in {endings}, or "
            f"by one of the drivers {', '.join(name + '://' for name in known)}. Choose one of these."
        )
    return _agreed(format_, named, str(parsed), "zarr")


def _agreed(asked: str | None, named: str | None, output: str, default: str) -> str:
    """The format that was asked for and that the output's name tells, which must be the same."""
    if asked and named and asked != named:
        raise InputError(f"--format is {asked!r}, but -o {output} is a name for {named}. Leave one of them out.")
    return asked or named or default


def _creatable() -> list[str]:
    """Drivers of the formats that volumes can be written in, on this machine."""
    return [name for name, one in FORMATS.items() if one.create and one.is_path]


# -- contents ---------------------------------------------------------------------------------------------------------


def _rows(project: Project, what: str) -> list[dict[str, Any]]:
    """Rows of the table ``what``: all answers, the open queries, or the candidates of the newest round."""
    if what == "answers":
        ledger = project.ledger
        return answer_rows(project, ledger.all_answers(), ledger.queries(), ledger.windows())
    if what == "queries":
        empty = dict.fromkeys(("kind", "reason", "seconds"), "")
        rows = [query_row(query) for query in project.ledger.open_queries()]
        rows += [window_row(window) for window in project.ledger.open_windows()]
        return with_source_ids(project, [row | empty for row in rows])
    round_number = latest_round(project, "propose")
    table = read_table(project.path(round_number, "candidates.parquet"))
    return table.drop_columns(["mask"]).to_pylist()


def _without_masks(rows: list[dict[str, Any]]) -> str:
    """Leave of each drawing its box, as CSV has no place for masks; what to say about it, "" if nothing was drawn."""
    drawn = [row for row in rows if row["drawing"]]
    for row in drawn:
        row["drawing"] = row["drawing"]["box"]
    return f"; of {len(drawn)} drawings it has the boxes alone, --format jsonl has the masks" if drawn else ""


def _export_segmentation(project: Project, output: str, format_: str | None) -> str:
    """Write the newest segmentation as a volume, block by block; it gets its name when it is whole."""
    parsed = Uri.parse(output)
    driver = _volume_format(parsed, format_)
    round_number = latest_round(project, "propose")
    source = segmentation_of(project, round_number)
    target = Path(parsed.path)
    make_way_for(target)
    folder = target.with_name(target.name + ".partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        partial = replace(parsed, driver=driver, path=str(folder / target.name), has_scheme=True)
        _copy_volume(source, str(partial), project.image.offset_nm)
        os.replace(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return (
        f"segmentation of round {round_number} written to {parsed} ({driver}); its values are the candidates' `label`"
    )


def _copy_volume(source: Volume, uri: str, offset_nm: VoxelSize | None) -> None:
    """Write a volume to a new one at the place ``offset_nm``, block by block."""
    target = create_volume(
        uri,
        shape_zyx=source.shape_zyx,
        dtype=source.dtype,
        voxel_size_nm=source.voxel_size_nm,
        offset_nm=offset_nm,
    )
    for box in whole_chunks(target):
        target.write(box, source.read(box))
