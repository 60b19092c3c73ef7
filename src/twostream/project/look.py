"""`twostream look`: what was understood of an image and of labels, a segmentation or a table that lie on it.

Knows volumes, labels and tables; must not know the folder of a project, nor import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twostream.base.atomic import write_bytes
from twostream.base.config import apply_overrides, parse_config
from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.labels import Labels
from twostream.candidates.objects import is_table, read_table_at
from twostream.candidates.painting import paint, with_sides
from twostream.candidates.picture import png
from twostream.candidates.sources import RADIUS_NM, SourceConfig
from twostream.project.inputs import Given, Inputs, read_inputs
from twostream.project.look_picture import look_picture, stacked_below
from twostream.project.understood import Understood, of_image, of_labels
from twostream.task import Task, get_task
from twostream.volume import MemoryVolume, Volume
from twostream.volume.alignment import better_reading, fits

MAX_PAINTED_VOXELS = 1 << 28
"""Objects of a table are drawn into the picture only of images up to this size, because they are painted in memory."""


@dataclass(frozen=True)
class Look:
    """What `twostream look` shows.

    Attributes:
        understood: lines and questions.
        picture: (H, W, 3) uint8 red, green, blue.
    """

    understood: Understood
    picture: np.ndarray


def look(given: Given, task_name: str, overrides: Sequence[str] = ()) -> Look:
    """Look at an image, and at what lies on it.

    Args:
        given: the image; its ``labels`` may be a label volume, a segmentation, or a table of objects.
        task_name: gives the label convention.
        overrides: settings as "source.a=value" that say how a table is read.

    Raises:
        InputError: something cannot be read, or contradicts itself.
    """
    config = _table_settings(given.labels, overrides)
    inputs = read_inputs(replace(given, labels=None) if config else given, task_name)
    task = get_task(task_name, inputs.image.voxel_size_nm)
    return look_at_inputs(inputs, task) if config is None else _look_at_table(config, inputs.image, task)


def _table_settings(path: str | None, overrides: Sequence[str]) -> SourceConfig | None:
    """How a table is read; None if ``path`` is none.

    Raises:
        InputError: the settings are about something else than a table.
    """
    is_given = path is not None and is_table(path)
    for option in overrides:
        if not is_given or not option.strip().startswith("source."):
            raise InputError(
                f"--set {option} came; here it can only say how a table of objects is read (source.columns, "
                f"source.table_resolution_nm, source.list_order, source.radius_nm)."
            )
    if not is_given:
        return None
    values = apply_overrides({"source": {"kind": "objects", "uri": path}}, overrides)
    return parse_config(SourceConfig, values["source"], source="--set source")


def look_at_inputs(inputs: Inputs, task: Task, segmentation: Labels | None = None) -> Look:
    """Look at an image, labels and perhaps a segmentation in place of S that have been opened."""
    understood, image = of_image(inputs.image), inputs.image
    pictures = []
    for name, labels in (("labels", inputs.labels), ("segmentation", segmentation)):
        if labels is None:
            continue
        # Balls around points have no borders that the image could show.
        found = [] if labels.kind == "points" else fits(image, labels.volume, task.num_sides, labels.covered)
        understood += of_labels(labels, image, task, found, name)
        pictures.append(look_picture(image, labels.covered, labels.volume, labels.ignore))
        if found and (better := better_reading(found)):
            pictures.append(look_picture(image, labels.covered, labels.volume, None, better.reading))
    return Look(understood, stacked_below(pictures or [look_picture(image, image.box, None, None)]))


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture as PNG; a file that is there is replaced.

    Raises:
        InputError: the path has another ending.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: the picture is a PNG; expected a path that ends in .png.")
    write_bytes(path, png(picture))


def _look_at_table(config: SourceConfig, image: Volume, task: Task) -> Look:
    table = read_table_at(config.uri, config, image, task, "source")
    lines = Understood((f"table {config.uri}", *(f"  {line}" for line in table.understood)))
    painted: Volume | None = None
    region: Box = image.box
    if image.box.num_voxels <= MAX_PAINTED_VOXELS:
        owner = paint(table, image, config.radius_nm or RADIUS_NM[task.name])
        array = owner if task.num_sides == 1 else with_sides(table, owner, image.voxel_size_nm)
        painted = MemoryVolume(array, image.voxel_size_nm, config.uri)
    return Look(of_image(image) + lines, look_picture(image, region, painted, None))
