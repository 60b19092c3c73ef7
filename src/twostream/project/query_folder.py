"""The folder that `twostream export --what queries --pictures` writes: the open queries, each with a picture beside it.

    queries.csv        the table to fill in; the column `picture` names each row's picture
    pictures/NNN.png   the patch, raw above and outlined below, by the query's number; of a window all its sections
    index.html         all pictures in the order of the table, for a browser

Knows the ledger and how a patch is drawn; must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.atomic import write_folder, write_text
from twostream.candidates.picture import COLOURS, candidate_picture, png, sections_picture
from twostream.candidates.sampling import patch_pixel_nm
from twostream.project.answer_tables import table_kinds
from twostream.project.outlined import Outlined
from twostream.project.project import Project
from twostream.project.records import Query, Window
from twostream.project.tables import latest_round, write_rows
from twostream.task import TASKS
from twostream.task.answers import WINDOW_KINDS, AnswerKind
from twostream.volume import open_volume

PLANES = {
    "central": "The picture is the object's central section, turned so that the object is upright.",
    "stack": "From left to right: sections before, at and behind the object's centre, turned so that it is upright.",
    "orthogonal": "From left to right: the plane across the object, its central section turned so that it is upright, "
    "and the plane along the object.",
}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ margin: 24px; font: 15px/1.5 system-ui, sans-serif; background: #f6f5f2; color: #222; }}
figure {{ display: inline-block; margin: 0 16px 24px 0; }} img {{ display: block; max-width: 100%; }}
</style></head><body><h1>{title}</h1><p>{explained}</p>
{figures}
</body></html>
"""


def write_query_folder(
    project: Project, rows: list[dict[str, Any]], queries: Sequence[Query], windows: Sequence[Window], output: Path
) -> None:
    """Write the folder, whole or not at all.

    Args:
        project: the project.
        rows: one row of the table for each query, then one for each window.
        queries: the open queries about candidates, in the order of the rows.
        windows: the open windows, in the order of the rows.
        output: the folder to make.
    """
    names = [f"pictures/{i:03d}.png" for i in (*(query.id for query in queries), *(window.id for window in windows))]
    columns = [row | {"picture": name} for row, name in zip(rows, names, strict=True)]
    # The newest segmentation knows the voxel size even where the image is not at hand.
    segmentation = open_volume(str(project.path(latest_round(project, "propose"), "segmentation.zarr")))
    patches, usual_nm = project.config.patches, project.pixel_size_nm
    num_sides = TASKS[project.config.task].num_sides

    def fill(folder: Path) -> None:
        (folder / "pictures").mkdir(parents=True)
        write_rows(columns, folder / "queries.csv", "csv")
        for query, name in zip(queries, names, strict=False):
            pixel_nm = patch_pixel_nm(query.candidate, patches, segmentation.voxel_size_nm, usual_nm)
            image = candidate_picture(query.patch, pixel_nm, num_sides)
            (folder / name).write_bytes(png(image))
        outlined = {number: Outlined(project, number) for number in {window.round for window in windows}}
        enlarged = []
        for window, name in zip(windows, names[len(queries) :], strict=True):
            image, times = _window_picture(project, window, outlined[window.round])
            (folder / name).write_bytes(png(image))
            enlarged.append(times)
        write_text(folder / "index.html", _page(project, queries, windows, enlarged, names))

    write_folder(output, fill)


def _window_picture(project: Project, window: Window, outlined: Outlined) -> tuple[np.ndarray, float]:
    """All sections of a window with what needs no mark outlined, and how many pixels a voxel is wide."""
    shown = [(candidate.box, candidate.mask) for candidate in outlined.near(window.box)]
    marked = [a.drawing for a in project.ledger.missed_objects() if a.drawing and a.drawing[0].intersects(window.box)]
    objects = [(box.relative_to(window.box), mask) for box, mask in (*shown, *marked)]
    grey, pixel_nm = project.image.read(window.box), project.image.voxel_size_nm[2]
    num_sides = TASKS[project.config.task].num_sides
    return sections_picture(grey, objects, window.box.offset_zyx[0], pixel_nm, num_sides)


def _page(
    project: Project,
    queries: Sequence[Query],
    windows: Sequence[Window],
    enlarged: Sequence[float],
    names: Sequence[str],
) -> str:
    """A page with all pictures; ``enlarged`` says how many pixels a voxel of each window is wide."""
    two = TASKS[project.config.task].num_sides == 2
    colours = {"pre": "presynaptic side", "post": "postsynaptic side"} if two else {"single": "proposed object"}
    legend = " ".join(
        f'<span style="border: 3px solid {COLOURS[name]}; padding: 0 6px">{text}</span>'
        for name, text in colours.items()
    )
    kinds = ", ".join(f"<code>{kind}</code>" for kind in table_kinds(project.config.task))
    explained = (
        f"{PLANES[project.config.patches.planes]} Above the raw image, below the same with the outline: {legend}. "
        f"Answer in the column <code>kind</code> of queries.csv: {kinds}."
    )
    if windows:
        of_windows = " or ".join(f"<code>{kind}</code>" for kind in WINDOW_KINDS if kind != AnswerKind.NONE_MISSED)
        explained += (
            f" The last {len(windows)} are windows, boxes of which all sections are shown, row by row, with what was "
            f"proposed, asked or marked before outlined. Is an object without an outline in one of them? Add a row "
            f"with the window's number as <code>query</code>, <code>{AnswerKind.MISSED}</code> as <code>kind</code> "
            f"and its place in <code>z</code>, <code>y</code>, <code>x</code> (voxels) for each such object, and "
            f"answer the window's own row with <code>{AnswerKind.NONE_MISSED}</code> when nothing (more) was missed, "
            f"or with {of_windows}."
        )
    places = []
    for query in queries:
        z, y, x = query.candidate.center_zyx.tolist()
        places.append((query.id, f"candidate {query.candidate.id}, at z, y, x = {z:.1f}, {y:.1f}, {x:.1f}"))
    for window, times in zip(windows, enlarged, strict=True):
        _, y, x = window.box.offset_zyx
        corner = f"the upper left corner of each section is y = {y}, x = {x}; {times:.3g} pixels a voxel"
        places.append((window.id, f"window at {window.box} (Z, Y, X voxels); {corner}"))
    figures = [
        f'<figure id="{number}"><img src="{name}" alt=""><figcaption>query {number}, {place}</figcaption></figure>'
        for (number, place), name in zip(places, names, strict=True)
    ]
    title = escape(f"Open queries of {project.root.resolve().name}")
    return _PAGE.format(title=title, explained=explained, figures="\n".join(figures))
