"""The boxes of a project: where S learns, where it is validated, where it is scored, and what init takes by default.

Knows settings, labels and geometry; must not know the folder of a project, and must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.models.segmentation.config import context_voxels, fold_for
from twostream.project.settings import ProjectConfig
from twostream.task import TASKS, Task, get_task
from twostream.volume import Volume

TEST_SHARE = 0.2
"""Share of the image that is the default test box."""
VAL_SHARE = 0.2
"""Share of the labels box that is the default validation box."""
MAX_SIDE_GAP_NM = 500.0
"""If labels 2n-1 and 2n are farther apart than this, they are probably not the two sides of a synapse: clefts are much
narrower, and unrelated objects are usually farther apart."""
MIN_COVERED_SHARE = 0.5
"""The default test box is used only if at least this share of it lies in the labelled extent."""


@dataclass(frozen=True)
class Boxes:
    """The regions of a project, in voxels of the image.

    Attributes:
        labels: labels box, which S may learn from; None without labels.
        val: validation box, a part of ``labels`` that is used for early stopping and thresholds instead of training;
            None without labels.
        test: test box, never trained on and never asked about; None if there is none.
    """

    labels: Box | None
    val: Box | None
    test: Box | None

    @property
    def labelled(self) -> tuple[Box, Box]:
        """Labels box and validation box of a project that has labels."""
        assert self.labels is not None and self.val is not None  # ProjectConfig has checked it
        return self.labels, self.val


def guard_voxels(config: ProjectConfig, voxel_size_nm: Sequence[float]) -> tuple[int, int, int]:
    """Width of the guard around the test box, (z, y, x) in voxels (``docs/contracts.md``, *Test region*).

    Along each axis it is the context of S or the size of a patch, whichever is larger; with a source in place of S it
    is the size of a patch.

    Args:
        config: settings of the project.
        voxel_size_nm: (z, y, x) nm of the image.
    """
    task = TASKS[config.task]
    fold_zyx = fold_for(voxel_size_nm, config.segmentation.max_pixel_size_nm or task.pixel_size_nm)
    context = (0, 0, 0) if config.source else context_voxels(config.segmentation, fold_zyx)
    pixel_nm = config.patches.widest_pixel_nm(config.patches.pixel_size_nm or task.patch_pixel_size_nm)
    depth = config.patches.depth_sections(voxel_size_nm[0], pixel_nm)
    width = [int(np.ceil(config.patches.width_px * pixel_nm / size)) for size in voxel_size_nm[1:]]
    patch = max(1, depth), *width
    z, y, x = (max(a, b) for a, b in zip(context, patch, strict=True))
    return z, y, x


def default_boxes(
    config: ProjectConfig,
    image: Volume,
    labels: Volume | None,
    labels_box: str | None,
    val_box: str | None,
    test_box: str | None,
) -> dict[str, str | None]:
    """The three boxes of a new project: those that were given, and defaults for the others.

    The default test box is the last fifth of the image along the axis that is longest in nm (X on a tie), if labels
    cover at least half of it. The default labels box is the extent of the labelled objects without the guarded test
    box. The default validation box is the last fifth of the labels box along its longest axis. Without labels there is
    only a test box, if it was given (``docs/contracts.md``, *Test region*).

    Args:
        config: settings; the guard depends on them.
        image: the image.
        labels: the labels, or None.
        labels_box, val_box, test_box: boxes that were given, "Z0:Z1,Y0:Y1,X0:X1", or None.

    Returns:
        {"labels", "val", "test"}: each as text, or None.

    Raises:
        InputError: a box reaches outside the image, two boxes overlap that must not, or no foreground is left to
            train on.
    """
    given = {
        name: Box.parse(text) for name, text in (("labels", labels_box), ("val", val_box), ("test", test_box)) if text
    }
    for name, box in given.items():
        if not image.box.contains(box):
            raise InputError(f"--{name}-box {box} reaches outside the image, which holds {image.box} (Z, Y, X voxels).")
    if labels is None:
        return {"labels": None, "val": None, "test": test_box}
    extent = _labelled_extent(labels, get_task(config.task, image.voxel_size_nm, config.decoding))
    if extent is None:
        raise InputError(
            f"{labels.uri} holds no foreground; S cannot learn from labels that are all 0. Pass labels with objects."
        )
    test = given.get("test")
    if test is None:
        test = _last_share(image.box, image.voxel_size_nm, TEST_SHARE)
        covered = extent.intersection(test).num_voxels >= MIN_COVERED_SHARE * test.num_voxels
        test = test if covered else None
    guarded = test.grown(guard_voxels(config, image.voxel_size_nm)) if test else None
    box = given.get("labels") or (_without(extent, guarded) if guarded else extent)
    if box.num_voxels == 0:
        raise InputError(
            f"no labels are left outside the test box {test} and its guard; pass --labels-box and --test-box."
        )
    if test is not None and box.intersects(test):
        raise InputError(
            f"labels box {box} overlaps the test box {test}; S must never learn from the test box. Move one of them."
        )
    if not (labels.read(box) > 0).any():
        raise InputError(f"{labels.uri} holds no foreground in the labels box {box}; choose a box with objects in it.")
    val = given.get("val") or _last_share(box, image.voxel_size_nm, VAL_SHARE)
    if not box.contains(val) or val == box:
        raise InputError(
            f"validation box {val} must be a part of the labels box {box}, and leave some of it to train on."
        )
    _check_labels_box(config, image, labels, box, [val] + ([guarded] if guarded else []))
    return {"labels": str(box), "val": str(val), "test": None if test is None else str(test)}


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


def _check_labels_box(config: ProjectConfig, image: Volume, labels: Volume, box: Box, kept_out: Sequence[Box]) -> None:
    """Raise InputError if S could not be trained on the labels box.

    Args:
        config: gives the task.
        image: gives the voxel size.
        labels: the labels.
        box: the labels box.
        kept_out: validation box first, then the guarded test box if there is one; S does not learn from these.
    """
    known = labels.read(box)
    is_learned = np.ones(box.shape_zyx, bool)
    for other in kept_out:
        is_learned[other.intersection(box).relative_to(box).slices] = False
    if not (known[is_learned] > 0).any():
        raise InputError(
            f"no foreground of the labels box {box} is left to train on: all of it lies in the validation box "
            f"{kept_out[0]}, or in the test box and its guard. Move or widen --labels-box, or pass --val-box."
        )
    if TASKS[config.task].num_sides == 2:
        gap_nm = _gap_between_sides_nm(known, image.voxel_size_nm)
        if gap_nm > MAX_SIDE_GAP_NM:
            raise InputError(
                f"{labels.uri}: labels 2n-1 and 2n lie {gap_nm:.0f} nm apart (median), too far for the two sides of a "
                f"synapse. Expected its presynaptic side at 2n-1 and its postsynaptic side at 2n. Are these instance "
                f"labels without polarity?"
            )


def _gap_between_sides_nm(labels: np.ndarray, voxel_size_nm: Sequence[float]) -> float:
    """Median gap between the bounding boxes of labels 2n-1 and 2n; 0 if there is no such pair.

    The gap of a pair is measured along the axis where it is widest, and is negative where the boxes overlap.
    """
    values, inverse = np.unique(labels, return_inverse=True)
    windows = ndimage.find_objects(inverse.reshape(labels.shape).astype(np.int32) + 1)
    window_of = dict(zip(values.tolist(), windows, strict=True))
    gaps = []
    for value in (v for v in window_of if v > 0 and v % 2 == 1 and v + 1 in window_of):
        axes = zip(window_of[value], window_of[value + 1], voxel_size_nm, strict=True)
        gaps.append(max((max(a.start, b.start) - min(a.stop, b.stop)) * size for a, b, size in axes))
    return float(np.median(gaps)) if gaps else 0.0
