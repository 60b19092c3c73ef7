"""The command `merge`: the curated data sets of several projects of one image as one data set.

Knows curated data sets and volumes; must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.atomic import write_folder, write_text
from twostream.base.errors import InputError
from twostream.project.curated import Curated, curate, new_labels, volume_uri, write_tables
from twostream.project.dataset.facts import summary
from twostream.project.export import dataset_format, make_way_for
from twostream.project.project import Project
from twostream.project.tables import with_source_ids
from twostream.task import TASKS
from twostream.volume import Volume, open_volume
from twostream.volume.checks import check_extent, check_same_grey
from twostream.volume.grey import open_values
from twostream.volume.place import place_on
from twostream.volume.windows import whole_chunks

Row = dict[str, Any]


def merge_projects(
    projects: Sequence[Project], output: Path, format_: str | None = None, min_probability: float | None = None
) -> str:
    """Write the curated data sets of several projects into one folder.

    ``segmentation_<task>.zarr`` is (Z, Y, X) uint64 for each task, ``objects.csv`` and ``left_out.csv`` hold the rows
    of all projects, ``dataset.json`` what is known about each. The ids of the first project stay; those of the others
    are shifted, so that an id means one object in all volumes and in the tables (``docs/curated.md``).

    Args:
        projects: two or more, of one image, each of another task.
        output: folder to make.
        format_: driver of the volumes' format; None takes Zarr.
        min_probability: see ``export_dataset``; holds for every project.

    Returns:
        A few lines that say what was written.

    Raises:
        InputError: the projects cannot be merged, or the output exists or cannot be written in this format.
        ProjectError: a project has proposed no candidates yet.
    """
    _check(projects)
    chosen = dataset_format(output, format_)
    make_way_for(output)
    parts = [curate(project, min_probability) for project in projects]
    facts: dict[str, Any] = {}

    def fill(path: Path) -> None:
        path.mkdir(parents=True)
        facts.update(_write(path, parts, chosen))
        write_text(path / "dataset.json", json.dumps(facts, indent=1) + "\n")

    write_folder(output, fill)
    lines = [f"{len(parts)} projects merged into {output}: {facts['num_objects']} objects"]
    for one in facts["projects"]:
        lines += [f"{one['name']} ({one['task']}, round {one['round']})", *summary(one)]
    return "\n".join([*lines, *map(_overlap_line, facts["overlaps"])])


def _check(projects: Sequence[Project]) -> None:
    """Raise InputError unless the projects are two or more, of one image, and each of another task."""
    if len(projects) < 2:
        raise InputError("merge needs two projects or more; `twostream export --what dataset` writes a single one.")
    first = projects[0]
    roots: list[Path] = []
    for project in projects:
        root = project.root.resolve()
        if root in roots:
            raise InputError(f"{project.root} was given twice; name each project once.")
        roots.append(root)
    tasks: dict[str, Project] = {}
    for project in projects:
        task = project.config.task
        if task in tasks:
            raise InputError(
                f"{tasks[task].root} and {project.root} both look for {task}: two answers to one question cannot stand "
                f"side by side in one segmentation. Export the one that you trust; merge is for different tasks."
            )
        tasks[task] = project
    for project in projects[1:]:
        image, others = _image(first), _image(project)
        try:
            check_extent(others, image)
            if place_on(others, image) is not others:
                raise InputError(f"{others.uri} begins at {others.offset_nm} nm, {image.uri} at {image.offset_nm} nm.")
            check_same_grey(others, image)
        except InputError as error:
            raise InputError(f"{first.root} and {project.root} are not projects of one image: {error}") from None


def _image(project: Project) -> Volume:
    """The image as it is stored."""
    config = project.config.image
    return open_values(project.locate("image", config.uri), config.voxel_size_nm)


def _write(folder: Path, parts: Sequence[Curated], format_: str) -> dict[str, Any]:
    """Write volumes and tables; returns the content of ``dataset.json``."""
    rows: list[Row] = []
    left_out: list[Row] = []
    volumes: dict[str, Volume] = {}
    projects, shift = [], 0
    for part in parts:
        task = part.project.config.task
        uri = volume_uri(folder, f"segmentation_{task}", format_)
        kept, dropped = part.paint(new_labels(uri, part.project), shift)
        facts = part.facts(kept, dropped)
        projects.append(facts | {"volume": Path(uri).name, "id_shift": shift})
        rows += [_merged(row, shift) for row in with_source_ids(part.project, kept, key="id")]
        left_out += [_merged(row, shift) for row in with_source_ids(part.project, dropped, key="id")]
        volumes[task] = open_volume(uri)
        shift += part.next_id - 1
    overlaps, partners = _overlaps(volumes)
    for row in rows:
        row["overlaps"] = " ".join(map(str, sorted(partners.get(row["id"], ())))) or None
    write_tables(folder, *(_with_all_columns(table) for table in (rows, left_out)))
    return {"num_objects": len(rows), "projects": projects, "overlaps": overlaps}


def _merged(row: Row, shift: int) -> Row:
    """A row with its merged id in front, then the project and the id within it."""
    rest = {name: value for name, value in row.items() if name not in ("id", "project")}
    merged = {"id": row["id"] + shift, "project": row["project"], "id_in_project": row["id"]} | rest
    if row["joined"]:
        merged["joined"] = " ".join(str(int(one) + shift) for one in row["joined"].split())
    return merged


def _with_all_columns(rows: list[Row]) -> list[Row]:
    """Rows with the same columns everywhere; only some projects have a ``source_id``."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _overlaps(volumes: dict[str, Volume]) -> tuple[list[dict[str, Any]], dict[int, set[int]]]:
    """How many objects of different tasks overlap, and which.

    Args:
        volumes: {task: (Z, Y, X) uint64 labels with merged ids}.

    Returns:
        For each pair of tasks: names, number of pairs of objects that share a voxel, number of objects of each task in
        such a pair, and number of voxels shared; and {id: ids of the objects of other tasks that share a voxel}.
    """
    tasks, found = list(volumes), []
    partners: dict[int, set[int]] = {}
    for row, first in enumerate(tasks):
        for second in tasks[row + 1 :]:
            pairs, num_voxels = _pairs(volumes[first], first, volumes[second], second)
            for a, b in pairs:
                partners.setdefault(a, set()).add(b)
                partners.setdefault(b, set()).add(a)
            found.append(
                {
                    "tasks": [first, second],
                    "num_pairs": len(pairs),
                    "num_objects": [len({a for a, _ in pairs}), len({b for _, b in pairs})],
                    "num_voxels": num_voxels,
                }
            )
    return found, partners


def _pairs(one: Volume, task: str, other: Volume, other_task: str) -> tuple[set[tuple[int, int]], int]:
    """Pairs of ids that share a voxel, and the number of voxels that both volumes label."""
    pairs: set[tuple[int, int]] = set()
    total = 0
    for box in whole_chunks(one):
        a, b = one.read(box), other.read(box)
        both = (a > 0) & (b > 0)
        total += int(both.sum())
        ids = np.stack([_ids(a[both], task), _ids(b[both], other_task)])
        pairs |= {(int(x), int(y)) for x, y in np.unique(ids, axis=1).T}
    return pairs, total


def _ids(values: np.ndarray, task: str) -> np.ndarray:
    """Ids of label values, (N,) uint64."""
    return values if TASKS[task].num_sides == 1 else (values + np.uint64(1)) // np.uint64(2)


def _overlap_line(found: dict[str, Any]) -> str:
    (first, second), (a, b) = found["tasks"], found["num_objects"]
    return f"{a} objects of {first} and {b} of {second} overlap ({found['num_voxels']} voxels; column `overlaps`)"
