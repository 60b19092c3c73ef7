"""The boxes of a project: where S learns, where it is validated, where it is scored, and what init takes by default.

Knows settings, labels and geometry; must not know the folder of a project, and must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.models.segmentation.config import context_voxels, fold_for
from twostream.models.streams.external import patches_of
from twostream.project.settings import BoxesConfig, ProjectConfig
from twostream.task import TASKS, Task, get_task
from twostream.volume import Volume

TEST_SHARE = 0.2
"""Share of the image that is the default test box."""
VAL_SHARE = 0.2
"""Share of the largest labels box that is the default validation box."""
MIN_COVERED_SHARE = 0.5
"""The default test box is used only if at least this share of it lies in the labelled extent."""


@dataclass(frozen=True)
class Boxes:
    """The regions of a project, in voxels of the image.

    Attributes:
        labels: labels boxes, which S may learn from; they share no voxel, and what lies between them is unknown. Empty
            without labels.
        val: validation box, a part of one labels box, or one of several whole ones. It is used for early stopping and
            thresholds instead of training. None without labels.
        test: test box, never trained on and never asked about; None if there is none.

    Raises:
        InputError: two labels boxes overlap, one overlaps the test box, or the validation box is not a part of one of
            them or leaves nothing of them to train on.
    """

    labels: tuple[Box, ...]
    val: Box | None
    test: Box | None

    def __post_init__(self) -> None:
        for i, box in enumerate(self.labels):
            for other in self.labels[:i]:
                if box.intersects(other):
                    raise InputError(
                        f"labels boxes {other} and {box} overlap; their common voxels would count twice. Move one of "
                        f"them, or end it where the other begins."
                    )
            if self.test is not None and box.intersects(self.test):
                raise InputError(
                    f"labels box {box} overlaps the test box {self.test}; S must never learn from the test box. Move "
                    f"one of them."
                )
        if self.val is not None:
            is_inside = any(box.contains(self.val) for box in self.labels)
            if not is_inside or self.labels == (self.val,):
                part = "a part of" if len(self.labels) == 1 else "one, or a part of one, of"
                raise InputError(
                    f"validation box {self.val} must be {part} {_named(self.labels)}, and leave some of it to train on."
                )

    @classmethod
    def of(cls, config: BoxesConfig) -> Boxes:
        """The boxes that the settings hold as text.

        Raises:
            InputError: one of them is not written as Z0:Z1,Y0:Y1,X0:X1, or they contradict each other.
        """
        labels = (config.labels,) if isinstance(config.labels, str) else config.labels or ()
        val, test = (Box.parse(text) if text else None for text in (config.val, config.test))
        return cls(tuple(map(Box.parse, labels)), val, test)

    @property
    def settings(self) -> dict[str, Any]:
        """The boxes as values of ``BoxesConfig``."""
        val, test = (None if box is None else str(box) for box in (self.val, self.test))
        return {"labels": list(map(str, self.labels)) or None, "val": val, "test": test}

    @property
    def validation(self) -> Box:
        """The validation box of a project that has labels."""
        assert self.val is not None  # ProjectConfig has checked it
        return self.val

    @property
    def labels_text(self) -> str:
        """The labels boxes in one line for people: "A", "A and B", or "none"."""
        return " and ".join(map(str, self.labels)) or "none"

    def cover(self, whole: Box, guarded: Box | None) -> bool:
        """Whether every voxel of ``whole`` lies in a labels box or in ``guarded``, the guarded test box."""
        num_voxels = sum(box.num_voxels for box in self.labels)
        if guarded is not None:
            guarded = guarded.intersection(whole)
            num_voxels += guarded.num_voxels - sum(box.intersection(guarded).num_voxels for box in self.labels)
        return num_voxels == whole.num_voxels


def _named(labels: Sequence[Box]) -> str:
    """Labels boxes in a sentence: "the labels box A", or "the labels boxes A and B"."""
    return f"the labels {'box' if len(labels) == 1 else 'boxes'} {' and '.join(map(str, labels))}"


def guard_voxels(config: ProjectConfig, voxel_size_nm: Sequence[float]) -> tuple[int, int, int]:
    """Width of the guard around the test box, (z, y, x) in voxels (``docs/contracts.md``, *Test region*).

    Along each axis it is the context of S or the size of a patch, whichever is larger; with a source in place of S it
    is the size of a patch. External encoders have patches of their own.

    Args:
        config: settings of the project.
        voxel_size_nm: (z, y, x) nm of the image.
    """
    task = TASKS[config.task]
    fold_zyx = fold_for(voxel_size_nm, config.segmentation.max_pixel_size_nm or task.pixel_size_nm)
    context = (0, 0, 0) if config.source else context_voxels(config.segmentation, fold_zyx)
    usual_nm = config.patches.pixel_size_nm or task.patch_pixel_size_nm
    encoders = (config.streams.supervised.onnx, config.streams.unsupervised.onnx)
    reach = [context]
    for patches in (config.patches, *(patches_of(one) for one in encoders if one)):
        pixel_nm = patches.widest_pixel_nm(patches.pixel_size_nm or usual_nm)
        depth = patches.depth_sections(voxel_size_nm[0], pixel_nm)
        width_y, width_x = (int(np.ceil(patches.width_px * pixel_nm / size)) for size in voxel_size_nm[1:])
        reach.append((max(1, depth), width_y, width_x))
    z, y, x = np.array(reach).max(0).tolist()
    return z, y, x


def default_boxes(
    config: ProjectConfig,
    image: Volume,
    labels: Volume | None,
    *,
    labels_boxes: Sequence[str],
    val_box: str | None,
    test_box: str | None,
) -> Boxes:
    """The boxes of a new project: those that were given, and defaults for the others.

    The default test box is the last fifth of the image along the axis that is longest in nm (X on a tie), if labels
    cover at least half of it; with several labels boxes there is none, because what lies between them is unknown. The
    default labels box is the extent of the labelled objects without the guarded test box. The default validation box is
    the last fifth of the largest labels box along its longest axis. Without labels there is only a test box, if it was
    given (``docs/contracts.md``, *Test region*).

    Args:
        config: settings; the guard depends on them.
        image: the image.
        labels: the labels, or None.
        labels_boxes: labels boxes that were given, each "Z0:Z1,Y0:Y1,X0:X1"; empty if none were.
        val_box, test_box: boxes that were given in the same form, or None.

    Raises:
        InputError: a box reaches outside the image, two boxes overlap that must not, or no foreground is left to
            train on.
    """
    given = tuple(map(Box.parse, labels_boxes))
    val, test = (Box.parse(text) if text else None for text in (val_box, test_box))
    for name, box in (*(("labels", box) for box in given), ("val", val), ("test", test)):
        if box is not None and not image.box.contains(box):
            raise InputError(f"--{name}-box {box} reaches outside the image, which holds {image.box} (Z, Y, X voxels).")
    if labels is None:
        return Boxes((), None, test)
    extent = _labelled_extent(labels, get_task(config.task, image.voxel_size_nm, config.decoding))
    if extent is None:
        raise InputError(
            f"{labels.uri} holds no foreground; S cannot learn from labels that are all 0. Pass labels with objects."
        )
    if test is None and len(given) < 2:
        test = _last_share(image.box, image.voxel_size_nm, TEST_SHARE)
        covered = extent.intersection(test).num_voxels >= MIN_COVERED_SHARE * test.num_voxels
        test = test if covered else None
    guarded = test.grown(guard_voxels(config, image.voxel_size_nm)) if test else None
    if not given:
        given = (_without(extent, guarded) if guarded else extent,)
        if given[0].num_voxels == 0:
            raise InputError(
                f"no labels are left outside the test box {test} and its guard; pass --labels-box and --test-box."
            )
    if not any((labels.read(box) > 0).any() for box in given):
        raise InputError(f"{labels.uri} holds no foreground in {_named(given)}; choose a box with objects in it.")
    largest = max(given, key=lambda box: box.num_voxels)
    boxes = Boxes(given, val or _last_share(largest, image.voxel_size_nm, VAL_SHARE), test)
    _check_labels(labels, boxes, guarded)
    return boxes


def _labelled_extent(labels: Volume, task: Task) -> Box | None:
    """Bounding box of the foreground, found in slabs of sections; None if there is no foreground.

    Raises:
        InputError: the labels hold values that break the label convention of the task.
    """
    extent: Box | None = None
    values: set[int] = set()
    for block in grid(labels.box, (16, *labels.shape_zyx[1:])):
        array = labels.read(block.write_box)
        values |= set(np.unique(array).tolist())
        where = np.argwhere(array > 0)
        if len(where):
            part = Box.from_corners(where.min(0).tolist(), (where.max(0) + 1).tolist())
            part = part.shifted(block.write_box.offset_zyx)
            extent = part if extent is None else extent.hull(part)
    task.check_values(values, labels.uri)
    return extent


def _last_share(box: Box, voxel_size_nm: Sequence[float], share: float) -> Box:
    """The last ``share`` of ``box`` along the axis that is longest in nm (X on a tie)."""
    length = [s * v for s, v in zip(box.shape_zyx, voxel_size_nm, strict=True)]
    axis = max(range(3), key=lambda a: (length[a], a))
    start = list(box.offset_zyx)
    start[axis] = box.stop_zyx[axis] - max(1, round(share * box.shape_zyx[axis]))
    return Box.from_corners(start, box.stop_zyx)


def _without(extent: Box, guarded: Box) -> Box:
    """The largest box inside ``extent`` that shares no voxel with ``guarded``."""
    parts = [extent]
    for axis in range(3):
        for low in (True, False):
            start, stop = list(extent.offset_zyx), list(extent.stop_zyx)
            if low:
                stop[axis] = min(stop[axis], guarded.offset_zyx[axis])
            else:
                start[axis] = max(start[axis], guarded.stop_zyx[axis])
            parts.append(Box.from_corners(start, stop))
    apart = [part for part in parts if not part.intersects(guarded)]
    return max(apart, key=lambda part: part.num_voxels)


def _check_labels(labels: Volume, boxes: Boxes, guarded: Box | None) -> None:
    """Raise InputError if S could not be trained on the labels boxes, or not on one of them.

    Args:
        labels: the labels.
        boxes: of the project.
        guarded: the guarded test box, from which S does not learn; None if there is none.
    """
    kept_out = [box for box in (boxes.val, guarded) if box is not None]
    is_left = False
    for box in boxes.labels:
        known = labels.read(box)
        is_learned = np.ones(box.shape_zyx, bool)
        for other in kept_out:
            is_learned[other.intersection(box).relative_to(box).slices] = False
        if len(boxes.labels) > 1 and box != boxes.val and not is_learned.any():
            raise InputError(
                f"nothing of the labels box {box} is left to train on: all of it lies in the validation box or in the "
                f"guard around the test box. Move it, or leave it out."
            )
        is_left |= bool((known[is_learned] > 0).any())
    if not is_left:
        raise InputError(
            f"no foreground of {_named(boxes.labels)} is left to train on: all of it lies in the validation box "
            f"{boxes.val}, or in the test box and its guard. Move or widen --labels-box, or pass --val-box."
        )
