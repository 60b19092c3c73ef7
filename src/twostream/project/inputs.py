"""What a user brings to a new project: image, labels, and perhaps a source in place of S; opened, understood, checked.

What was understood is kept in the settings, so that later rounds read the files in the same way, and as sentences, so
that a person can see it before anything is trained.

Knows volumes, labels and settings; must not know the folder of a project, nor import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twostream.base.config import parse_config
from twostream.base.errors import InputError
from twostream.candidates.label_scan import LabelKind
from twostream.candidates.labels import Labels, LabelsConfig, open_labels
from twostream.candidates.objects import is_table
from twostream.candidates.point_labels import POINT_RADIUS_NM, RIM_NM
from twostream.task import get_task
from twostream.volume import Volume
from twostream.volume.checks import states_no_voxel_size
from twostream.volume.grey import check_window, open_grey, open_values, robust_window
from twostream.volume.volume import VoxelSize


@dataclass(frozen=True)
class Given:
    """What a user says about image and labels.

    Attributes:
        image: URI of the image.
        labels: URI of the labels; None without any.
        post: URI of the postsynaptic side, if the two sides are two volumes.
        voxel_size_nm: (z, y, x) nm, for files that do not state it.
        window: (low, high) grey values; None chooses them where the image does not hold 8 bits.
        label_kind: what the values of the labels mean; None finds it out.
        ignore_value: value of voxels that count neither as object nor as background.
        label_settings: further settings of ``LabelsConfig``, for a table of points.
    """

    image: str
    labels: str | None = None
    post: str | None = None
    voxel_size_nm: Sequence[float] | None = None
    window: Sequence[float] | None = None
    label_kind: LabelKind | None = None
    ignore_value: int | None = None
    label_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Image and labels as they were understood.

    Attributes:
        image: (Z, Y, X) uint8.
        labels: None without any.
        settings: the sections ``image`` and ``labels`` of the project's settings.
    """

    image: Volume
    labels: Labels | None
    settings: dict[str, Any]


def read_inputs(given: Given, task: str) -> Inputs:
    """Open image and labels, and find out what is not stated.

    Args:
        given: what the user says.
        task: name of the task.

    Raises:
        InputError: something cannot be read, or two facts contradict each other.
    """
    size = None if given.voxel_size_nm is None else [float(v) for v in given.voxel_size_nm]
    raw = open_values(given.image, size)
    window = _window(raw, given.window)
    image = open_grey(given.image, size, window)
    settings: dict[str, Any] = {"image": {"uri": given.image}}
    settings["image"] |= {"voxel_size_nm": size} if size else {}
    settings["image"] |= {"window": list(window)} if window else {}
    if given.labels is None:
        _refuse_without_labels(given)
        return Inputs(image, None, settings)
    told = {
        "uri": given.labels,
        "voxel_size_nm": _told_size(size, given, image),
        "kind": given.label_kind,
        "ignore_value": given.ignore_value,
        "post": given.post,
    }
    config = parse_config(LabelsConfig, told | dict(given.label_settings), source="labels")
    labels = open_labels(config, image, get_task(task, image.voxel_size_nm))
    found: dict[str, Any] = {"kind": labels.kind}
    if labels.kind == "points":  # stated, so that another default of a later version does not change the labels
        found |= {"radius_nm": config.radius_nm or POINT_RADIUS_NM}
        found |= {"rim_nm": RIM_NM if config.rim_nm is None else config.rim_nm}
    settings["labels"] = config.model_copy(update=found).model_dump(mode="json", exclude_defaults=True)
    return Inputs(image, labels, settings)


def _window(image: Volume, given: Sequence[float] | None) -> tuple[float, float] | None:
    """The grey window: as given, none for 8 bits, else from the whole volume."""
    if given is not None:
        return check_window(given)
    return None if image.dtype == np.uint8 else robust_window(image)


def _told_size(size: list[float] | None, given: Given, image: Volume) -> VoxelSize | None:
    """The voxel size of labels whose file states none: as given, else that of the image. A table has none."""
    assert given.labels is not None
    if is_table(given.labels):
        return None
    if size is not None:
        z, y, x = size
        return z, y, x
    return image.voxel_size_nm if states_no_voxel_size(given.labels) else None


def _refuse_without_labels(given: Given) -> None:
    """Raise InputError if something is said about labels that are not there."""
    said = {"--labels-post": given.post, "--labels-kind": given.label_kind, "--ignore-value": given.ignore_value}
    for option, value in said.items():
        if value is not None:
            raise InputError(f"{option} {value} is about labels, but there are none; pass --labels URI.")
