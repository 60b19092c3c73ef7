"""The labels boxes as training data of S: the targets that their labels give, and where crops of them lie.

Knows volumes, tasks and boxes; must not know answers, ledgers or networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.geometry import Box
from twostream.task import CERTAIN, IGNORE, Task
from twostream.volume import Volume


def known_target(labels: Volume, ignore: Volume | None, task: Task, box: Box) -> np.ndarray:
    """Target of a box with labels, ``IGNORE`` where it is unknown.

    Some channels depend on the neighbourhood of a voxel: contour, distance, and the cleft between two sides. Near a
    face of the box, or near voxels that ``ignore`` excludes, there may be an object that is not labelled, so these
    channels are unknown there (``Task.uncertain``). Beyond the faces of the volume itself there is nothing, so voxels
    near those are known.

    Args:
        labels: (Z, Y, X) integers in the task's convention.
        ignore: non-zero where unlabelled voxels are not known to be background; None: nowhere.
        task: converts labels to targets.
        box: a box in which every object is labelled, voxels of the image.

    Returns:
        (C, Z, Y, X) uint8 levels over ``box``.
    """
    truth = labels.read(box)
    target = task.target(truth)
    ignored = np.zeros(box.shape_zyx, bool) if ignore is None else (ignore.read(box) > 0) & (truth == 0)
    around = box.grown(task.reach_voxels).intersection(labels.box)
    inside = box.relative_to(around).slices
    known, unknown = np.zeros(around.shape_zyx, truth.dtype), np.ones(around.shape_zyx, bool)
    known[inside], unknown[inside] = truth, ignored
    target[task.uncertain(known, unknown)[(slice(None), *inside)]] = IGNORE
    return target


def grey_values(image: Volume, boxes: Sequence[Box]) -> np.ndarray:
    """(N,) uint8, the grey values of all voxels of ``boxes``."""
    return np.concatenate([image.read(box).ravel() for box in boxes])


@dataclass(frozen=True)
class LabelsBox:
    """What one labels box teaches.

    Attributes:
        box: voxels of the image.
        target: (C, Z, Y, X) uint8 levels over ``box``, ``IGNORE`` where it is unknown and in the validation box.
        foreground: (M, 3) int, voxels of ``box`` that are certainly foreground, counted from its first voxel.
    """

    box: Box
    target: np.ndarray
    foreground: np.ndarray


class LabelsBoxes:
    """What the labels boxes of a project teach.

    Args:
        labels: (Z, Y, X) integers in the task's convention; None only without boxes.
        ignore: non-zero where unlabelled voxels are not known to be background; None: nowhere.
        task: converts labels to targets.
        boxes: parts of ``labels`` in which every object is labelled; no two share a voxel.
        val_box: validation box, part of one of them or the whole of it; nothing is taught there. None only without
            boxes.

    Attributes:
        parts: what each box teaches, without one that is the validation box.
    """

    def __init__(
        self, labels: Volume | None, ignore: Volume | None, task: Task, boxes: Sequence[Box], val_box: Box | None
    ) -> None:
        self.parts: list[LabelsBox] = []
        for box in boxes:
            assert labels is not None and val_box is not None  # boxes belong to labels
            if box != val_box:
                target = known_target(labels, ignore, task, box)
                target[(slice(None), *val_box.intersection(box).relative_to(box).slices)] = IGNORE
                self.parts.append(LabelsBox(box, target, np.argwhere(target[task.foreground] == CERTAIN)))

    def draw(self, rng: np.random.Generator, foreground_share: float) -> tuple[int, np.ndarray]:
        """Draw the centre of a crop: a foreground voxel, each with the same chance, or any voxel of the boxes.

        Args:
            rng: of the crop.
            foreground_share: probability of a foreground voxel, where there is one.

        Returns:
            The index of the box in ``parts``, and (3,) int, the voxel (z, y, x) of the image.
        """
        num_foreground = [len(part.foreground) for part in self.parts]
        if any(num_foreground) and rng.random() < foreground_share:
            row, number = _place_of(int(rng.integers(sum(num_foreground))), num_foreground)
            voxel = self.parts[row].foreground[number]
        else:
            row, num_voxels = 0, [part.box.num_voxels for part in self.parts]
            if len(num_voxels) > 1:  # one box alone takes no random number: older projects draw the same crops
                row, _ = _place_of(int(rng.integers(sum(num_voxels))), num_voxels)
            voxel = rng.integers(self.parts[row].box.shape_zyx)
        return row, voxel + np.asarray(self.parts[row].box.offset_zyx)

    def overwrite(self, target: np.ndarray, crop: Box) -> None:
        """Replace the target of a crop by what the labels say, where they say something.

        Args:
            target: (C, Z, Y, X) uint8 levels over ``crop``; changed in place.
            crop: voxels of the image.
        """
        for part in self.parts:
            common = crop.intersection(part.box)
            if common.num_voxels:
                known = part.target[(slice(None), *common.relative_to(part.box).slices)]
                there = target[(slice(None), *common.relative_to(crop).slices)]
                there[...] = np.where(known != IGNORE, known, there)


def _place_of(number: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Element ``number`` of lists that are counted one after the other: which list, and its position there.

    Args:
        number: at least 0, below the sum of ``sizes``.
        sizes: length of each list.
    """
    stops = np.cumsum(sizes)
    row = int(np.searchsorted(stops, number, side="right"))
    return row, number - int(stops[row] - sizes[row])
