"""The folder that `twostream export --what queries --pictures` writes: the open queries, each with a picture beside it.

    queries.csv        the table to fill in; the column `picture` names each row's picture
    pictures/NNN.png   the patch, raw above and outlined below, by the query's number; of a window its middle section
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
from twostream.base.geometry import Box
from twostream.candidates.picture import COLOURS, candidate_picture, png
from twostream.candidates.sampling import patch_pixel_nm
from twostream.project.answer_tables import table_kinds
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
        for window, name in zip(windows, names[len(queries) :], strict=True):
            (folder / name).write_bytes(png(_middle_section(project, window)))
        write_text(folder / "index.html", _page(project, queries, windows, names))

    write_folder(output, fill)


def _middle_section(project: Project, window: Window) -> np.ndarray:
    """(Y, X, 3) uint8, the middle section of a window."""
    z0, y0, x0 = window.box.offset_zyx
    _, height, width = window.box.shape_zyx
    grey = project.image.read(Box((z0 + window.box.shape_zyx[0] // 2, y0, x0), (1, height, width)))[0]
    return np.repeat(grey[..., None], 3, axis=2)


def _page(project: Project, queries: Sequence[Query], windows: Sequence[Window], names: Sequence[str]) -> str:
    """A page with all pictures."""
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
        of_windows = ", ".join(f"<code>{kind}</code>" for kind in WINDOW_KINDS)
        explained += (
            f" The last {len(windows)} are windows, of which the picture is the middle section: was anything missed in "
            f"the box? Add a row with the window's number as <code>query</code>, <code>{AnswerKind.MISSED}</code> and "
            f"z, y, x for each object that no candidate shows, and answer the window's own row with {of_windows}."
        )
    places = []
    for query in queries:
        z, y, x = query.candidate.center_zyx.tolist()
        places.append((query.id, f"candidate {query.candidate.id}, at z, y, x = {z:.1f}, {y:.1f}, {x:.1f}"))
    places += [(window.id, f"window at {window.box} (Z, Y, X voxels)") for window in windows]
    figures = [
        f'<figure id="{number}"><img src="{name}" alt=""><figcaption>query {number}, {place}</figcaption></figure>'
        for (number, place), name in zip(places, names, strict=True)
    ]
    title = escape(f"Open queries of {project.root.resolve().name}")
    return _PAGE.format(title=title, explained=explained, figures="\n".join(figures))
