"""Commands about what people gave and what they get: answer, status, repair, report, export, merge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from twostream.cli.app import (
    Debug,
    Dir,
    MinProbability,
    app,
    errors_as_sentences,
)

if TYPE_CHECKING:
    pass


@app.command()
@errors_as_sentences
def answer(
    directory: Dir,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV, XLSX, JSONL; or a file of another tool.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Name of the person who answered.")] = os.environ.get(
        "USER", "annotator"
    ),
    false_is: Annotated[
        Optional[str],
        typer.Option("--false-is", metavar="nothing|shape", help="What FALSE, 0 or no means in the column kind."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Record the answers of a table that `twostream export --what queries` has written and a person has filled in.

    Kinds of answers: true, nothing (no object there), shape (an object, but merged, split or badly bounded), swapped
    (pre and post exchanged), unsure, skipped. A row without a kind stays open; a row that was recorded before is passed
    over; a changed kind or reason corrects the answer. An object that was missed is a row of the kind missed without a
    query, with its place in z, y, x (voxels of the image) or z_nm, y_nm, x_nm, and optionally radius_nm.

    Files that `export --format neuroglancer|webknossos|cave|vast` has written, and that were answered in these tools,
    are read as well.

    A table that `twostream export --what answers` has written is recorded as it is, every answer by its own annotator.
    """
    from twostream.project.answer_tables import read_answers
    from twostream.project.project import Project
    from twostream.project.status import next_line

    project = Project(directory)
    print("\n".join(read_answers(project, table, annotator, false_is=false_is).lines()))
    print(next_line(project))


@app.command()
@errors_as_sentences
def status(directory: Dir, debug: Debug = False) -> None:
    """Show what is done and what comes next."""
    from twostream.project.project import Project
    from twostream.project.status import status_lines

    print("\n".join(status_lines(Project(directory))))


@app.command()
@errors_as_sentences
def repair(directory: Dir, debug: Debug = False) -> None:
    """Restore settings, ledger and answers that are missing or damaged, and files of rounds that are gone."""
    from twostream.project.project import Project
    from twostream.project.repair import repair as repair_project
    from twostream.project.round_files import missing_files

    done = repair_project(directory)
    for line in done:
        print(line)
    project = Project(directory)
    if missing_files(project):
        from twostream.rounds.remake import remake

        made = remake(project)
        print("\n".join(made))
    elif not done:
        print(f"{directory}: nothing is to be done; settings, ledger, answers and the files of all rounds are there.")


@app.command()
@errors_as_sentences
def report(
    directory: Dir,
    beside: Annotated[
        Optional[list[Path]],
        typer.Option("--beside", metavar="DIR", help="Another project to compare with; may be repeated."),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", metavar="FILE", help="In place of report.html in DIR.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write report.html, a self-contained page of scores, queries and times."""
    from twostream.project.project import Project
    from twostream.report import write_report

    print(write_report([Project(directory), *(Project(path) for path in beside or [])], output))


@app.command()
@errors_as_sentences
def export(
    directory: Dir,
    what: Annotated[
        str, typer.Option("--what", metavar="answers|queries|candidates|segmentation|dataset", help="What to write.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="New file, volume or folder.")],
    format_: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet|zarr|hdf5|precomputed|coco|neuroglancer|webknossos|cave|vast",
            help="Default: by the ending of PATH. The last four: open queries for these tools.",
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="With queries: a folder with the table and a picture of each query.")
    ] = False,
    min_probability: MinProbability = None,
    debug: Debug = False,
) -> None:
    """Write results to files. Tables: CSV, JSONL, Parquet; volumes: OME-Zarr, HDF5; a data set: a folder, also COCO."""
    from twostream.project.export import export as export_
    from twostream.project.project import Project

    print(export_(Project(directory), what, output, format_, min_probability, pictures=pictures))


@app.command()
@errors_as_sentences
def merge(
    directories: Annotated[list[Path], typer.Argument(metavar="A B", help="Projects of one image, each of a task.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder to create.")],
    format_: Annotated[
        Optional[str], typer.Option("--format", metavar="zarr|precomputed", help="Of the volumes; default: zarr.")
    ] = None,
    min_probability: MinProbability = None,
    debug: Debug = False,
) -> None:
    """Write the curated data sets of several projects of one image as one: one table, a segmentation for each task."""
    from twostream.project.merge import merge_projects
    from twostream.project.project import Project

    print(merge_projects([Project(path) for path in directories], output, format_, min_probability))
