"""The command `export`: parts of a project written as files, each under one name.

Knows tables, volumes and the ledger; must not import torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from twostream.base.atomic import write_folder
from twostream.base.errors import InputError
from twostream.candidates.table import read_table
from twostream.project.curated import export_dataset
from twostream.project.project import Project
from twostream.project.segmentation import segmentation_of
from twostream.project.tables import answer_row, latest_round, query_row, with_source_ids, write_rows

FORMATS: dict[str, tuple[str, ...]] = {
    "answers": ("csv", "jsonl"),
    "queries": ("csv", "jsonl"),
    "candidates": ("csv", "jsonl", "parquet"),
    "segmentation": ("zarr", "hdf5"),
    "dataset": ("zarr",),
}
"""{what can be exported: formats, the default first}."""


def export(project: Project, what: str, output: Path, format_: str | None) -> str:
    """Write a part of a project to a file or folder.

    Args:
        project: the project.
        what: a key of ``FORMATS``. "queries" are the open queries, with an empty column ``kind`` to fill in.
        output: path to write; must not exist.
        format_: one of ``FORMATS[what]``; None takes the one that the ending of ``output`` names, else the first.

    Returns:
        One line that says what was written.

    Raises:
        InputError: there is no such export or format, or the output exists.
        ProjectError: there is nothing to export yet.
    """
    if what not in FORMATS:
        raise InputError(f"--what is {what!r}; expected one of {', '.join(FORMATS)}.")
    chosen = format_ or _format_of(output, FORMATS[what])
    if chosen not in FORMATS[what]:
        raise InputError(f"--format is {chosen!r}; {what} can be written as {', '.join(FORMATS[what])}.")
    if output.exists():
        raise InputError(f"{output} exists already; remove it or choose another path.")
    output.parent.mkdir(parents=True, exist_ok=True)
    if what == "segmentation":
        return _export_segmentation(project, output, chosen)
    if what == "dataset":
        return export_dataset(project, output)
    rows = _rows(project, what)
    write_rows(rows, output, chosen)
    return f"{len(rows)} {what} written to {output}"


def _format_of(output: Path, formats: Sequence[str]) -> str:
    """The one of ``formats`` that the ending of ``output`` names, else the first."""
    suffix = {"h5": "hdf5"}.get(output.suffix.lstrip("."), output.suffix.lstrip("."))
    return suffix if suffix in formats else formats[0]


def _rows(project: Project, what: str) -> list[dict[str, Any]]:
    """Rows of the table ``what``: all answers, the open queries, or the candidates of the newest round."""
    if what == "answers":
        return with_source_ids(project, [answer_row(answer) for answer in project.ledger.all_answers()])
    if what == "queries":
        rows = [query_row(query) | {"kind": "", "seconds": ""} for query in project.ledger.open_queries()]
        return with_source_ids(project, rows)
    round_number = latest_round(project, "propose")
    table = read_table(project.path(round_number, "candidates.parquet"))
    return table.drop_columns(["mask"]).to_pylist()


def _export_segmentation(project: Project, output: Path, format_: str) -> str:
    """Write the newest segmentation as a Zarr folder, or as the dataset ``main`` of an HDF5 file."""
    round_number = latest_round(project, "propose")
    volume = segmentation_of(project, round_number)
    if format_ == "zarr":
        write_folder(output, lambda path: shutil.copytree(project.path(round_number, "segmentation.zarr"), path))
    else:
        partial = output.with_name(output.name + ".partial")
        with h5py.File(partial, "w") as file:
            dataset = file.create_dataset("main", data=volume.read(volume.box), compression="gzip", chunks=True)
            dataset.attrs["voxel_size_nm"] = volume.voxel_size_nm
        os.replace(partial, output)
    return f"segmentation of round {round_number} written to {output}; its values are the candidates' `label`"
