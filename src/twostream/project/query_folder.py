"""The folder that `twostream export --what queries --pictures` writes: the open queries, each with a picture beside it.

    queries.csv        the table to fill in; the column `picture` names each row's picture
    pictures/NNN.png   the patch, raw above and outlined below, by the query's number
    index.html         all pictures in the order of the table, for a browser

Knows the ledger and how a patch is drawn; must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from twostream.base.atomic import write_folder, write_text
from twostream.candidates.picture import COLOURS, candidate_picture, png
from twostream.candidates.sampling import patch_pixel_nm
from twostream.project.answer_tables import table_kinds
from twostream.project.project import Project
from twostream.project.records import Query
from twostream.project.tables import latest_round, write_rows
from twostream.task import TASKS
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


def write_query_folder(project: Project, rows: list[dict[str, Any]], queries: Sequence[Query], output: Path) -> None:
    """Write the folder, whole or not at all.

    Args:
        project: the project.
        rows: one row of the table for each query.
        queries: the open queries, in the order of the rows.
        output: the folder to make.
    """
    names = [f"pictures/{query.id:03d}.png" for query in queries]
    columns = [row | {"picture": name} for row, name in zip(rows, names, strict=True)]
    # The newest segmentation knows the voxel size even where the image is not at hand.
    segmentation = open_volume(str(project.path(latest_round(project, "propose"), "segmentation.zarr")))
    patches, usual_nm = project.config.patches, project.pixel_size_nm
    num_sides = TASKS[project.config.task].num_sides

    def fill(folder: Path) -> None:
        (folder / "pictures").mkdir(parents=True)
        write_rows(columns, folder / "queries.csv", "csv")
        for query, name in zip(queries, names, strict=True):
            pixel_nm = patch_pixel_nm(query.candidate, patches, segmentation.voxel_size_nm, usual_nm)
            image = candidate_picture(query.patch, pixel_nm, num_sides)
            (folder / name).write_bytes(png(image))
        write_text(folder / "index.html", _page(project, queries, names))

    write_folder(output, fill)


def _page(project: Project, queries: Sequence[Query], names: Sequence[str]) -> str:
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
    figures = []
    for query, name in zip(queries, names, strict=True):
        z, y, x = query.candidate.center_zyx.tolist()
        place = f"query {query.id}, candidate {query.candidate.id}, at z, y, x = {z:.1f}, {y:.1f}, {x:.1f}"
        figures.append(f'<figure id="{query.id}"><img src="{name}" alt=""><figcaption>{place}</figcaption></figure>')
    title = escape(f"Open queries of {project.root.resolve().name}")
    return _PAGE.format(title=title, explained=explained, figures="\n".join(figures))
